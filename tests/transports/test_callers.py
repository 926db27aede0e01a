"""Each caller has a session of their own where the protocol has sessions, and none sees another's state."""

import asyncio

import pytest

from apps.common.errors import UpstreamUnavailable
from apps.servers.transports import callers
from apps.servers.transports.callers import Callers
from tests.support import eventually_async
from tests.transports.peers import call, connected, initialized, peer, reply, result


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

    kept: Callers[object] = Callers(lambda _: object(), end, idle_seconds=0.01)
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
