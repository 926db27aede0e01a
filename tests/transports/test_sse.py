"""The old HTTP+SSE transport."""

import asyncio
import contextlib

import pytest

from apps.common.errors import (
    UpstreamDied,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTooLarge,
    UpstreamUnavailable,
)
from tests.support import eventually_async
from tests.transports.peers import call, connected, error, event, initialized, peer, reply, result, stream_head


class OldServer:
    """A handler with one event stream at a time; calls named in `script` are treated as it says."""

    def __init__(self, target: str = "/messages?session_id=1", script=None) -> None:
        self.target = target
        self.script = script or {}
        self.stream: asyncio.StreamWriter | None = None
        self.opened = 0
        self.replies: list = []

    async def __call__(self, request, writer) -> None:
        if request.method == "GET":
            self.opened += 1
            self.stream = writer
            await stream_head(writer)
            writer.write(f"event: endpoint\ndata: {self.target}\n\n".encode())
            await writer.drain()
            await asyncio.sleep(60)
            return
        message = request.json
        await reply(writer, b"Accepted", 202, content_type="text/plain")
        if "method" not in message:
            self.replies.append(message)
        elif message["method"] == "initialize":
            await self.send(event(result(request, initialized("2024-11-05"))))
        elif message["method"] == "ping":
            await self.send(event(result(request, {})))
        elif message["method"] == "tools/call":
            act = self.script.get(message["params"]["name"])
            # Beside this exchange: its connection is free for the next message.
            self.work = asyncio.create_task(act(request) if act else self.send(event(result(request))), name="peer")

    async def send(self, data: bytes) -> None:
        assert self.stream is not None
        self.stream.write(data)
        with contextlib.suppress(ConnectionError):
            await self.stream.drain()


async def test_calls_share_one_stream_and_come_back_to_their_callers() -> None:
    held = []

    async def hold(request):
        held.append(request)
        if len(held) == 3:
            for one in reversed(held):
                await server.send(event(result(one, {"content": [], "which": one.json["params"]["arguments"]["n"]})))

    server = OldServer(script={"hold": hold})
    async with peer(server) as there, connected("sse", there.url) as (upstream, recorder):
        answers = await asyncio.gather(*(upstream.call(call("hold", {"n": n})) for n in range(3)))
        assert [answer.result["which"] for answer in answers] == [0, 1, 2]
        assert answers[0].revision == "2024-11-05"
        assert server.opened == 1
        assert there.requests[0].headers["accept"] == "text/event-stream"
        assert there.requests[1].path == "/messages?session_id=1"
        assert recorder.named("era_found") == [("endpoint-1", "legacy", ("2024-11-05",))]


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:1/messages", "https://127.0.0.1/messages", "//evil.example/messages", "http://evil.example/"]
)
async def test_an_address_on_another_origin_is_not_used(target: str) -> None:
    async with peer(OldServer(target)) as there, connected("sse", there.url) as (upstream, _):
        with pytest.raises(UpstreamProtocolError, match="origin"):
            await upstream.call(call())
        assert [request.method for request in there.requests] == ["GET"]


async def test_an_absolute_address_on_the_same_origin_is_used() -> None:
    server = OldServer()
    async with peer(server) as there, connected("sse", there.url) as (upstream, _):
        server.target = f"http://127.0.0.1:{there.port}/elsewhere"
        await upstream.call(call())
        assert there.requests[-1].path == "/elsewhere"


async def test_progress_requests_and_announcements() -> None:
    async def talk(request):
        token = request.json["params"]["_meta"]["progressToken"]
        await server.send(
            event({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
        )
        await server.send(
            event({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 999, "progress": 2}})
        )
        await server.send(event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "log"}}))
        await server.send(event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}))
        await server.send(event({"jsonrpc": "2.0", "id": 70, "method": "ping"}))
        await server.send(event({"jsonrpc": "2.0", "id": 71, "method": "roots/list"}))
        await eventually_async(lambda: len(server.replies) == 2)
        await server.send(event(result(request)))

    notes = []

    async def note(message):
        notes.append(message["params"].get("progress", message["params"].get("data")))

    server = OldServer(script={"talk": talk})
    async with peer(server) as there, connected("sse", there.url) as (upstream, recorder):
        await upstream.call(call("talk", on_message=note))
        assert notes == [1, "log"]
        assert recorder.named("list_changed") == [("server-1", "tools")]
        assert sorted(server.replies, key=lambda one: one["id"]) == [
            {"jsonrpc": "2.0", "id": 70, "result": {}},
            {**error(71, -32601, "This client does not take such requests.")},
        ]


async def test_a_lost_stream_ends_its_calls_and_the_next_call_opens_another() -> None:
    async def die(request):
        server.stream.close()

    server = OldServer(script={"die": die})
    async with peer(server) as there, connected("sse", there.url) as (upstream, recorder):
        with pytest.raises(UpstreamDied):
            await upstream.call(call("die"))
        assert (await upstream.call(call())).result is not None
        assert server.opened == 2
        assert recorder.named("list_changed") == [("server-1", "all")]


async def test_a_call_out_of_time_tells_the_server_and_a_dead_stream_is_found_out() -> None:
    async def silent(request):
        server.script["ping"] = True

    server = OldServer(script={"silent": silent})
    async with peer(server) as there, connected("sse", there.url) as (upstream, _):
        with pytest.raises(UpstreamTimeout):
            await upstream.call(call("silent", timeout=0.2))
        await eventually_async(lambda: {"notifications/cancelled", "ping"} <= set(there.methods()))
        assert (await upstream.call(call())).result is not None
        assert server.opened == 1, "it answered the ping, so it stays"


RUBBISH = {
    "json": (b"data: {oops\n\n", UpstreamError),
    "scalar": (b"data: 5\n\n", UpstreamError),
    "no end": (b"data: " + b"x" * 17_000_000, UpstreamTooLarge),
}


@pytest.mark.parametrize("kind", RUBBISH)
async def test_rubbish_on_the_stream_is_a_typed_error_and_the_next_call_works(kind: str) -> None:
    data, expected = RUBBISH[kind]

    async def rubbish(request):
        await server.send(data)

    server = OldServer(script={"rubbish": rubbish})
    async with peer(server) as there, connected("sse", there.url) as (upstream, _):
        with pytest.raises(expected):
            await upstream.call(call("rubbish", max_bytes=1_000_000))
        assert (await upstream.call(call())).result is not None


async def test_one_large_answer_is_refused_without_harm_to_the_stream() -> None:
    async def large(request):
        await server.send(event(result(request, {"content": [], "x": "y" * 2_000_000})))

    server = OldServer(script={"large": large})
    async with peer(server) as there, connected("sse", there.url) as (upstream, _):
        with pytest.raises(UpstreamTooLarge):
            await upstream.call(call("large", max_bytes=1_000_000))
        assert (await upstream.call(call())).result is not None
        assert server.opened == 1


async def test_listening_keeps_the_stream_open_and_reconnects(monkeypatch) -> None:
    monkeypatch.setattr("apps.servers.transports.announcements.random.uniform", lambda *_: 0.02)
    server = OldServer()
    async with peer(server) as there, connected("sse", there.url, idle_seconds=0.1) as (upstream, recorder):
        task = asyncio.create_task(upstream.listen())
        await eventually_async(lambda: there.methods().count("notifications/initialized") == 1)
        server.stream.close()
        await eventually_async(lambda: server.opened == 2)
        await eventually_async(lambda: recorder.named("list_changed") == [("server-1", "all")])
        await upstream.aclose()
        await task


async def test_an_idle_stream_is_closed_and_opened_again() -> None:
    server = OldServer()
    async with peer(server) as there, connected("sse", there.url, idle_seconds=0.2) as (upstream, recorder):
        await upstream.call(call())
        await eventually_async(lambda: there.closed)
        await upstream.call(call())
        assert server.opened == 2
        assert recorder.named("list_changed") == []


async def test_outages_are_typed(free_port: int) -> None:
    async def html(request, writer):
        await reply(writer, b"<html>", content_type="text/html")

    async with connected("sse", f"http://127.0.0.1:{free_port}/sse") as (upstream, _):
        request = call()
        with pytest.raises(UpstreamUnavailable):
            await upstream.call(request)
        assert not request.sent
    async with peer(html) as there, connected("sse", there.url) as (upstream, _):
        with pytest.raises(UpstreamProtocolError):
            await upstream.call(call())


async def test_closing_ends_calls_in_flight() -> None:
    async def hang(request):
        await asyncio.sleep(0)

    server = OldServer(script={"hang": hang})
    async with peer(server) as there, connected("sse", there.url) as (upstream, _):
        calls = [asyncio.create_task(upstream.call(call("hang"))) for _ in range(3)]
        await eventually_async(lambda: there.methods().count("tools/call") == 3)
        await upstream.aclose()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [UpstreamDied] * 3
        await eventually_async(lambda: there.closed)
