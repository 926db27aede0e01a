"""The initialize era over HTTP, and finding out which era an endpoint speaks."""

import asyncio

import pytest

from apps.common.errors import (
    UpstreamDied,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnauthenticated,
    UpstreamUnavailable,
)
from apps.servers.domain import Secrets
from tests.support import eventually_async
from tests.transports.peers import (
    DISCOVERED,
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


def legacy(answer, session="s-1", replies=None):
    """Return a handler: probe, handshake and notifications are answered, the rest goes to `answer`; `replies` gets the client's."""

    async def handle(request, writer):
        if replies is not None and "method" not in request.json:
            replies.put_nowait(request.json)
        if not await legacy_basics(request, writer, session):
            await answer(request, writer)

    return handle


async def echo(request, writer):
    if request.method == "GET":
        await reply(writer, None, 405)
    else:
        await reply(writer, result(request))


async def test_handshake_once_for_all_callers_then_calls_in_its_session() -> None:
    secrets = Secrets(headers={"Authorization": "Bearer upstream"})
    async with peer(legacy(echo)) as there, connected("http", there.url, secrets=secrets) as (upstream, recorder):
        answers = await asyncio.gather(*(upstream.call(call("größe", client_capabilities={"x": {}})) for _ in range(20)))
        assert {answer.revision for answer in answers} == {"2025-11-25"}
        assert there.methods()[:3] == ["server/discover", "initialize", "notifications/initialized"]
        assert there.methods().count("initialize") == 1
        assert recorder.named("era_found") == [("endpoint-1", "legacy", ("2025-11-25",))]
        hello = there.requests[1]
        assert hello.json["params"] == {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "switchyard", "title": "Switchyard", "version": "0.1.0"},
        }
        assert "mcp-session-id" not in hello.headers
        for request in there.requests[2:]:
            assert request.headers["mcp-session-id"] == "s-1"
            assert request.headers["mcp-protocol-version"] == "2025-11-25"
            assert request.headers["authorization"] == "Bearer upstream"
            assert not {"mcp-name", "mcp-method"} & set(request.headers)
        assert "_meta" not in there.requests[-1].json["params"]
        await upstream.aclose()
        assert (there.requests[-1].method, there.requests[-1].headers["mcp-session-id"]) == ("DELETE", "s-1")


async def test_declared_capabilities_go_into_the_handshake() -> None:
    async with (
        peer(legacy(echo)) as there,
        connected("http", there.url, era="legacy", capabilities={"roots": {}}) as (upstream, _),
    ):
        await upstream.call(call())
        assert there.methods()[0] == "initialize", "a known era is not asked for"
        assert there.requests[0].json["params"]["capabilities"] == {"roots": {}}


@pytest.mark.parametrize("status", [404, 400])
async def test_a_lost_session_is_made_anew_once_and_the_call_sent_again(status: int) -> None:
    sessions = []

    async def handle(request, writer):
        if request.json.get("method") == "initialize":
            sessions.append(f"s-{len(sessions)}")
            await reply(writer, result(request, initialized()), mcp_session_id=sessions[-1])
        elif request.json.get("method") == "notifications/initialized":
            await reply(writer, None, 202)
        elif request.headers["mcp-session-id"] == "s-0" and lost:
            await reply(writer, error(None, -32001, "Session not found"), status)
        else:
            await reply(writer, result(request))

    lost: list[bool] = []
    async with peer(handle) as there, connected("http", there.url, era="legacy") as (upstream, recorder):
        await upstream.call(call())
        lost.append(True)
        answers = await asyncio.gather(*(upstream.call(call()) for _ in range(10)))
        assert all(answer.result is not None for answer in answers)
        assert sessions == ["s-0", "s-1"]
        assert recorder.named("list_changed") == [("server-1", "all")]


async def test_a_server_that_forgets_every_session_is_not_asked_for_ever() -> None:
    async def amnesia(request, writer):
        await reply(writer, error(None, -32001, "Session not found"), 404)

    async with peer(legacy(amnesia)) as there, connected("http", there.url, era="legacy") as (upstream, _):
        assert (await upstream.call(call())).error["message"] == "Session not found"
        assert there.methods().count("initialize") == 2
        assert there.methods().count("tools/call") == 2


def restarted(forgets: list[bool]):
    """A server that says of the request itself, with HTTP 404, that it does not know the session; `forgets` of each session in turn."""
    begun: list[str] = []

    async def handle(request, writer):
        message = request.json or {}
        if message.get("method") == "initialize":
            begun.append(f"s-{len(begun)}")
            await reply(writer, result(request, initialized()), mcp_session_id=begun[-1])
        elif message.get("method") == "tools/call":
            lost = forgets[min(begun.index(request.headers["mcp-session-id"]), len(forgets) - 1)]
            if lost:
                await reply(writer, error(message["id"], -32600, "Session not found"), 404)
            else:
                await reply(writer, result(request))
        elif not await legacy_basics(request, writer, None):
            await reply(writer, None, 405)

    return handle


@pytest.mark.parametrize("caller", ["", "somebody"])
async def test_a_404_means_that_the_session_is_gone_also_with_an_error_about_the_request(caller: str) -> None:
    forgets = [False]
    async with peer(restarted(forgets)) as there, connected("http", there.url, era="legacy") as (upstream, recorder):
        assert (await upstream.call(call(caller=caller))).error is None
        forgets[:] = [True, False]  # it was restarted
        for _ in range(2):
            assert (await upstream.call(call(caller=caller))).error is None
        assert there.methods().count("initialize") == 2
        assert recorder.named("list_changed") == [("server-1", "all")]


async def test_an_error_that_comes_with_404_in_a_new_session_too_is_handed_on() -> None:
    forgets = [True]
    async with peer(restarted(forgets)) as there, connected("http", there.url, era="legacy") as (upstream, recorder):
        for _ in range(5):
            answer = await upstream.call(call())
            assert answer.error["message"] == "Session not found"
        assert there.methods().count("initialize") == 2
        assert there.methods().count("tools/call") == 6
        assert recorder.named("list_changed") == []


async def test_servers_without_sessions_work() -> None:
    async def handle(request, writer):
        if request.json.get("method") == "initialize":
            await reply(writer, result(request, initialized("2025-03-26")))
        elif "id" not in request.json:
            await reply(writer, None, 202)
        else:
            await echo(request, writer)

    async with peer(handle) as there, connected("http", there.url, era="legacy") as (upstream, _):
        assert (await upstream.call(call())).revision == "2025-03-26"
        assert "mcp-session-id" not in there.requests[-1].headers
        await upstream.aclose()
        assert there.requests[-1].method == "POST", "there is nothing to end"


async def test_everything_that_may_come_on_the_stream_of_a_call() -> None:
    replies = asyncio.Queue()

    async def streaming(request, writer):
        token = request.json["params"]["_meta"]["progressToken"]
        await stream_head(writer)
        writer.write(
            event({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
        )
        writer.write(event({"jsonrpc": "2.0", "id": "p", "method": "ping"}))
        writer.write(event({"jsonrpc": "2.0", "id": 0, "method": "elicitation/create", "params": {"message": "m"}}))
        writer.write(event({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage"}))
        writer.write(event({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}))
        writer.write(event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}))
        await writer.drain()
        got = [await replies.get() for _ in range(2)]
        writer.write(event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": sorted(map(str, got))}}))
        writer.write(event(result(request, {"content": [{"type": "text", "text": "done"}]})))
        await writer.drain()
        writer.close()

    notes, asked = [], []

    async def note(message):
        notes.append(message)

    async def ask(message):
        asked.append(message["method"])
        if message["method"] == "sampling/createMessage":
            await asyncio.sleep(60)
        return {"result": {"action": "accept"}}

    async with (
        peer(legacy(streaming, replies=replies)) as there,
        connected("http", there.url, era="legacy") as (upstream, recorder),
    ):
        answer = await upstream.call(call(on_message=note, on_request=ask))
        assert answer.result == {"content": [{"type": "text", "text": "done"}]}
        assert [message["method"] for message in notes] == ["notifications/progress", "notifications/message"]
        assert notes[0]["params"]["progressToken"] is None
        assert notes[1]["params"]["data"] == [
            str({"jsonrpc": "2.0", "id": "p", "result": {}}),
            str({"jsonrpc": "2.0", "id": 0, "result": {"action": "accept"}}),
        ]
        assert set(asked) <= {"elicitation/create", "sampling/createMessage"}
        assert recorder.named("list_changed") == [("server-1", "tools")]


@pytest.mark.parametrize("silent", [False, True])
async def test_the_clock_of_a_call_stands_still_while_its_client_is_asked(silent) -> None:
    replies = asyncio.Queue()

    async def streaming(request, writer):
        await stream_head(writer)
        writer.write(event({"jsonrpc": "2.0", "id": 5, "method": "elicitation/create", "params": {}}))
        await writer.drain()
        told = await replies.get()
        if silent:
            await asyncio.sleep(60)
        writer.write(event(result(request, {"told": told["result"]})))
        await writer.drain()

    async def ask(message):
        await asyncio.sleep(1.0)
        return {"result": {"action": "accept"}}

    async with peer(legacy(streaming, replies=replies)) as there, connected("http", there.url, era="legacy") as (upstream, _):
        asking = upstream.call(call(on_request=ask, caller="key:1", client_capabilities={"elicitation": {}}, timeout=0.6))
        if silent:
            with pytest.raises(UpstreamTimeout):
                await asyncio.wait_for(asking, 5)
        else:
            assert (await asking).result == {"told": {"action": "accept"}}
        hello = [request.json for request in there.requests if b'"initialize"' in request.body]
        assert hello[-1]["params"]["capabilities"] == {"elicitation": {}}


async def test_a_callers_capabilities_are_declared_only_where_somebody_answers() -> None:
    async with peer(legacy(echo)) as there, connected("http", there.url, era="legacy") as (upstream, _):
        await upstream.call(call(caller="key:1", client_capabilities={"sampling": {}}))
        hello = [request.json for request in there.requests if b'"initialize"' in request.body]
        assert [one["params"]["capabilities"] for one in hello] == [{}]
        assert upstream.stats()["sessions"] == 1


async def test_requests_that_nobody_takes_are_refused() -> None:
    replies = asyncio.Queue()

    async def streaming(request, writer):
        await stream_head(writer)
        writer.write(event({"jsonrpc": "2.0", "id": 5, "method": "sampling/createMessage"}))
        await writer.drain()
        await reply_after(writer, request, replies)

    async def reply_after(writer, request, replies):
        refusal = await replies.get()
        writer.write(event(result(request, {"refusal": refusal["error"]["code"]})))
        await writer.drain()

    async with peer(legacy(streaming, replies=replies)) as there, connected("http", there.url, era="legacy") as (upstream, _):
        assert (await upstream.call(call())).result == {"refusal": -32601}


async def test_a_broken_stream_with_event_ids_is_resumed() -> None:
    resumed = []

    async def handle(request, writer):
        if request.method == "GET":
            resumed.append((request.headers["last-event-id"], request.headers["mcp-session-id"], request.headers["accept"]))
            await stream_head(writer)
            if len(resumed) == 1:
                writer.write(b"id: e-2\ndata:\n\n")
            else:
                writer.write(event(result(handle.request), id="e-3"))
            await writer.drain()
            writer.close()
        elif not await legacy_basics(request, writer):
            handle.request = request
            await stream_head(writer)
            writer.write(b"retry: 10\nid: e-1\ndata:\n\n")
            await writer.drain()
            writer.close()

    async with peer(handle) as there, connected("http", there.url, era="legacy") as (upstream, _):
        assert (await upstream.call(call())).result == {"content": []}
        assert resumed == [("e-1", "s-1", "text/event-stream"), ("e-2", "s-1", "text/event-stream")]
        assert there.methods().count("tools/call") == 1


@pytest.mark.parametrize("with_id", [True, False])
async def test_a_broken_stream_that_cannot_be_resumed_is_a_death(with_id: bool) -> None:
    async def handle(request, writer):
        if request.method == "GET":
            await reply(writer, None, 405)
        elif not await legacy_basics(request, writer):
            if request.json["params"]["name"] == "fine":
                await reply(writer, result(request))
                return
            await stream_head(writer)
            writer.write(b"retry: 1\nid: e-1\ndata:\n\n" if with_id else b": x\n\n")
            await writer.drain()
            writer.close()

    async with peer(handle) as there, connected("http", there.url, era="legacy") as (upstream, _):
        with pytest.raises(UpstreamDied):
            await upstream.call(call())
        assert (await upstream.call(call("fine"))).result is not None


async def test_cancelling_and_running_out_of_time_tell_the_server() -> None:
    async def hanging(request, writer):
        await asyncio.sleep(60)

    async with peer(legacy(hanging)) as there, connected("http", there.url, era="legacy") as (upstream, _):
        with pytest.raises(UpstreamTimeout):
            await upstream.call(call(timeout=0.2))
        await eventually_async(lambda: there.methods()[-1] == "notifications/cancelled")
        asked = next(request for request in there.requests if request.json["method"] == "tools/call")
        assert there.requests[-1].json["params"]["requestId"] == asked.json["id"]


async def test_an_idle_session_is_ended_and_made_anew_without_noise() -> None:
    async with (
        peer(legacy(echo)) as there,
        connected("http", there.url, era="legacy", idle_seconds=0.2) as (upstream, recorder),
    ):
        await upstream.call(call())
        await eventually_async(lambda: there.requests[-1].method == "DELETE")
        assert (await upstream.call(call())).result is not None
        assert there.methods().count("initialize") == 2
        assert recorder.named("list_changed") == []


async def test_listening_follows_the_standalone_stream() -> None:
    replies = []

    async def handle(request, writer):
        if request.body and "method" not in request.json:
            replies.append(request.json)
        if request.method == "GET":
            await stream_head(writer)
            writer.write(event({"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"}))
            writer.write(event({"jsonrpc": "2.0", "id": 9, "method": "ping"}))
            await writer.drain()
            await asyncio.sleep(60)
        else:
            await legacy_basics(request, writer)

    async with peer(handle) as there, connected("http", there.url, era="legacy") as (upstream, recorder):
        task = asyncio.create_task(upstream.listen())
        await eventually_async(lambda: recorder.named("list_changed") == [("server-1", "prompts")])
        await eventually_async(lambda: replies == [{"jsonrpc": "2.0", "id": 9, "result": {}}])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually_async(lambda: there.closed)


async def test_no_standalone_stream_is_fine() -> None:
    async with peer(legacy(echo)) as there, connected("http", there.url, era="legacy") as (upstream, _):
        await asyncio.wait_for(upstream.listen(), 5)


# Which era?

OUTAGES = {
    "500": (500, b"<html>oops</html>", UpstreamUnavailable),
    "502": (502, b"", UpstreamUnavailable),
    "503": (503, b"", UpstreamUnavailable),
    "429": (429, b"", UpstreamUnavailable),
    "302": (302, b"", UpstreamProtocolError),
    "html": (200, b"<html>login</html>", UpstreamProtocolError),
    "401": (401, b"", UpstreamUnauthenticated),
}


@pytest.mark.parametrize("kind", OUTAGES)
async def test_an_outage_is_never_taken_for_an_old_server(kind: str) -> None:
    status, body, expected = OUTAGES[kind]
    down = [True]

    async def handle(request, writer):
        if down:
            await reply(writer, body, status, content_type="text/html", location="http://127.0.0.1:1/")
        elif request.json["method"] == "server/discover":
            await reply(writer, result(request, DISCOVERED))
        else:
            await reply(writer, result(request))

    async with peer(handle) as there, connected("http", there.url) as (upstream, recorder):
        request = call()
        with pytest.raises(expected):
            await upstream.call(request)
        assert "initialize" not in there.methods()
        assert not request.sent
        assert recorder.events == []
        down.clear()
        assert (await upstream.call(call())).revision == "2026-07-28"


async def test_silence_and_refused_connections_are_outages(free_port: int) -> None:
    async def silent(request, writer):
        await asyncio.sleep(60)

    async with peer(silent) as there, connected("http", there.url) as (upstream, recorder):
        with pytest.raises(UpstreamTimeout):
            await upstream.call(call(timeout=0.2))
        assert there.methods() == ["server/discover"]
        assert recorder.events == []
    async with connected("http", f"http://127.0.0.1:{free_port}/mcp") as (upstream, recorder):
        request = call()
        with pytest.raises(UpstreamUnavailable):
            await upstream.call(request)
        assert not request.sent
        assert recorder.events == []


OLD_REFUSALS = {
    "invalid request": (400, error("server-error", -32600)),
    "no session": (400, error(None, -32000, "Bad Request: Server not initialized")),
    "method": (200, error(1, -32601)),
    "not found": (404, b"Not Found"),
    "method not allowed": (405, b""),
    "unsupported": (400, error(None, -32022, supported=["2025-11-25"])),
    "only old ones": (200, {"jsonrpc": "2.0", "id": 1, "result": {"supportedVersions": ["2025-06-18"]}}),
}


@pytest.mark.parametrize("kind", OLD_REFUSALS)
async def test_a_refusal_of_the_question_means_the_handshake(kind: str) -> None:
    status, body = OLD_REFUSALS[kind]

    async def handle(request, writer):
        if request.json.get("method") == "server/discover":
            await reply(writer, body, status)
        elif not await legacy_basics(request, writer):
            await echo(request, writer)

    async with peer(handle) as there, connected("http", there.url) as (upstream, recorder):
        assert (await upstream.call(call())).revision == "2025-11-25"
        assert recorder.named("era_found") == [("endpoint-1", "legacy", ("2025-11-25",))]


async def test_a_wrong_url_is_an_error_and_no_era() -> None:
    async def nothing(request, writer):
        await reply(writer, b"<html>Not Found</html>", 404, content_type="text/html")

    async with peer(nothing) as there, connected("http", there.url) as (upstream, recorder):
        with pytest.raises(UpstreamProtocolError, match="404"):
            await upstream.call(call())
        assert recorder.events == []


async def test_a_legacy_endpoint_that_became_modern_is_followed() -> None:
    async def handle(request, writer):
        if request.headers.get("mcp-protocol-version") != "2026-07-28":
            await reply(writer, error(request.json["id"], -32022, supported=["2026-07-28"]), 400)
        elif request.json["method"] == "server/discover":
            await reply(writer, result(request, DISCOVERED))
        else:
            await echo(request, writer)

    async with peer(handle) as there, connected("http", there.url, era="legacy") as (upstream, recorder):
        assert (await upstream.call(call())).revision == "2026-07-28"
        assert there.methods() == ["initialize", "server/discover", "tools/call"]
        assert recorder.named("era_found") == [("endpoint-1", "modern", ("2026-07-28",))]


@pytest.mark.parametrize("version", ["2023-01-01", "", None, 5])
async def test_a_revision_nobody_knows_is_refused(version) -> None:
    async def handle(request, writer):
        await reply(writer, result(request, initialized(version)))

    async with peer(handle) as there, connected("http", there.url, era="legacy") as (upstream, _):
        with pytest.raises(UpstreamProtocolError, match="revision"):
            await upstream.call(call())


async def test_one_callers_short_patience_does_not_spoil_the_handshake_of_the_others() -> None:
    gate = asyncio.Event()

    async def handle(request, writer):
        if request.json.get("method") == "initialize":
            await gate.wait()
        if not await legacy_basics(request, writer):
            await echo(request, writer)

    async with peer(handle) as there, connected("http", there.url, era="legacy") as (upstream, _):
        hasty = asyncio.create_task(upstream.call(call(timeout=0.1)))
        patient = [asyncio.create_task(upstream.call(call())) for _ in range(3)]
        with pytest.raises(UpstreamTimeout):
            await hasty
        gate.set()
        assert all(answer.result is not None for answer in await asyncio.gather(*patient))
