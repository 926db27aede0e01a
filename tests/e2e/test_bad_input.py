"""What no client should send, through `/mcp` in both eras: a typed error at once, a row in the log, and the next call works."""

import json
import time

import pytest

from tests.e2e.bodies import NOT_JSON, TOOL, assert_refused, call_body
from tests.e2e.raw import Wire
from tests.e2e.support import (
    ERAS,
    LEGACY,
    META,
    MODERN,
    Client,
    assert_serves,
    audit_mark,
    audit_rows,
    connect,
    made,
    recorded,
    rest,
    unique,
)
from tests.support import eventually

pytestmark = pytest.mark.once


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("what", NOT_JSON)
def test_a_body_that_is_not_strict_json(shared_product, era, what):
    client = connect(shared_product, era)
    since = audit_mark(shared_product)
    answer = client.send(NOT_JSON[what], {"Mcp-Method": "tools/call"} if era == "modern" else {})
    assert_refused(
        shared_product, client, answer, status=400, code=-32700, type="malformed-request", since=since
    )  # fmt: skip


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("id", [None, 1.5, 1.0, True, False, {}, {"a": 1}, [], [1]], ids=repr)
def test_an_id_that_is_none(shared_product, era, id):
    client = connect(shared_product, era)
    since = audit_mark(shared_product)
    answer = client.send(call_body(client, id=id))
    assert answer.json["id"] is None
    assert_refused(shared_product, client, answer, status=400, code=-32600, type="invalid-request", since=since)


@pytest.mark.parametrize("era", ERAS)
def test_ids_come_back_as_they_were(shared_product, era):
    client = connect(shared_product, era)
    for id in (0, -1, 2**53 + 1, 2**63, 10**30, "", "1", "ä\u0000\n", "x" * 4000):
        answer = client.send(call_body(client, id=id))
        assert json.loads(answer.body)["id"] == id
        assert "42" in answer.result["content"][0]["text"]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("what", ["empty batch", "batch", "batch of 1000", "text", "number", "null", "true"])
def test_a_body_that_is_no_message(shared_product, era, what):
    client = connect(shared_product, era)
    message = call_body(client)
    bodies = {"empty batch": [], "batch": [message], "batch of 1000": [message] * 1000, "text": "tools/call", "number": 1}
    body = bodies.get(what, {"null": None, "true": True}.get(what))
    since = audit_mark(shared_product)
    answer = client.send(json.dumps(body).encode(), client.headers(message))
    assert_refused(shared_product, client, answer, status=400, code=-32600, type="invalid-request", since=since)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    "members",
    [{"jsonrpc": "1.0"}, {"jsonrpc": 2.0}, {"jsonrpc": None}, {"method": 7}, {"method": None}, {"method": ["tools/call"]}],
    ids=repr,
)
def test_a_message_of_another_form(shared_product, era, members):
    client = connect(shared_product, era)
    since = audit_mark(shared_product)
    answer = client.send(call_body(client, **members))
    assert_refused(shared_product, client, answer, status=400, code=-32600, type="invalid-request", since=since)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("params", [[], "text", 7, True, [{"name": TOOL}]], ids=repr)
def test_params_that_are_no_object(shared_product, era, params):
    client = connect(shared_product, era)
    since = audit_mark(shared_product)
    answer = client.send(call_body(client, params=params))
    assert_refused(shared_product, client, answer, status=400, code=-32602, type="validation-failed", since=since)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("method", ["tools/run", "", "initialise", "x" * 100_000, "tools/call\x00", "rpc.discover"], ids=len)
def test_a_method_that_there_is_not(shared_product, era, method):
    client = connect(shared_product, era)
    since = audit_mark(shared_product)
    message = client.message(method)
    headers = {"Mcp-Method": method} if era == "modern" and len(method) < 100 and method.isprintable() else {}
    if era == "modern" and not headers:
        pytest.skip("no header can carry it")
    answer = client.send(message, headers)
    assert len(answer.body) < 1000
    status = 404 if era == "modern" else 200
    assert_refused(shared_product, client, answer, status=status, code=-32601, type="method-not-found", since=since)


@pytest.mark.parametrize(
    "headers",
    [
        {"Mcp-Method": "tools/list"},
        {"Mcp-Method": None},
        {"Mcp-Method": "TOOLS/CALL"},
        {"Mcp-Name": "system__system_info"},
        {"Mcp-Name": None},
        {"Mcp-Name": "=?base64?c3lzdGVt?="},
        {"Mcp-Name": "=?base64?!!!?="},
        {"MCP-Protocol-Version": None},
        {"MCP-Protocol-Version": LEGACY},
        {"MCP-Protocol-Version": "2031-01-01"},
    ],
    ids=repr,
)
def test_headers_that_say_something_else_than_the_body(shared_product, headers):
    client = connect(shared_product, "modern")
    since = audit_mark(shared_product)
    answer = client.send(call_body(client), headers)
    assert_refused(shared_product, client, answer, status=400, code=-32020, type="header-mismatch", since=since)


def test_a_routing_header_given_twice(shared_product):
    client = connect(shared_product, "modern")
    body = call_body(client)
    raw = json.dumps(body).encode()
    since = audit_mark(shared_product)
    with Wire(shared_product) as wire:
        pairs = [*client.headers(body).items(), ("mcp-name", TOOL), ("Content-Length", str(len(raw)))]
        wire.send(wire.head("POST", "/mcp", pairs) + raw)
        answer = wire.answer()
    assert_refused(shared_product, client, answer, status=400, code=-32020, type="header-mismatch", since=since)


@pytest.mark.parametrize(
    "drop", ["io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/clientCapabilities", "_meta"]
)
def test_a_modern_request_without_what_it_must_carry(shared_product, drop):
    client = connect(shared_product, "modern")
    body = call_body(client)
    if drop == "_meta":
        del body["params"]["_meta"]
    else:
        body["params"]["_meta"] = {name: value for name, value in META.items() if name != drop}
    since = audit_mark(shared_product)
    answer = client.send(body)
    assert_refused(shared_product, client, answer, status=400, code=-32602, type="validation-failed", since=since)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("revision", ["2031-01-01", "1999-01-01", "latest", "2025-11-2", ""])
def test_a_revision_that_is_not_known(shared_product, era, revision):
    client = connect(shared_product, era)
    body = call_body(client)
    if era == "modern":
        body["params"]["_meta"] = {**META, "io.modelcontextprotocol/protocolVersion": revision}
    since = audit_mark(shared_product)
    answer = client.send(body, {"MCP-Protocol-Version": revision})
    assert MODERN in answer.error["data"]["supported"]
    assert answer.error["data"]["requested"] == revision
    assert_refused(shared_product, client, answer, status=400, code=-32022, type="unsupported-protocol-version", since=since)


def test_initialize_offers_a_revision_instead_of_an_unknown_one(shared_product):
    client = Client(shared_product, "legacy")
    body = client.message("initialize", {"protocolVersion": "2031-01-01", "capabilities": {}, "clientInfo": {}})
    assert client.send(body, {"MCP-Protocol-Version": None}).result["protocolVersion"] == LEGACY


def test_sessions_that_are_not_the_callers_are_all_the_same(shared_product):
    other = made(rest(shared_product, "POST", "api-keys/", {"name": unique("other"), "inherits_owner": True}))
    foreign = connect(shared_product, "legacy", key=other["key"]).session
    elsewhere = connect(shared_product, "legacy", "/mcp/system").session
    client = connect(shared_product, "legacy")
    ended = connect(shared_product, "legacy")
    assert ended.send(None, method="DELETE").status == 204
    forged = {
        "unknown": "c" * 300, "foreign": foreign, "of another toolset": elsewhere, "ended": ended.session, "empty": "",
        "cut": client.session[:-8], "turned": client.session[:-4] + "AAAA", "long": "A" * 30_000, "not base64": "§§§",
        "uuid": "0b7c9c5e-6a2f-4d36-9d2b-2f5d0c1f4a55",
    }  # fmt: skip
    answers = {}
    for what, token in forged.items():
        since = audit_mark(shared_product)
        sent = token.encode("utf-8").decode("latin-1")
        answer = client.send(call_body(client, id=77), {"Mcp-Session-Id": sent})
        assert_refused(shared_product, client, answer, status=404, code=-32600, type="session-gone", since=since)
        answers[what] = answer.body
        assert client.send(None, {"Mcp-Session-Id": sent}, method="GET").status == 404
        assert client.send(None, {"Mcp-Session-Id": sent}, method="DELETE").status == 404
    assert len(set(answers.values())) == 1, answers


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("name", ["system__no_such", "nobody__calculate", "calculate", "system__", "__", "x" * 5000])
def test_a_tool_that_there_is_not(shared_product, era, name):
    client = connect(shared_product, era)
    since = audit_mark(shared_product)
    answer = client.call(name)
    status = 400 if era == "modern" else 200
    assert_refused(shared_product, client, answer, status=status, code=-32602, type="not-found", since=since)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("arguments", "type"),
    [
        ({}, "arguments-invalid"),
        ({"expression": 7}, "arguments-invalid"),
        ({"expression": None}, "arguments-invalid"),
        ({"expression": ["1"]}, "arguments-invalid"),
        ([], "validation-failed"),
        ("6 * 7", "validation-failed"),
        (7, "validation-failed"),
    ],
    ids=repr,
)
def test_arguments_that_break_the_schema(shared_product, era, arguments, type):
    client = connect(shared_product, era)
    since = audit_mark(shared_product)
    answer = client.ask("tools/call", {"name": TOOL, "arguments": arguments})
    status = 400 if era == "modern" else 200
    assert_refused(shared_product, client, answer, status=status, code=-32602, type=type, since=since)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json", None]
)
def test_a_content_type_that_is_not_json(shared_product, era, kind):
    client = connect(shared_product, era)
    since = audit_mark(shared_product)
    answer = client.send(call_body(client), {"Content-Type": kind})
    assert_refused(shared_product, client, answer, status=415, code=-32600, type="unsupported-media-type", since=since)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "FROB"])
def test_an_http_method_that_is_not_served(shared_product, era, method):
    answer = connect(shared_product, era).send(b"{}", method=method)
    assert answer.status in (400, 405)
    if answer.status == 405:
        assert "POST" in answer.headers["allow"]
    assert_serves(shared_product, era)


def test_get_and_delete_are_not_for_the_modern_era(shared_product):
    client = connect(shared_product, "modern")
    for method in ("GET", "DELETE"):
        assert client.send(None, method=method).status == 405
    # and without a session there is nothing to stream: not a 404, which clients read as an expired session
    assert connect(shared_product, "legacy").send(None, {"Mcp-Session-Id": None}, method="GET").status == 405


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://localhost.evil.example"),
        ("Origin", "http://127.0.0.1:1"),
        ("Host", "evil.example"),
        ("Host", "localhost.evil.example"),
        ("Host", "127.0.0.1.evil.example:8000"),
        ("Host", ""),
    ],
)
def test_a_foreign_origin_or_host(shared_product, era, name, value):
    client = connect(shared_product, era)
    since = audit_mark(shared_product)
    body = call_body(client)
    raw = json.dumps(body).encode()

    def knock():
        with Wire(shared_product) as wire:
            wire.send(wire.head("POST", "/mcp", {**client.headers(body), name: value, "Content-Length": str(len(raw))}) + raw)
            return wire.answer()

    answer = knock()
    assert answer.headers.get("access-control-allow-origin") is None
    # a flood from one address is summed up for some seconds: knock until the log takes single rows again
    where = "event_type = 'access.refused' AND error_type = 'permission-denied'"
    eventually(lambda: audit_rows(shared_product, where, since=since) or not knock(), within=15, every=0.3)
    assert_refused(shared_product, client, answer, status=403, code=-32003, type="permission-denied", since=since)


def _spent_keys(product):
    revoked = made(rest(product, "POST", "api-keys/", {"name": unique("revoked"), "inherits_owner": True}))
    assert_serves_key(product, revoked["key"])
    rest(product, "POST", f"api-keys/{revoked['id']}/revoke/")
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    expired = made(
        rest(product, "POST", "api-keys/", {"name": unique("expired"), "inherits_owner": True, "expires_at": moment})
    )
    return {"revoked": revoked["key"], "expired": expired["key"]}


def assert_serves_key(product, key):
    assert connect(product, "modern", key=key).ask("tools/list").status == 200


@pytest.fixture(scope="module")
def spent_keys(shared_product):
    """Keys that were good once."""
    keys = _spent_keys(shared_product)
    time.sleep(2.1)  # the clock has to pass the expiry
    return keys


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    "what", ["none", "unknown", "revoked", "expired", "basic", "empty", "no scheme", "in the query", "cut", "long"]
)
def test_a_credential_that_is_not_good(shared_product, spent_keys, era, what):
    key = shared_product.key
    values = {
        "none": None, "unknown": f"Bearer sy_{'0' * 8}_{'x' * 43}", "basic": f"Basic {key}", "empty": "Bearer ", "no scheme": key,
        "in the query": None, "cut": f"Bearer {key[:-1]}", "long": f"Bearer {key}{'x' * 20_000}",
        "revoked": f"Bearer {spent_keys['revoked']}", "expired": f"Bearer {spent_keys['expired']}",
    }  # fmt: skip
    client = Client(shared_product, era)
    since = audit_mark(shared_product)
    path = f"/mcp?key={key}&api_key={key}&access_token={key}" if what == "in the query" else ""
    answer = client.send(call_body(client), {"Authorization": values[what]}, path=path)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.status == 401
    assert answer.type == "authentication-required"
    assert answer.error["code"] == -32001
    assert key not in answer.body.decode()
    # a flood from one address is summed up, so that the row may be of another refusal within these seconds
    recorded(shared_product, "event_type = 'access.refused' AND error_type = 'authentication-required'", since=0)
    assert since >= 0
    assert_serves(shared_product, era)
