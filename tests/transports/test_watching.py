"""Subscriptions to resources at servers of both eras over every transport: asked, refused, kept over reconnects, taken back."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from apps.common.errors import UpstreamTimeout, UpstreamUnavailable
from apps.servers.transports.base import UpstreamRequest
from tests.support import eventually_async
from tests.transports.peers import (
    PYTHON,
    call,
    connected,
    error,
    event,
    initialized,
    legacy_basics,
    peer,
    reply,
    result,
    stream_head,
)
from tests.transports.test_sse import OldServer

STDIO = (PYTHON, "-I", "-S", str(Path(__file__).with_name("stdio_peer.py")))


def subscribe(uri: str, verb: str = "subscribe", timeout: float = 5.0, **options) -> UpstreamRequest:
    return UpstreamRequest(f"resources/{verb}", {"uri": uri}, timeout=timeout, **options)


def updated(uri: str) -> dict:
    return {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}}


@contextlib.asynccontextmanager
async def listening(upstream):
    task = asyncio.create_task(upstream.listen())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class LegacyServer:
    """Streamable HTTP with a session that it may be told to forget, and a standalone stream for each."""

    def __init__(self) -> None:
        self.sessions = 0
        self.forgotten: set[str] = set()
        self.subscribed: list[tuple[str, str, str]] = []
        self.streams: dict[str, asyncio.StreamWriter] = {}

    async def __call__(self, request, writer) -> None:
        session = request.headers.get("mcp-session-id", "")
        if session in self.forgotten:
            await reply(writer, error(None, -32600, "no such session"), 404)
        elif request.method == "GET":
            await stream_head(writer)
            self.streams[session] = writer
            await asyncio.sleep(60)
        elif request.json.get("method") == "initialize":
            self.sessions += 1
            await reply(writer, result(request, initialized()), mcp_session_id=f"s-{self.sessions}")
        elif str(request.json.get("method")).startswith("resources/"):
            uri = request.json["params"]["uri"]
            self.subscribed.append((session, request.json["method"].removeprefix("resources/"), uri))
            refused = uri.startswith("no:")
            await reply(writer, error(request.json["id"], -32002, "none") if refused else result(request, {}))
        elif not await legacy_basics(request, writer):
            await reply(writer, result(request))

    def tell(self, session: str, uri: str) -> None:
        self.streams[session].write(event(updated(uri)))


async def test_legacy_http_subscribes_in_the_session_whose_stream_is_followed() -> None:
    server = LegacyServer()
    async with peer(server) as there, connected("http", there.url, era="legacy") as (upstream, recorder), listening(upstream):
        assert (await upstream.watch(subscribe("a://b"))).result == {}
        refused = await upstream.watch(subscribe("no://where"))
        assert refused.error is not None
        assert refused.error["code"] == -32002
        await eventually_async(lambda: "s-1" in server.streams)
        server.tell("s-1", "a://b")
        await eventually_async(lambda: recorder.named("resource_updated") == [("server-1", "a://b", "")])
        assert (await upstream.watch(subscribe("a://b", "unsubscribe"))).result == {}
        assert server.subscribed == [
            ("s-1", "subscribe", "a://b"),
            ("s-1", "subscribe", "no://where"),
            ("s-1", "unsubscribe", "a://b"),
        ]


async def test_legacy_http_subscribes_again_in_a_new_session_and_reports_what_may_have_been_missed(monkeypatch) -> None:
    monkeypatch.setattr("apps.servers.transports.announcements.random.uniform", lambda *_: 0.02)
    server = LegacyServer()
    async with peer(server) as there, connected("http", there.url, era="legacy") as (upstream, recorder), listening(upstream):
        await upstream.watch(subscribe("a://b"))
        await upstream.watch(subscribe("no://where"))
        await eventually_async(lambda: "s-1" in server.streams)
        assert recorder.named("resource_updated") == []
        server.forgotten.add("s-1")
        server.streams["s-1"].close()
        await eventually_async(lambda: ("s-2", "subscribe", "a://b") in server.subscribed)
        await eventually_async(lambda: ("server-1", "a://b", "") in recorder.named("resource_updated"))
        assert ("s-2", "subscribe", "no://where") not in server.subscribed
        await eventually_async(lambda: "s-2" in server.streams)
        before = len(recorder.named("resource_updated"))
        server.tell("s-2", "a://b")
        await eventually_async(lambda: len(recorder.named("resource_updated")) > before)


class ModernServer:
    """`subscriptions/listen` with streams that stay open."""

    def __init__(self, *, acknowledges: bool = True) -> None:
        self.acknowledges = acknowledges
        self.filters: list[list[str]] = []
        self.open: list[asyncio.StreamWriter] = []

    async def __call__(self, request, writer) -> None:
        uris = request.json["params"]["notifications"].get("resourceSubscriptions", [])
        self.filters.append(uris)
        await stream_head(writer)
        honoured = {"resourceSubscriptions": [uri for uri in uris if not uri.startswith("no:")]}
        meta = {"io.modelcontextprotocol/subscriptionId": request.json["id"]}
        params = {"notifications": honoured, "_meta": meta}
        if self.acknowledges:
            writer.write(event({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params}))
        self.open.append(writer)
        await asyncio.sleep(60)


async def test_modern_http_opens_a_stream_with_the_new_filter_and_then_closes_the_old() -> None:
    server = ModernServer()
    async with peer(server) as there, connected("http", there.url, era="modern") as (upstream, recorder), listening(upstream):
        answers = await asyncio.gather(*(upstream.watch(subscribe(uri)) for uri in ("a://1", "a://2", "no://where")))
        assert [answer.error is None for answer in answers] == [True, True, False]
        assert sorted(server.filters[-1]) in (["a://1", "a://2"], ["a://1", "a://2", "no://where"])
        await eventually_async(lambda: len(there.closed) == len(server.open) - 1)
        server.open[-1].write(event(updated("a://2")))
        await eventually_async(lambda: recorder.named("resource_updated") == [("server-1", "a://2", "")])
        await upstream.watch(subscribe("a://2", "unsubscribe"))
        await eventually_async(lambda: server.filters[-1] == ["a://1"])
        assert recorder.named("list_changed") == [], "another filter is no reason to list anew"


async def test_modern_http_keeps_the_filter_over_a_reconnect(monkeypatch) -> None:
    monkeypatch.setattr("apps.servers.transports.announcements.random.uniform", lambda *_: 0.02)
    server = ModernServer()
    async with peer(server) as there, connected("http", there.url, era="modern") as (upstream, recorder), listening(upstream):
        await upstream.watch(subscribe("a://1"))
        before = len(server.filters)
        for stream in server.open:
            stream.close()
        await eventually_async(lambda: len(server.filters) > before)
        assert server.filters[-1] == ["a://1"]
        await eventually_async(lambda: recorder.named("resource_updated") == [("server-1", "a://1", "")])


async def test_a_modern_server_without_the_stream_refuses_and_one_that_says_nothing_times_out() -> None:
    async def without(request, writer):
        await reply(writer, error(request.json["id"], -32601), 404)

    async with peer(without) as there, connected("http", there.url, era="modern") as (upstream, _), listening(upstream):
        for _ in range(2):
            answer = await upstream.watch(subscribe("a://1"))
            assert answer.error is not None
            assert answer.error["code"] == -32602

    server = ModernServer(acknowledges=False)
    async with peer(server) as there, connected("http", there.url, era="modern") as (upstream, _), listening(upstream):
        with pytest.raises(UpstreamTimeout):
            await upstream.watch(subscribe("a://1", timeout=0.3))


async def test_an_unreachable_modern_server_is_an_outage(free_port: int) -> None:
    async with connected("http", f"http://127.0.0.1:{free_port}/mcp", era="modern") as (upstream, _), listening(upstream):
        with pytest.raises(UpstreamUnavailable):
            await upstream.watch(subscribe("a://1"))


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_stdio_watches_over_the_lives_of_the_process(tmp_path: Path, era: str) -> None:
    log = tmp_path / "log"
    program = (*STDIO, f"era={era}", f"log={log}")

    def asked() -> int:
        text = log.read_text()
        return text.count("resources/subscribe a://b") if era == "legacy" else text.count("filter ['a://b']")

    async with connected("stdio", command=program, idle_seconds=0.2) as (upstream, recorder), listening(upstream):
        assert (await upstream.watch(subscribe("a://b"))).error is None
        refused = await upstream.watch(subscribe("no://where"))
        assert refused.error is not None
        await eventually_async(lambda: ("server-1", "a://b", "") in recorder.named("resource_updated"))
        before = asked()
        await asyncio.sleep(0.5)
        assert recorder.named("process_ended") == [], "a process that is watched is not idle"
        with contextlib.suppress(Exception):
            await upstream.call(call("die"))
        await eventually_async(lambda: asked() > before, within=10)
        assert len(recorder.named("process_started")) == 2, "it is started again for those who watch"
        assert (await upstream.watch(subscribe("a://b", "unsubscribe"))).error is None
        await eventually_async(lambda: len(recorder.named("process_ended")) == 2, within=10)


async def test_sse_watches_on_its_stream_and_again_on_the_next(monkeypatch) -> None:
    monkeypatch.setattr("apps.servers.transports.announcements.random.uniform", lambda *_: 0.02)
    asked = []

    class Server(OldServer):
        async def __call__(self, request, writer) -> None:
            await super().__call__(request, writer)
            if request.method == "POST" and str(request.json.get("method")).startswith("resources/"):
                asked.append((self.opened, request.json["method"], request.json["params"]["uri"]))
                await self.send(event(result(request, {})))
                await self.send(event(updated(request.json["params"]["uri"])))

    server = Server()
    async with (
        peer(server) as there,
        connected("sse", there.url, idle_seconds=0.1) as (upstream, recorder),
        listening(upstream),
    ):
        assert (await upstream.watch(subscribe("a://b"))).result == {}
        await eventually_async(lambda: recorder.named("resource_updated") == [("server-1", "a://b", "")])
        server.stream.close()
        await eventually_async(lambda: (2, "resources/subscribe", "a://b") in asked)
        await eventually_async(lambda: len(recorder.named("resource_updated")) > 1)


async def test_each_caller_watches_in_a_session_of_their_own_that_is_listened_to_meanwhile() -> None:
    server = LegacyServer()
    async with peer(server) as there, connected("http", there.url, era="legacy") as (upstream, recorder):
        for caller in ("key:1", "key:2"):
            answer = await upstream.watch(subscribe("a://b", caller=caller))
            assert (answer.result, answer.place) == ({}, caller)
            await upstream.call(call(caller=caller))
        assert server.sessions == 2, "the session of the caller's calls"
        await eventually_async(lambda: len(server.streams) == 2)
        server.tell("s-2", "a://b")
        await eventually_async(lambda: recorder.named("resource_updated") == [("server-1", "a://b", "key:2")])
        await upstream.watch(subscribe("a://b", "unsubscribe", caller="key:2"))
        await eventually_async(lambda: len(there.closed) == 1)
        declared = subscribe("a://b", caller="key:1", client_capabilities={"roots": {}}, on_request=nobody)
        assert (await upstream.watch(declared)).place not in ("", "key:1", "key:2")


async def nobody(message: dict) -> dict:
    return {"error": {"code": -32601, "message": "no"}}


async def test_a_caller_s_process_is_the_one_that_is_watched(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with connected("stdio", command=(*STDIO, "era=legacy", f"log={log}")) as (upstream, recorder):
        takes = {"caller": "key:1", "session": "s", "client_capabilities": {"sampling": {}}, "on_request": nobody}
        own = await upstream.watch(subscribe("a://b", **takes))
        await eventually_async(lambda: recorder.named("resource_updated") == [("server-1", "a://b", own.place)])
        assert own.place.startswith("key:1 s ")
        shared = await upstream.watch(subscribe("a://b", caller="key:2"))
        assert shared.place == ""
        await eventually_async(lambda: ("server-1", "a://b", "") in recorder.named("resource_updated"))
        assert (await upstream.watch(subscribe("a://b", "unsubscribe", **takes))).error is None
