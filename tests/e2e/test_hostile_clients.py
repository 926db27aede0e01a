"""Clients that hold back, never read, outstay their welcome or ask for what is not theirs."""

import contextlib
import json
import socket
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e.raw import Wire
from tests.e2e.rogue import TOOL, Rogue
from tests.e2e.support import (
    ERAS,
    Client,
    assert_serves,
    audit_mark,
    connect,
    made,
    recorded,
    rest,
    serving_memory,
    unique,
)
from tests.support import eventually

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def slug(shared_product, rogue):
    """A server whose tool may be called."""
    slug = unique("host")
    made(rest(shared_product, "POST", "servers/", {"slug": slug, "transport": "http", "url": rogue.url}))
    eventually(lambda: "act" in connect(shared_product, "modern", f"/mcp/{slug}").names(), within=25)
    return slug


@pytest.fixture
def key(shared_product, slug):
    """A key that may use the server."""
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("held")}))
    made(rest(shared_product, "POST", "grants/", {"kind": "server", "api_key": key["id"], "server": slug}))
    client = Client(shared_product, "modern", f"/mcp/{slug}", key["key"])
    eventually(lambda: "act" in client.names(), within=5)
    return key


@pytest.mark.parametrize("taken", ["key", "grant"])
def test_what_was_taken_away_while_a_body_was_held_back_is_gone(shared_product, rogue, slug, key, taken):
    client, mark = Client(shared_product, "modern", f"/mcp/{slug}", key["key"]), unique("mark")
    body = client.message("tools/call", {"name": "act", "arguments": {"how": "ok", "mark": mark}})
    raw = json.dumps(body).encode()
    with Wire(shared_product) as wire:
        wire.send(wire.head("POST", f"/mcp/{slug}", {**client.headers(body), "Content-Length": str(len(raw))}) + raw[:20])
        assert client.call("act", {"how": "ok"}).result  # meanwhile the head has been read
        if taken == "key":
            made(rest(shared_product, "POST", f"api-keys/{key['id']}/revoke/", {}))
        else:
            made(
                rest(
                    shared_product,
                    "POST",
                    "grants/",
                    {"kind": "server", "effect": "deny", "api_key": key["id"], "server": slug},
                )
            )
        eventually(lambda: "error" in (client.call("act", {"how": "ok"}).json or {}), within=2)
        wire.send(raw[20:])
        answer = wire.answer()
    assert answer.type == ("authentication-required" if taken == "key" else "permission-denied")
    assert not rogue.calls(mark=mark)


def listen(product, path, key, era, id=7, size=None):
    """Open a long stream; returns its socket after the first event."""
    client = Client(product, era, path, key)
    wire = Wire(product)
    if size:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    if era == "legacy":
        client.initialize()
        headers = {**client.headers(), "Accept": "text/event-stream"}
        wire.send(wire.head("GET", path, {name: value for name, value in headers.items() if name != "Content-Type"}))
    else:
        body = client.message("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        body["id"] = id
        raw = json.dumps(body).encode()
        wire.send(wire.head("POST", path, {**client.headers(body), "Content-Length": str(len(raw))}) + raw)
    wire.socket.settimeout(10)
    assert b"200" in wire.socket.recv(65536)
    return wire


def heard(wire, within):
    """Return what a stream says until it is silent for `within` seconds, and whether it has ended."""
    wire.socket.settimeout(within)
    said = b""
    try:
        while not said.endswith(b"0\r\n\r\n") and (piece := wire.socket.recv(65536)):
            said += piece
    except TimeoutError:
        return said, False
    except ConnectionError:
        pass
    return said, True


@pytest.mark.parametrize("era", ERAS)
def test_a_key_that_expires_ends_its_streams(shared_product, slug, era):
    until = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    body = {"name": unique("brief"), "inherits_owner": True, "expires_at": until}
    key = made(rest(shared_product, "POST", "api-keys/", body))["key"]
    eventually(lambda: "act" in Client(shared_product, "modern", f"/mcp/{slug}", key).names(), within=2)
    with listen(shared_product, f"/mcp/{slug}", key, era) as wire:
        assert heard(wire, 6)[1], "the stream outlives its key"


def test_a_client_that_reads_nothing_keeps_no_other_from_being_told(shared_product, key):
    with Rogue() as server:
        slug = unique("told")
        made(rest(shared_product, "POST", "servers/", {"slug": slug, "transport": "http", "url": server.url}))
        path = f"/mcp/{slug}"
        eventually(lambda: "act" in connect(shared_product, "modern", path).names(), within=25)
        made(rest(shared_product, "POST", "grants/", {"kind": "server", "api_key": key["id"], "server": slug}))
        honest = listen(shared_product, path, shared_product.key, "modern")
        stuck = [listen(shared_product, path, key["key"], "modern", id="i" * 1024, size=2048) for _ in range(3)]
        with honest:
            for number in range(12):
                server.tools = [{**TOOL, "description": f"version {number}"}]
                made(rest(shared_product, "POST", f"servers/{slug}/discover/", {}))
            said = b""
            deadline = time.monotonic() + 15
            while b"list_changed" not in said and time.monotonic() < deadline:
                said += heard(honest, 0.5)[0]
            assert b"list_changed" in said
            made(rest(shared_product, "POST", f"api-keys/{key['id']}/revoke/", {}))
            for wire in stuck:
                with wire:
                    assert heard(wire, 6)[1], "the stream outlives its key"


def test_an_id_longer_than_anybody_needs_is_refused(shared_product):
    for era in ERAS:
        client = connect(shared_product, era)
        message = {**client.message("ping" if era == "legacy" else "tools/list", {}), "id": "i" * 4097}
        answer = client.send(message)
        assert answer.type == "invalid-request"
        assert "4096" in answer.error["message"]


@pytest.mark.parametrize("id", [[], {}, [1], None, True, 1.5, "x" * 5000])
def test_a_cancellation_of_something_that_is_no_id(shared_product, id):
    client = connect(shared_product, "legacy")
    message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}
    assert client.send(message).status == 202
    assert_serves(shared_product, "legacy")


@pytest.mark.parametrize("era", ERAS)
def test_what_a_client_calls_itself_does_not_stay_in_memory(shared_product, era):
    client = connect(shared_product, era)
    before = serving_memory(shared_product)
    for number in range(25):
        name = f"{number}" + "n" * 3_500_000
        if era == "legacy":
            params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": name, "version": name[:10]}}
            client.send(client.message("initialize", params), {"MCP-Protocol-Version": None})
        else:
            message = client.message("tools/list", {})
            message["params"]["_meta"]["io.modelcontextprotocol/clientInfo"] = {"name": name, "version": "1"}
            assert client.send(message).status == 200
    assert serving_memory(shared_product) - before < 60 * 1024 * 1024


def test_a_refusal_is_recorded_under_the_tools_own_name(shared_product, slug):
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("none")}))["key"]
    since = audit_mark(shared_product)
    answer = Client(shared_product, "modern", "/mcp", key).call(f"{slug}__act", {"how": "ok"})
    assert answer.type == "permission-denied"
    row = recorded(shared_product, "event_type = 'call.refused' AND server = ?", slug, since=since)
    assert (row["tool"], row["object"]) == ("act", f"{slug}__act")


def test_one_key_cannot_take_every_stream(shared_product, slug, key):
    path = f"/mcp/{slug}"
    with contextlib.ExitStack() as stack:
        for number in range(256):
            stack.enter_context(listen(shared_product, path, key["key"], "modern", id=number))
        client = Client(shared_product, "modern", path, key["key"])
        refused = client.ask("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        assert (refused.type, refused.error["data"]["rule"]) == ("overloaded", "streams-per-key")
        stack.enter_context(listen(shared_product, path, shared_product.key, "modern"))
        stack.enter_context(listen(shared_product, path, shared_product.key, "legacy"))
        assert client.call("act", {"how": "ok"}).result
