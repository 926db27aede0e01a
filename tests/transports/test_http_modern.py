"""The modern era over HTTP, against peers that show every byte."""

import asyncio
import time

import pytest

from apps.common.errors import UpstreamDied, UpstreamProtocolError, UpstreamTimeout, UpstreamTooLarge, UpstreamUnauthenticated
from apps.servers.domain import Secrets
from apps.servers.transports.base import UpstreamRequest
from tests.support import eventually_async
from tests.transports.peers import DISCOVERED, Peer, call, connected, error, event, peer, reply, result, stream_head


def modern(answer):
    """Return a handler: discover is answered, the rest goes to `answer(request, writer)`."""

    async def handle(request, writer):
        if request.method == "POST" and request.json.get("method") == "server/discover":
            await reply(writer, result(request, DISCOVERED))
        else:
            await answer(request, writer)

    return handle


async def echo(request, writer):
    await reply(writer, result(request, {"content": [], "resultType": "complete", "unknown": {"kept": True}}))


async def test_headers_and_body_of_a_call() -> None:
    secrets = Secrets(headers={"Authorization": "Bearer upstream"})
    async with peer(modern(echo)) as there, connected("http", there.url, secrets=secrets) as (upstream, recorder):
        request = call(
            "größe",
            {"Region": "eu"},
            param_headers={"Mcp-Param-Region": "eu"},
            client_capabilities={"elicitation": {}},
            client_info={"name": "agent", "version": "2"},
        )
        answer = await upstream.call(request)
        assert (answer.error, answer.revision) == (None, "2026-07-28")
        assert answer.result == {"content": [], "resultType": "complete", "unknown": {"kept": True}}
        assert request.sent
        assert recorder.named("era_found") == [("endpoint-1", "modern", ("2026-07-28",))]
        sent = there.requests[-1]
        assert sent.headers == {
            "host": f"127.0.0.1:{there.port}",
            "user-agent": "switchyard/0.1.0",
            "authorization": "Bearer upstream",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "=?base64?Z3LDtsOfZQ==?=",
            "mcp-param-region": "eu",
            "content-length": sent.headers["content-length"],
        }
        assert sent.json["params"]["_meta"]["io.modelcontextprotocol/clientInfo"] == {"name": "agent", "version": "2"}
        assert sent.json["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] == {"elicitation": {}}
        await upstream.call(UpstreamRequest("resources/read", {"uri": "a://b"}))
        await upstream.call(UpstreamRequest("tools/list", {}))
        await upstream.call(UpstreamRequest("tasks/get", {"taskId": "t1"}))
        assert [one.headers.get("mcp-name") for one in there.requests[-3:]] == ["a://b", None, "t1"]
        assert "mcp-param-region" not in there.requests[-1].headers, "kept headers are not those of another call"
        assert there.connections == 1
        assert there.methods().count("server/discover") == 1


async def test_ids_are_never_reused_by_concurrent_calls() -> None:
    async with peer(modern(echo)) as there, connected("http", there.url) as (upstream, _):
        await asyncio.gather(*(upstream.call(call()) for _ in range(50)))
        ids = [request.json["id"] for request in there.requests]
        assert len(ids) == len(set(ids)) == 51
        assert upstream.stats() == {"in_flight": 0, "calls": 50, "sessions": 0}


async def test_a_stream_gives_its_messages_in_order_and_then_the_answer() -> None:
    async def streaming(request, writer):
        token = request.json["params"]["_meta"]["progressToken"]
        await stream_head(writer)
        writer.write(b": hello\n\n")
        for i in range(3):
            writer.write(
                event({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": i}})
            )
        writer.write(event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}))
        writer.write(event(result(request)))
        await writer.drain()
        await asyncio.sleep(60)

    got = []

    async def take(message):
        got.append(message)

    async with peer(modern(streaming)) as there, connected("http", there.url, era="modern") as (upstream, _):
        started = time.monotonic()
        answer = await upstream.call(call(on_message=take))
        assert time.monotonic() - started < 10, "the answer does not wait for the stream's end"
        assert answer.result == {"content": []}
        assert [message["params"].get("progress") for message in got] == [0, 1, 2, None]
        assert got[0]["params"]["progressToken"] is None
        await eventually_async(lambda: there.closed, because="the stream is dropped though it never ends")


async def test_cancelling_closes_the_stream_and_the_next_call_works() -> None:
    async def hanging(request, writer):
        if request.json["params"]["name"] == "hang":
            await asyncio.sleep(60)
        await echo(request, writer)

    async with peer(modern(hanging)) as there, connected("http", there.url, era="modern") as (upstream, _):
        task = asyncio.create_task(upstream.call(call("hang")))
        await eventually_async(lambda: there.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually_async(lambda: len(there.closed) == 1)
        with pytest.raises(UpstreamTimeout, match=r"0\.1 s"):
            await upstream.call(call("hang", timeout=0.1))
        await eventually_async(lambda: len(there.closed) == 2)
        assert (await upstream.call(call())).result is not None


async def test_errors_of_the_server_are_its_own_words() -> None:
    async def refusing(request, writer):
        name = request.json["params"]["name"]
        status = {"missing": 404, "bad": 400, "broken": 200, "internal": 500}[name]
        await reply(writer, error(request.json["id"], -32602 if name == "bad" else -32601, name, x=1), status)

    async with peer(modern(refusing)) as there, connected("http", there.url) as (upstream, _):
        for name in ("missing", "bad", "broken", "internal"):
            answer = await upstream.call(call(name))
            assert answer.result is None
            assert answer.error["message"] == name
            assert answer.error["data"] == {"x": 1}
        assert there.methods().count("server/discover") == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_credential_is_its_own_error_and_its_challenge_stays_out_of_the_message(status: int) -> None:
    async def closed(request, writer):
        await reply(
            writer, {"error": "token=abc"}, status, www_authenticate='Bearer resource_metadata="https://x", error="abc"'
        )

    async with peer(closed) as there, connected("http", there.url) as (upstream, recorder):
        with pytest.raises(UpstreamUnauthenticated) as caught:
            await upstream.call(call())
        assert "abc" not in caught.value.detail
        assert "abc" not in str(caught.value.problem())
        assert "resource_metadata" in caught.value.challenge
        assert recorder.events == [], "that says nothing of the era"


async def test_a_restarted_server_of_the_other_era_is_followed() -> None:
    """Known as modern, but the endpoint now runs an old server: one probe, one handshake, and the call goes through."""
    from tests.transports.peers import legacy_basics

    async def old(request, writer):
        if request.headers.get("mcp-protocol-version") == "2026-07-28":
            await reply(writer, error("server-error", -32600, "Unsupported protocol version: 2026-07-28"), 400)
        elif not await legacy_basics(request, writer):
            await reply(writer, result(request))

    async with peer(old) as there, connected("http", there.url, era="modern") as (upstream, recorder):
        answer = await upstream.call(call())
        assert answer.revision == "2025-11-25"
        assert there.methods() == ["tools/call", "server/discover", "initialize", "notifications/initialized", "tools/call"]
        assert recorder.named("era_found") == [("endpoint-1", "legacy", ("2025-11-25",))]
        await upstream.call(call())
        assert there.methods()[5:] == ["tools/call"]


async def test_refusals_that_look_old_are_looked_into_once() -> None:
    async def strange(request, writer):
        await reply(writer, error(None, -32600, "go away"), 400)

    async with peer(modern(strange)) as there, connected("http", there.url, era="modern") as (upstream, _):
        for _ in range(5):
            assert (await upstream.call(call())).error["message"] == "go away"
        assert there.methods().count("server/discover") == 1


async def test_a_dual_endpoint_is_spoken_to_in_the_era_that_is_asked_for() -> None:
    from tests.transports.peers import initialized

    async def both(request, writer):
        method = request.json.get("method")
        if method == "initialize":
            await reply(writer, result(request, initialized()), mcp_session_id="s")
        elif method == "notifications/initialized":
            await reply(writer, None, 202)
        else:
            await echo(request, writer)

    async with peer(modern(both)) as there, connected("http", there.url, era="dual") as (upstream, _):
        assert (await upstream.call(call())).revision == "2026-07-28"
        assert (await upstream.call(call(era="legacy"))).revision == "2025-11-25"
        assert (await upstream.call(call(era="modern"))).revision == "2026-07-28"
        assert there.methods().count("initialize") == 1
        assert "server/discover" not in there.methods()


BODIES = {
    "html": (b"<html>Sign in</html>", {"content_type": "text/html"}),
    "no type": (b"x", {"content_type": ""}),
    "not json": (b"{oops", {}),
    "truncated": (b'{"jsonrpc":"2.0","id":1,"res', {}),
    "empty": (b"", {}),
    "nan": (b'{"jsonrpc":"2.0","id":1,"result":{"a":NaN}}', {}),
    "deep": (b"[" * 200_000, {}),
    "array": (b"[]", {}),
    "wrong id": (b'{"jsonrpc":"2.0","id":999999,"result":{}}', {}),
    "no id": (b'{"jsonrpc":"2.0","result":{}}', {}),
    "null result": (b'{"jsonrpc":"2.0","id":1,"result":null}', {}),
    "gzip": (b"\x1f\x8b\x08\x00", {"content_encoding": "gzip"}),
}


@pytest.mark.parametrize("kind", BODIES)
async def test_rubbish_is_a_protocol_error_and_the_next_call_works(kind: str) -> None:
    body, headers = BODIES[kind]
    bad = [True]

    async def rubbish(request, writer):
        if bad:
            bad.clear()
            await reply(writer, body, **headers)
        else:
            await echo(request, writer)

    async with peer(rubbish) as there, connected("http", there.url, era="modern") as (upstream, _):
        with pytest.raises(UpstreamProtocolError):
            await upstream.call(call())
        assert (await upstream.call(call())).result is not None


STREAMS = {
    "ends": (b": nothing\n\n", UpstreamDied),
    "rubbish": (b"data: {oops\n\n", UpstreamProtocolError),
    "foreign": (b'data: {"jsonrpc":"2.0","id":77,"result":{}}\n\n', UpstreamProtocolError),
    "cut": (b'data: {"jsonrpc":"2.0","id":1,"result":{}}', UpstreamDied),
    "large line": (b"data: " + b"x" * 300_000, UpstreamTooLarge),
    "large event": (b"data: xxxxxxx\n" * 30_000, UpstreamTooLarge),
    "comments": (b": xxxxxxx\n\n" * 30_000, UpstreamTooLarge),
}


@pytest.mark.parametrize("kind", STREAMS)
async def test_bad_streams_are_typed_errors_and_the_next_call_works(kind: str) -> None:
    data, expected = STREAMS[kind]
    bad = [True]

    async def stream(request, writer):
        if not bad:
            return await echo(request, writer)
        bad.clear()
        await stream_head(writer)
        writer.write(data)
        await writer.drain()
        writer.close()
        return None

    async with peer(stream) as there, connected("http", there.url, era="modern") as (upstream, _):
        with pytest.raises(expected):
            await upstream.call(call(max_bytes=200_000))
        assert (await upstream.call(call())).result is not None


async def test_endless_bodies_are_cut_at_the_limit() -> None:
    """A gigabyte announced, chunks without end and events without end: none is read beyond the limit."""
    written = [0]

    async def endless(request, writer):
        name = request.json["params"]["name"]
        if name == "length":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1073741824\r\n\r\n")
        elif name == "chunks":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        elif name == "events":
            await stream_head(writer)
        else:
            return await echo(request, writer)
        piece = (
            b"10000\r\n" + b" " * 65_536 + b"\r\n"
            if name == "chunks"
            else b"data: " + b"x" * 65_000 + b"\n\n"
            if name == "events"
            else b" " * 65_536
        )
        if name == "events":
            piece = event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x" * 65_000}})
        while True:
            writer.write(piece)
            await writer.drain()
            written[0] += len(piece)

    async with peer(modern(endless)) as there, connected("http", there.url, era="modern") as (upstream, _):
        for name in ("length", "chunks", "events"):
            written[0] = 0
            with pytest.raises(UpstreamTooLarge):
                await upstream.call(call(name, max_bytes=1_000_000))
            assert written[0] < 16_000_000
        assert (await upstream.call(call("fine"))).result is not None


async def test_a_drip_ends_with_the_time_limit() -> None:
    async def drip(request, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with peer(drip) as there, connected("http", there.url, era="modern") as (upstream, _):
        started = time.monotonic()
        with pytest.raises(UpstreamTimeout):
            await upstream.call(call(timeout=0.3))
        assert time.monotonic() - started < 5


async def test_a_kept_connection_closed_under_a_read_is_no_failure_but_under_a_call_it_is() -> None:
    def closing(there: list[Peer]):
        async def handle(request, writer):
            if len(there[0].requests) % 2 == 0:
                writer.close()
            else:
                await echo(request, writer)

        return handle

    holder: list[Peer] = []
    async with peer(closing(holder)) as there, connected("http", there.url, era="modern") as (upstream, _):
        holder.append(there)
        await upstream.call(UpstreamRequest("tools/list", {}))
        await upstream.call(UpstreamRequest("tools/list", {}))
        assert there.methods() == ["tools/list"] * 3
        request = call()
        with pytest.raises(UpstreamDied):
            await upstream.call(request)
        assert request.sent
        assert there.methods() == ["tools/list"] * 3 + ["tools/call"]


async def test_listening_reports_changes_and_reconnects(monkeypatch) -> None:
    monkeypatch.setattr("apps.servers.transports.announcements.random.uniform", lambda *_: 0.02)

    async def announcing(request, writer):
        await stream_head(writer)
        writer.write(event({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {}}))
        for kind in ("tools", "prompts", "resources"):
            writer.write(event({"jsonrpc": "2.0", "method": f"notifications/{kind}/list_changed"}))
        writer.write(event({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "a://b"}}))
        await writer.drain()
        if len(there.requests) > 1:
            await asyncio.sleep(60)
        writer.close()

    async with peer(announcing) as there, connected("http", there.url, era="modern") as (upstream, recorder):
        task = asyncio.create_task(upstream.listen())
        changes = [("server-1", kind) for kind in ("tools", "prompts", "resources")]
        await eventually_async(lambda: recorder.named("list_changed") == [*changes, ("server-1", "all"), *changes])
        assert recorder.named("resource_updated") == [("server-1", "a://b", "")] * 2
        assert there.requests[0].json["params"]["notifications"] == {
            "toolsListChanged": True,
            "promptsListChanged": True,
            "resourcesListChanged": True,
        }
        await upstream.aclose()
        await task
        await eventually_async(lambda: there.closed)


async def test_listening_to_a_server_without_it_returns() -> None:
    async def without(request, writer):
        await reply(writer, error(request.json["id"], -32601), 404)

    async with peer(without) as there, connected("http", there.url, era="modern") as (upstream, _):
        await asyncio.wait_for(upstream.listen(), 5)


async def test_closing_ends_calls_in_flight() -> None:
    async def hanging(request, writer):
        await asyncio.sleep(60)

    async with peer(hanging) as there, connected("http", there.url, era="modern") as (upstream, _):
        calls = [asyncio.create_task(upstream.call(call())) for _ in range(5)]
        await eventually_async(lambda: len(there.requests) == 5)
        await upstream.aclose()
        assert [type(outcome) for outcome in await asyncio.gather(*calls, return_exceptions=True)] == [UpstreamDied] * 5
        from apps.common.errors import UpstreamUnavailable

        with pytest.raises(UpstreamUnavailable):
            await upstream.call(call())
