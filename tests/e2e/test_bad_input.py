"""What no client should send, through `/mcp` in both eras: a typed error at once, a row in the log, and the next call works."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

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
    exchange,
    made,
    recorded,
    rest,
    serving_memory,
    unique,
)
from tests.support import eventually

MB = 1024 * 1024
TOOL = "system__calculate"


def call_body(client, **members):
    return client.message("tools/call", {"name": TOOL, "arguments": {"expression": "6 * 7"}}) | members


def assert_refused(product, client, answer, *, status, code, type, since, row=None):
    """Require the typed error, its row, and that the next good call works."""
    assert answer.status == status, answer.body[:500]
    assert answer.error["code"] == code, answer.error
    assert answer.type == type
    assert answer.seconds < 5
    assert answer.headers["content-type"] == "application/json"
    refused = recorded(product, "outcome = 'refused' AND error_type = ?", row or type, since=since)
    assert refused["event_type"] in ("call.refused", "access.refused", "request.refused")
    assert_serves(product, client.era)


DUPLICATE = b'{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/list","params":{}}'
NOT_JSON = {
    "cut": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":',
    "empty": b"",
    "white": b"   \n",
    "text": b"hello",
    "two values": b"{} {}",
    "not utf-8": b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}',
    "byte order mark": b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"ping"}',
    "lone surrogate": b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}',
    "single quotes": b"{'jsonrpc':'2.0'}",
    "trailing comma": b'{"jsonrpc":"2.0","id":1,"method":"ping",}',
    "comment": b'{"jsonrpc":"2.0",/**/"id":1,"method":"ping"}',
    "duplicate key": DUPLICATE,
    "duplicate key in depth": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1,"x":2}}}',
    "duplicate key, escaped": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","n\\u0061me":"b"}}',
    "duplicate key, spaced": b'{ "jsonrpc" : "2.0", "id" : 1, "method" : "ping", "method" : "tools/call" }',
    "NaN": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":NaN}}}',
    "Infinity": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":-Infinity}}}',
    "1e999": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1e999}}}',
    "200,000 nested arrays": b"[" * 200_000 + b"]" * 200_000,
    "200,000 nested objects": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "200,000 open arrays": b"[" * 200_000,
    "nested arguments": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":'
    + b"[" * 200_000 + b"]" * 200_000 + b"}}}",
    "129 levels": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * 128 + b"1" + b"}" * 129,
}  # fmt: skip


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


# Size and time


@pytest.fixture
def memory(shared_product):
    """Fail when the product keeps more than 50 MB of what a test threw at it."""
    before = serving_memory(shared_product)
    yield
    grown = serving_memory(shared_product) - before
    assert grown < 50 * MB, f"grown by {grown / MB:.0f} MB"


@pytest.mark.parametrize("era", ERAS)
def test_a_100_mb_body_is_refused_before_it_is_read(shared_product, era, memory):
    client = connect(shared_product, era)
    since = audit_mark(shared_product)
    with Wire(shared_product) as wire:
        wire.send(wire.head("POST", "/mcp", {**client.headers(call_body(client)), "Content-Length": str(100 * MB)}))
        answer = wire.answer()
    assert answer.seconds < 2
    assert_refused(shared_product, client, answer, status=413, code=-32600, type="too-large", since=since)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("form", ["declared", "chunked", "one chunk"])
def test_a_100_mb_body_that_is_sent_all_the_same(shared_product, era, form, memory):
    client = connect(shared_product, era)
    headers = client.headers(call_body(client))
    since = audit_mark(shared_product)
    with Wire(shared_product) as wire:
        if form == "declared":
            wire.send(wire.head("POST", "/mcp", {**headers, "Content-Length": str(100 * MB)}))
        else:
            wire.send(wire.head("POST", "/mcp", {**headers, "Transfer-Encoding": "chunked"}))
        if form == "one chunk":
            wire.send(b"%x\r\n" % (100 * MB))
        piece = b" " * MB
        for _ in range(100):
            if not wire.send(b"%x\r\n" % MB + piece + b"\r\n" if form == "chunked" else piece):
                break
        answer = _answer_if_any(wire)
    if answer is not None:
        assert answer.status == 413
        assert answer.type == "too-large"
    recorded(shared_product, "outcome = 'refused' AND error_type = 'too-large'", since=since)
    assert_serves(shared_product, era)


def _answer_if_any(wire):
    """Return the answer; None where the connection was reset while we still sent, which may lose it."""
    try:
        return wire.answer(5)
    except AssertionError:
        return None


@pytest.mark.parametrize("era", ERAS)
def test_a_4_mb_call_is_within_the_limit(shared_product, era, memory):
    client = connect(shared_product, era)
    answer = client.call(TOOL, {"expression": "1" * (4 * MB - 2000)})
    assert answer.seconds < 10
    assert answer.type == "arguments-invalid"
    assert len(answer.body) < 5000


@pytest.mark.parametrize("era", ERAS)
def test_many_keys_and_many_values_do_not_hold_the_gateway(shared_product, era):
    client = connect(shared_product, era)
    wide = {f"k{number}": number for number in range(150_000)}
    waits, sizes = [], []
    for _ in range(4):
        with ThreadPoolExecutor(1) as pool:
            heavy = pool.submit(client.call, TOOL, {"expression": "1", **wide})
            while not heavy.done():
                began = time.monotonic()
                assert exchange(shared_product, "GET", "/health/live").status == 200
                waits.append(time.monotonic() - began)
        assert heavy.result().status in (200, 400)
        assert heavy.result().seconds < 10
        sizes.append(serving_memory(shared_product))
    assert max(waits, default=0) < 3
    # the first one makes the heap as large as such a body needs; it does not grow from there
    assert max(sizes[1:]) - sizes[0] < 50 * MB


@pytest.mark.parametrize("era", ERAS)
def test_a_content_length_that_lies(shared_product, era):
    client = connect(shared_product, era)
    body = call_body(client)
    raw = json.dumps(body).encode()
    # too short: what is left over is read as the next request, and is none
    with Wire(shared_product) as wire:
        wire.send(wire.head("POST", "/mcp", {**client.headers(body), "Content-Length": str(len(raw) - 10)}) + raw)
        answers = [wire.answer()]
        answers += [_answer_if_any(wire)]
        assert {answer.status for answer in answers if answer is not None} == {400}
        assert wire.closed_within(5)
    for value in ("-1", "1e3", "0x10", "abc", "99999999999999999999", "+5", f"{len(raw)}, {len(raw)}"):
        with Wire(shared_product) as wire:
            wire.send(wire.head("POST", "/mcp", {**client.headers(body), "Content-Length": value}) + raw)
            answer = _answer_if_any(wire)
            assert answer is None or answer.status in (400, 413), value
    # two framings at once are a smuggler's (RFC 9112, section 6.1)
    with Wire(shared_product) as wire:
        pairs = [*client.headers(body).items(), ("Content-Length", str(len(raw))), ("Transfer-Encoding", "chunked")]
        wire.send(wire.head("POST", "/mcp", pairs) + b"0\r\n\r\n" + raw)
        answer = _answer_if_any(wire)
        assert answer is None or answer.status == 400
    assert_serves(shared_product, era)


def test_headers_without_end(shared_product, memory):
    with Wire(shared_product) as wire:
        wire.send(f"POST /mcp HTTP/1.1\r\nHost: {wire.host}\r\nX-Long: ".encode())
        sent = 0
        while sent < 100 * MB and wire.send(b"a" * MB):
            sent += MB
    assert sent < 20 * MB, "a header of 100 MB was taken"
    with Wire(shared_product) as wire:
        wire.send(f"POST /mcp HTTP/1.1\r\nHost: {wire.host}\r\n".encode())
        sent = 0
        while sent < 100 * MB and wire.send(b"X-Many: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 16384):
            sent += MB
    assert sent < 20 * MB, "100 MB of headers were taken"
    assert_serves(shared_product)


@pytest.mark.slow
def test_requests_that_drip_are_cut_and_hold_nobody_up(shared_product):
    client = connect(shared_product, "modern")
    body = call_body(client)
    raw = json.dumps(body).encode()
    wires = [Wire(shared_product) for _ in range(120)]
    heads = [wire.head("POST", "/mcp", {**client.headers(body), "Content-Length": str(len(raw))}) for wire in wires]
    rest_head = wires[0].head(
        "POST", "/api/v1/servers/", {**shared_product.headers, "Content-Type": "application/json", "Content-Length": "9000"}
    )
    refused_head = wires[0].head("POST", "/mcp", {"Content-Type": "application/json", "Content-Length": "9000"})
    starts = {
        "head": heads[0][:40], "body": heads[0] + raw[:20], "nothing": b"", "rest body": rest_head + b"{", "refused body": refused_head + b"{",
    }  # fmt: skip
    kinds = [list(starts)[number % len(starts)] for number in range(len(wires))]
    try:
        for wire, kind in zip(wires, kinds, strict=True):
            wire.send(starts[kind])
        began = time.monotonic()
        open_ = list(zip(wires, kinds, strict=True))
        slowest = 0.0
        while open_ and time.monotonic() - began < 45:
            for wire, kind in list(open_):
                alive = kind == "nothing" or wire.send(b"a" if kind == "head" else b" ")
                if not alive or wire.closed_within(0.001):
                    open_.remove((wire, kind))
            asked = time.monotonic()
            assert client.send(body).status == 200
            slowest = max(slowest, time.monotonic() - asked)
        assert not open_, f"still open after 45 s: {sorted({kind for _, kind in open_})}"
        assert slowest < 3
    finally:
        for wire in wires:
            wire.socket.close()
    assert_serves(shared_product)


# The same through REST


REST_BODIES = {name: body for name, body in NOT_JSON.items() if name not in ("empty", "white")}


@pytest.mark.parametrize("what", REST_BODIES)
def test_rest_refuses_what_is_not_strict_json(shared_product, what):
    answer = exchange(
        shared_product, "POST", "/api/v1/servers/", REST_BODIES[what],
        {**shared_product.headers, "Content-Type": "application/json"},
    )  # fmt: skip
    assert answer.status == 400, answer.body[:300]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["type"].startswith("https://switchyard.dev/problems/")
    assert answer.seconds < 5


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Authorization": "Bearer sy_00000000_" + "x" * 43}, 401),
        ({"Authorization": ""}, 401),
        ({"Host": "evil.example"}, 400),
    ],
    ids=repr,
)
def test_rest_refuses_with_problems(shared_product, headers, status):
    sent = {**shared_product.headers, "Content-Type": "application/json", **headers}
    answer = exchange(shared_product, "POST", "/api/v1/servers/", b'{"slug":"x"}', sent)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["type"].startswith("https://switchyard.dev/problems/")


def test_rest_refuses_a_key_in_the_query_and_wrong_methods(shared_product):
    assert (
        exchange(shared_product, "GET", f"/api/v1/servers/?key={shared_product.key}&access_token={shared_product.key}").status
        == 401
    )
    answer = rest(shared_product, "PUT", "servers/")
    assert answer.status == 405
    assert "POST" in answer.headers["allow"]
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("form", ["declared", "chunked"])
def test_rest_refuses_100_mb(shared_product, form, memory):
    headers = {**shared_product.headers, "Content-Type": "application/json"}
    with Wire(shared_product) as wire:
        if form == "declared":
            wire.send(wire.head("POST", "/api/v1/servers/", {**headers, "Content-Length": str(100 * MB)}))
        else:
            wire.send(wire.head("POST", "/api/v1/servers/", {**headers, "Transfer-Encoding": "chunked"}))
        for _ in range(100):
            if not wire.send(b"%x\r\n" % MB + b" " * MB + b"\r\n" if form == "chunked" else b" " * MB):
                break
        answer = _answer_if_any(wire)
    assert answer is None or answer.status == 413
    assert_serves(shared_product)
