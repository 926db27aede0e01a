"""Each caller has a session of their own where the protocol has sessions, and none sees another's state."""

import asyncio
from pathlib import Path

import pytest

from apps.common.errors import UpstreamUnavailable
from apps.servers.transports import callers
from apps.servers.transports.callers import Callers
from tests.support import eventually_async
from tests.transports.peers import PYTHON, call, connected, initialized, peer, reply, result


class Remembering:
    """A legacy server that keeps what a session was told, under the session's id."""

    def __init__(self) -> None:
        self.opened = 0
        self.told: dict[str, list[str]] = {}

    async def __call__(self, request, writer) -> None:
        session = request.headers.get("mcp-session-id", "")
        if request.method != "POST":
            await reply(writer, None, 405)
            return
        method = request.json["method"]
        if method == "initialize":
            self.opened += 1
            self.told[f"s-{self.opened}"] = []
            await reply(writer, result(request, initialized()), mcp_session_id=f"s-{self.opened}")
        elif method == "server/discover":
            await reply(writer, {"jsonrpc": "2.0", "id": request.json["id"], "error": {"code": -32601, "message": "no"}}, 404)
        elif "id" not in request.json:
            await reply(writer, None, 202)
        elif session not in self.told:
            await reply(writer, None, 404)
        else:
            self.told[session].append(request.json["params"]["arguments"]["text"])
            await reply(writer, result(request, {"content": [], "told": self.told[session]}))


def ended(there) -> set[str]:
    return {request.headers["mcp-session-id"] for request in there.requests if request.method == "DELETE"}


async def tell(upstream, caller: str, text: str) -> list[str]:
    request = call("remember", {"text": text}, caller=caller)
    return (await upstream.call(request)).result["told"]


async def test_no_caller_sees_what_another_told_the_server() -> None:
    server = Remembering()
    async with peer(server) as there, connected("http", there.url) as (upstream, _):
        await asyncio.gather(*(tell(upstream, f"key:{number}", f"mine {number}") for number in range(20)))
        for number in range(20):
            assert await tell(upstream, f"key:{number}", "again") == [f"mine {number}", "again"]
        assert upstream.stats()["sessions"] == 20
        await upstream.aclose()
        assert len(ended(there)) == server.opened, "every session is ended with its upstream"


async def test_idle_sessions_end_and_come_back_empty() -> None:
    server = Remembering()
    async with peer(server) as there, connected("http", there.url, idle_seconds=0.2) as (upstream, _):
        assert await tell(upstream, "key:1", "one") == ["one"]
        await eventually_async(lambda: upstream.stats()["sessions"] == 0)
        await eventually_async(lambda: len(ended(there)) == 1)
        assert await tell(upstream, "key:1", "two") == ["two"]


async def test_beyond_the_limit_the_session_idle_longest_ends(monkeypatch) -> None:
    monkeypatch.setattr(callers, "MOST", 3)
    server = Remembering()
    async with peer(server) as there, connected("http", there.url) as (upstream, _):
        for caller in ("a", "b", "c"):
            await tell(upstream, caller, "first")
        await tell(upstream, "a", "second")
        await tell(upstream, "d", "first")
        assert await tell(upstream, "a", "third") == ["first", "second", "third"]
        assert await tell(upstream, "b", "new") == ["new"]
        assert upstream.stats()["sessions"] == 3


async def test_what_is_in_use_is_never_ended(monkeypatch) -> None:
    monkeypatch.setattr(callers, "MOST", 2)
    ended: list[object] = []

    async def end(thing: object) -> None:
        ended.append(thing)

    kept: Callers[object] = Callers(lambda *_: object(), end, idle_seconds=0.01)
    with kept.use("a") as first, kept.use("b"):
        await asyncio.sleep(0.1)
        assert not ended
        with pytest.raises(UpstreamUnavailable, match="at the same time"), kept.use("c"):
            pass
        with kept.use("a") as same:
            assert same is first
    await eventually_async(lambda: len(ended) == 2)
    await kept.aclose()
    with pytest.raises(UpstreamUnavailable), kept.use("a"):
        pass


STDIO = (PYTHON, "-I", "-S", str(Path(__file__).with_name("stdio_peer.py")), "era=legacy")


async def answering(message: dict) -> dict:
    return {"result": {"role": "assistant", "content": {"type": "text", "text": "yes"}, "model": "m"}}


def taker(name: str, caller: str, session: str = "", **arguments):
    """A call of a client that takes sampling."""
    return call(
        name,
        arguments,
        caller=caller,
        session=session,
        client_capabilities={"sampling": {}},
        on_request=answering,
        timeout=20.0,
    )


async def pid(upstream, request) -> int:
    answer = await upstream.call(request)
    assert answer.result is not None
    return answer.result["pid"]


async def test_a_stdio_program_that_may_ask_is_one_caller_s_session_s_alone() -> None:
    async with connected("stdio", command=STDIO) as (upstream, recorder):
        common = await pid(upstream, call("environment", caller="key:1"))
        assert await pid(upstream, call("environment", caller="key:2", client_capabilities={"sampling": {}})) == common
        pids = {
            (caller, session): await pid(upstream, taker("environment", caller, session))
            for caller, session in (("key:1", "a"), ("key:1", "b"), ("key:2", "a"))
        }
        assert len({common, *pids.values()}) == 4
        assert await pid(upstream, taker("environment", "key:1", "a")) == pids["key:1", "a"]
        asked = await upstream.call(taker("ask", "key:1", "a"))
        assert asked.result is not None
        assert asked.result["replies"] == {"q1": {}, "q2": (await answering({}))["result"]}
        assert upstream.stats()["sessions"] == 3
        refused = await upstream.call(call("ask", caller="key:1"))
        assert refused.result is not None
        assert refused.result["replies"] == {"q1": {}, "q2": -32601}
    assert len(recorder.named("process_ended")) == 4


async def test_a_modern_stdio_program_serves_everybody() -> None:
    async with connected("stdio", command=(*STDIO[:-1], "era=modern")) as (upstream, _):
        assert len({await pid(upstream, taker("environment", caller)) for caller in ("key:1", "key:2")}) == 1


async def test_beyond_the_limit_of_processes_callers_share_the_common_one(monkeypatch) -> None:
    monkeypatch.setattr("apps.servers.transports.callers.ASKERS", 1)
    async with connected("stdio", command=STDIO) as (upstream, _):
        busy = asyncio.create_task(upstream.call(taker("sleep", "key:1", seconds=1.0)))
        await eventually_async(lambda: upstream.stats().get("sessions") == 1)
        request = taker("ask", "key:2")
        other = await upstream.call(request)
        assert other.result is not None
        assert other.result["replies"] == {"q1": {}, "q2": -32603}, "the server is told why"
        assert request.refused == ["sampling/createMessage"]
        assert "callers use this server at the same time" in request.unasked
        await busy


async def test_one_caller_has_a_share_of_the_processes_over_all_of_its_sessions(monkeypatch) -> None:
    monkeypatch.setattr("apps.servers.transports.callers.ASKERS", 4)
    monkeypatch.setattr("apps.servers.transports.callers.ASKERS_SHARE", 2)
    async with connected("stdio", command=STDIO) as (upstream, _):
        greedy = [asyncio.create_task(upstream.call(taker("sleep", "key:1", f"s{n}", seconds=1.0))) for n in range(2)]
        await eventually_async(lambda: upstream.stats().get("sessions") == 2)
        third, other = taker("ask", "key:1", "s3"), taker("ask", "key:2", "s1")
        refused, asked = await asyncio.gather(upstream.call(third), upstream.call(other))
        assert refused.result is not None
        assert refused.result["replies"]["q2"] == -32603
        assert third.refused == ["sampling/createMessage"]
        assert "This caller has 2 sessions in use" in third.unasked
        assert asked.result is not None
        assert asked.result["replies"]["q2"] == (await answering({}))["result"]
        assert other.refused == []
        await asyncio.gather(*greedy)
