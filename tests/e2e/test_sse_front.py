"""The HTTP+SSE transport for clients: official ones, all that comes on a stream, whose stream it is, and what ends it."""

import asyncio
import concurrent.futures
import json
from datetime import UTC, datetime, timedelta

import mcp
import mcp_types as types
import pytest
from mcp.client.sse import sse_client

from tests.e2e.events import EventStream
from tests.e2e.paced import WORK, Paced
from tests.e2e.raw import Wire
from tests.e2e.sessions import FORM, Sse, refused
from tests.e2e.support import (
    Answer,
    Client,
    assert_serves,
    audit_mark,
    audit_rows,
    connect,
    exchange,
    made,
    recorded,
    rest,
    unique,
)
from tests.support import eventually, eventually_async

pytestmark = pytest.mark.once

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")


@pytest.fixture(scope="module")
def server(shared_product):
    with Paced() as it:
        it.slug = unique("paced")
        settings = {"slug": it.slug, "transport": "http", "url": it.url, "review": "accept"}
        made(rest(shared_product, "POST", "servers/", settings))
        eventually(lambda: "work" in connect(shared_product, "modern", f"/mcp/{it.slug}").names(), within=25)
        yield it


# Official clients


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_official_client(shared_product, server, mode):
    heard: list = []

    async def elicit(context, params) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"name": "Ada"})

    async def sample(context, params) -> types.CreateMessageResult:
        return types.CreateMessageResult(role="assistant", content=types.TextContent(type="text", text="hi"), model="m")

    async def roots(context) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri="file:///a")])

    async def log(params) -> None:
        heard.append(params.data)

    async def note(message) -> None:
        if not isinstance(message, Exception):
            heard.append(getattr(message, "method", None))

    async def progress(done: float, total: float | None, message: str | None) -> None:
        heard.append((done, total))

    headers = {"Authorization": f"Bearer {shared_product.key}"}
    mark = unique("mark")
    async with mcp.Client(
        sse_client(f"{shared_product.base_url}/sse/{server.slug}", headers=headers),
        mode=mode,
        elicitation_callback=elicit,
        sampling_callback=sample,
        list_roots_callback=roots,
        logging_callback=log,
        message_handler=note,
    ) as client:
        assert client.protocol_version == "2025-11-25"
        assert client.server_info.name == "paced"
        assert [tool.name for tool in (await client.list_tools()).tools] == ["work"]
        await client.send_ping()
        calling = asyncio.create_task(client.call_tool("work", {"mark": mark}, progress_callback=progress))
        await asyncio.to_thread(server.begun, mark)
        token = next(one for one in server.calls(mark=mark)).message["params"]["_meta"]["progressToken"]
        server.say(mark, {"method": "notifications/progress", "params": {"progressToken": token, "progress": 1, "total": 2}})
        server.log(mark, "hello")
        await eventually_async(lambda: {(1, 2), "hello"} <= {one for one in heard if not isinstance(one, dict)})
        server.say(mark, {"id": f"e-{mode}", "method": "elicitation/create", "params": FORM})
        answer = await eventually_async(lambda: server.answers(f"e-{mode}"))
        assert answer[0]["result"]["content"] == {"name": "Ada"}
        content = {"role": "user", "content": {"type": "text", "text": "hello"}}
        server.say(
            mark, {"id": f"s-{mode}", "method": "sampling/createMessage", "params": {"messages": [content], "maxTokens": 9}}
        )
        answer = await eventually_async(lambda: server.answers(f"s-{mode}"))
        assert answer[0]["result"]["content"]["text"] == "hi"
        server.say(mark, {"id": f"r-{mode}", "method": "roots/list"})
        answer = await eventually_async(lambda: server.answers(f"r-{mode}"))
        assert answer[0]["result"]["roots"][0]["uri"] == "file:///a"
        server.finish(mark, "in the end")
        assert (await calling).content[0].text == "in the end"
        await client.session.subscribe_resource("test://watched")
        server.announce_update("test://watched")
        await eventually_async(lambda: "notifications/resources/updated" in heard)
        server.tools = [{**WORK, "description": unique("changed")}]
        await asyncio.to_thread(lambda: made(rest(shared_product, "POST", f"servers/{server.slug}/discover/", {})))
        await eventually_async(lambda: "notifications/tools/list_changed" in heard, within=15)
        with pytest.raises(mcp.MCPError) as error:
            await client.call_tool("absent", {})
        assert error.value.error.data["type"].endswith("/not-found")


async def test_an_official_client_cancels(shared_product, server):
    headers = {"Authorization": f"Bearer {shared_product.key}"}
    mark = unique("mark")
    async with mcp.Client(sse_client(f"{shared_product.base_url}/sse/{server.slug}", headers=headers), mode="legacy") as client:
        calling = asyncio.create_task(client.call_tool("work", {"mark": mark}))
        await asyncio.to_thread(server.begun, mark)
        calling.cancel()
        await eventually_async(lambda: server.calls(mark=mark)[0].left)
        assert (await client.list_tools()).tools


# Byte by byte


@pytest.mark.parametrize("revision", [*REVISIONS, "2026-07-28", "1999-01-01"])
def test_each_revision_that_shakes_hands_is_spoken(shared_product, revision):
    with Sse(shared_product) as client:
        assert client.stream.headers["content-type"] == "text/event-stream"
        assert client.stream.headers["x-accel-buffering"] == "no"
        assert client.address.startswith("/sse/messages?session_id=")
        info = {"name": "old", "version": "1"}
        answer = client.ask("initialize", 1, protocolVersion=revision, capabilities={}, clientInfo=info)
        assert answer["result"]["protocolVersion"] == (revision if revision in REVISIONS else "2025-11-25")
        tools = client.ask("tools/list", 2)
        assert (tools["id"], "system__calculate" in {tool["name"] for tool in tools["result"]["tools"]}) == (2, True)
        called = client.ask("tools/call", "three", name="system__calculate", arguments={"expression": "6 * 7"})
        assert (called["id"], "42" in called["result"]["content"][0]["text"]) == ("three", True)


def test_what_is_wrong_with_a_request_is_said_on_the_stream(shared_product):
    with Sse(shared_product) as client:
        client.initialize()
        assert client.ask("no/such", 1)["error"]["code"] == -32601
        assert client.ask("tools/call", 2, name="absent")["error"]["data"]["type"].endswith("/not-found")
        client.post({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": []})
        assert client.stream.message()["error"]["code"] == -32602
        client.post({"jsonrpc": "2.0", "id": 4})
        assert client.stream.message()["error"]["code"] == -32600
        meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
        modern = client.ask("server/discover", 5, _meta=meta)
        assert (modern["error"]["code"], modern["error"]["data"]["supported"]) == (-32022, list(reversed(REVISIONS)))
        assert client.ask("initialize", 6, capabilities={})["error"]["code"] == -32602


@pytest.mark.parametrize(
    ("body", "status", "type"),
    [
        (b"{", 400, "malformed-request"),
        (b"7", 400, "invalid-request"),
        (b"[]", 400, "invalid-request"),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', 400, "invalid-request"),
        (b'{"jsonrpc":"2.0","id":[],"method":"ping"}', 400, "invalid-request"),
        (b'{"jsonrpc":"2.0","method":7}', 400, "invalid-request"),
        (b'{"jsonrpc":"2.0","method":"x","params":7}', 400, "validation-failed"),
    ],
)
def test_what_is_no_request_is_refused_at_the_door(shared_product, body, status, type):
    with Sse(shared_product) as client:
        assert refused(client.post(body)) == (status, type)
        assert client.ask("ping")["result"] == {}
        assert refused(client.post(b"{}", **{"Content-Type": "text/plain"})) == (415, "unsupported-media-type")
        with Wire(shared_product) as wire:
            long = {**client.headers, "Content-Type": "application/json", "Content-Length": str(5 * 1024 * 1024)}
            wire.send(wire.head("POST", client.address, long))
            assert refused(wire.answer()) == (413, "too-large")


def test_batches_are_taken_in_the_one_revision_that_has_them(shared_product):
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    for revision in REVISIONS:
        with Sse(shared_product) as client:
            client.initialize(revision)
            if revision != "2025-03-26":
                assert refused(client.post([ping])) == (400, "invalid-request")
                continue
            batch = [ping, {**ping, "id": 2}, {**ping, "id": 2}, 7, {"jsonrpc": "2.0", "method": "notifications/x"}]
            assert client.post(batch).status == 202
            answers = [client.stream.message() for _ in range(4)]
            assert sorted(("error" in one, str(one["id"])) for one in answers) == [
                (False, "1"),
                (True, "2"),
                (True, "2"),
                (True, "None"),
            ]
            assert refused(client.post([ping] * 101)) == (400, "invalid-request")


def test_only_its_owner_reaches_a_stream(shared_product, server):
    other = made(rest(shared_product, "POST", "api-keys/", {"name": unique("other"), "inherits_owner": True}))["key"]
    mcp_session = connect(shared_product, "legacy").session
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    with (
        Sse(shared_product) as client,
        Sse(shared_product, key=other) as theirs,
        Sse(shared_product, f"/sse/{server.slug}") as placed,
    ):
        token = client.address.partition("=")[2]
        for name, (who, address) in {
            "another key's": (theirs, client.address),
            "another place's": (client, placed.address.replace(f"/{server.slug}", "")),
            "elsewhere": (client, f"/sse/{server.slug}/messages?session_id={token}"),
            "forged": (client, client.address[:-6] + "AAAAAA"),
            "rubbish": (client, "/sse/messages?session_id=%00%ff"),
            "long": (client, "/sse/messages?session_id=" + "x" * 8000),
            "of /mcp": (client, f"/sse/messages?session_id={token[:8]}{mcp_session}"),
        }.items():
            assert refused(who.post(ping, address)) == (404, "session-gone"), name
        for address in ("/sse/messages", "/sse/messages?session_id=", "/sse/messages?" + "a=1&" * 50 + f"session_id={token}"):
            assert refused(client.post(ping, address)) == (400, "invalid-request"), address
        assert refused(client.post(ping, Authorization="Bearer sy_" + "a" * 8 + "_" + "b" * 43)) == (
            401,
            "authentication-required",
        )
        assert refused(client.post(ping, Authorization="")) == (401, "authentication-required")
        at_mcp = Client(shared_product, "legacy", session=token[8:])
        assert refused(at_mcp.ask("ping")) == (404, "session-gone"), "its id is none of /mcp"
        for one in (client, theirs, placed):
            assert one.ask("ping", 2)["id"] == 2
        ended = client.address
    again = Sse(shared_product)
    with again:
        eventually(lambda: again.post(ping, ended).status == 404, within=5)
        assert refused(again.post(ping, ended)) == (404, "session-gone")


def test_the_door_is_the_one_of_mcp(shared_product):
    def get(path: str = "/sse", method: str = "GET", **headers: str) -> Answer:
        return exchange(shared_product, method, path, None, {"Authorization": f"Bearer {shared_product.key}", **headers})

    since = audit_mark(shared_product)
    assert refused(get(Authorization="")) == (401, "authentication-required")
    assert refused(get(Origin="https://evil.example")) == (403, "permission-denied")
    assert refused(get(Host="evil.example")) == (403, "permission-denied")
    assert refused(get("/sse/no-such")) == (404, "not-found")
    assert refused(get("/sse/a/b")) == (404, "not-found")
    row = recorded(shared_product, "event_type = 'access.refused' AND error_type = 'authentication-required'", since=since)
    assert row["details"]["path"] == "/sse"
    for method in ("POST", "DELETE", "PUT"):
        answer = get(method=method)
        assert (answer.status, answer.type) == (405, "method-not-allowed"), "so that a client of the newer transport tries GET"
        assert answer.headers["allow"] == "GET" or method == "PUT"
    asked = {"Origin": shared_product.base_url, "Access-Control-Request-Method": "POST"}
    assert get("/sse/messages", "OPTIONS", **asked).status == 204


def test_what_happened_is_in_the_log_under_its_own_address(shared_product, server):
    since = audit_mark(shared_product)
    path = f"/sse/{server.slug}"
    mark = unique("mark")
    with Sse(shared_product, path) as client:
        client.initialize("2024-11-05")
        client.work(mark)
        server.begun(mark)
        server.finish(mark)
        assert client.stream.message()["result"]["content"]
        client.ask("tools/call", 2, name="absent")
        client.ask("tools/list", 3)

    def told() -> list[str]:
        rows = [row["event_type"] for row in audit_rows(shared_product, since=since) if row["details"].get("path") == path]
        return rows[rows.index("session.initialized") :]  # the end of a session before may come late

    kinds = eventually(lambda: (found := told())[-1] == "session.ended" and found, within=5)
    assert {"call.intent", "call.refused", "catalogue.listed"} <= set(kinds)
    assert "call.outcome" in {row["event_type"] for row in audit_rows(shared_product, "server = ?", server.slug, since=since)}


def test_a_session_that_ends_cancels_what_runs_in_it(shared_product, server):
    since = audit_mark(shared_product)
    mark = unique("mark")
    with Sse(shared_product, f"/sse/{server.slug}") as client:
        client.initialize()
        client.work(mark)
        server.begun(mark)
        client.stream.cut()
    eventually(lambda: server.calls(mark=mark)[0].left, within=5, because="the server still works for nobody")
    row = recorded(shared_product, "event_type = 'call.outcome' AND server = ?", server.slug, since=since)
    assert row["outcome"] == "cancelled"


@pytest.mark.parametrize("how", ["revoked", "expires"])
def test_a_key_that_is_no_longer_good_ends_its_streams(shared_product, how):
    fields = {"name": unique("brief"), "inherits_owner": True}
    if how == "expires":
        fields["expires_at"] = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    key = made(rest(shared_product, "POST", "api-keys/", fields))
    with Sse(shared_product, key=key["key"]) as client:
        client.initialize()
        if how == "revoked":
            made(rest(shared_product, "POST", f"api-keys/{key['id']}/revoke/", {}))
        assert client.stream.rest(6) == []
        assert client.post({"jsonrpc": "2.0", "id": 1, "method": "ping"}).status == 401


def test_a_session_has_a_bounded_number_of_requests_at_once(shared_product, server):
    with Sse(shared_product, f"/sse/{server.slug}") as client:
        client.initialize()
        marks = [unique("many") for _ in range(64)]
        for number, mark in enumerate(marks):
            client.work(mark, number)
        server.begun(marks[15])
        answer = client.post({"jsonrpc": "2.0", "id": "more", "method": "ping"})
        assert refused(answer) == (429, "overloaded")
        assert answer.error["data"]["rule"] == "sse-requests"
        assert "retry-after" in answer.headers
        assert client.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 0}}).status == 202
        assert client.stream.message()["error"]["code"] == -32800
        with Sse(shared_product) as other:
            assert other.ask("ping")["result"] == {}


def test_a_reader_that_is_stuck_is_told_to_read_and_holds_nobody_up(shared_product, rogue):
    slug = unique("rogue")
    made(rest(shared_product, "POST", "servers/", {"slug": slug, "transport": "http", "url": rogue.url}))
    eventually(lambda: "act" in connect(shared_product, "modern", f"/mcp/{slug}").names(), within=25)
    headers = {"Authorization": f"Bearer {shared_product.key}", "Accept": "text/event-stream"}
    with EventStream(shared_product, "GET", f"/sse/{slug}", headers, receive_buffer=4096) as stream:
        address = stream.next().data
        client = Sse.__new__(Sse)
        client.product, client.headers, client.stream, client.address = shared_product, headers, stream, address
        large = {"name": "act", "arguments": {"how": "echo", "mark": "x" * 3_500_000}}

        def unread() -> Answer | None:
            answer = client.post({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": large})
            return None if answer.status == 202 else answer

        answer = eventually(unread, within=20)
        assert (refused(answer), answer.error["data"]["rule"]) == ((429, "overloaded"), "sse-unread")
        assert_serves(shared_product, "legacy")
        with Sse(shared_product) as other:
            assert other.ask("ping")["result"] == {}


def test_a_key_has_a_bounded_number_of_streams(shared_product):
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("many"), "inherits_owner": True}))["key"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        streams = list(pool.map(lambda _: Sse(shared_product, key=key), range(256)))
        try:
            with Sse(shared_product, key=key) as one_more:
                assert one_more.stream.status == 429
                assert json.loads(one_more.stream.text())["error"]["data"]["rule"] == "streams-per-key"
            with Sse(shared_product) as other:
                assert other.ask("ping")["result"] == {}
        finally:
            for stream in streams:
                stream.__exit__()


def test_a_stop_lets_what_runs_be_answered(start_product):
    product = start_product()
    with Paced() as server:
        slug = unique("paced")
        made(rest(product, "POST", "servers/", {"slug": slug, "transport": "http", "url": server.url, "review": "accept"}))
        eventually(lambda: "work" in connect(product, "modern", f"/mcp/{slug}").names(), within=25)
        mark, other = unique("mark"), unique("mark")
        with Sse(product, f"/sse/{slug}") as client:
            client.initialize()
            client.work(mark, 1)
            client.work(other, 2)
            server.begun(other)
            product.terminate()
            eventually(lambda: _refuses(client), within=5)
            server.finish(mark, "just in time")
            while (answer := client.stream.message())["id"] == 9:
                continue
            assert (answer["id"], answer["result"]["content"][0]["text"]) == (1, "just in time")
            (last,) = client.stream.rest(10)
            assert last["id"] == 2, "the other is not waited for without end"
            assert last["error"]["data"]["type"].endswith("/not-ready")
    assert product.process.wait(10) == 0


def _refuses(client: Sse) -> bool:
    try:
        return client.post({"jsonrpc": "2.0", "id": 9, "method": "ping"}).status == 503
    except OSError:
        return True
