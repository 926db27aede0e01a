"""Bodies that no client should send, and what must become of them."""

from tests.e2e.support import (
    assert_serves,
    recorded,
)

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


def answer_if_any(wire):
    """Return the answer; None where the connection was reset while we still sent, which may lose it."""
    try:
        return wire.answer(5)
    except AssertionError:
        return None
