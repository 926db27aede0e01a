"""What goes onto the wire, compared with the official SDK where it has the same function."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import classify_inbound_request, decode_header_value, encode_header_value

from apps.common.errors import UpstreamProtocolError
from apps.servers.transports.base import UpstreamRequest
from apps.servers.transports.era import era_of_discover
from apps.servers.transports.wire import answer_of, base_headers, header_value, legacy_params, modern_params, parse


@given(st.text())
def test_header_values_are_encoded_as_the_sdk_does(value: str) -> None:
    try:
        expected = encode_header_value(value)
    except UnicodeEncodeError:
        return
    assert header_value(value) == expected


@pytest.mark.parametrize(
    "value", ["", " ", "a ", " a", "\t", "a\tb", "é", "=?base64?YQ==?=", "a b", "~", "\x7f", "a\r\nX-Evil: 1"]
)
def test_edge_header_values_come_back_whole(value: str) -> None:
    encoded = header_value(value)
    assert decode_header_value(encoded) == value
    assert "\n" not in encoded
    assert encoded == encode_header_value(value)


def test_modern_params_pass_the_sdks_own_check() -> None:
    request = UpstreamRequest(
        "tools/call",
        {"name": "x", "_meta": {"traceparent": "00-1", "mine": 1}},
        client_info={"name": "c", "version": "1"},
        client_capabilities={"elicitation": {}},
        log_level="debug",
    )
    params = modern_params(request, 9)
    assert params["_meta"] == {
        "traceparent": "00-1",
        "mine": 1,
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
        "io.modelcontextprotocol/logLevel": "debug",
    }
    assert request.params["_meta"] == {"traceparent": "00-1", "mine": 1}, "kept for a second attempt in the other era"
    route = classify_inbound_request({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    assert route.protocol_version == "2026-07-28"


async def listener(message: dict) -> None:
    """Take a message."""


def test_progress_is_asked_for_only_when_somebody_listens() -> None:
    silent = UpstreamRequest("tools/call", {"name": "x", "_meta": {}})
    assert legacy_params(silent, 5) == {"name": "x"}
    assert "progressToken" not in modern_params(silent, 5)["_meta"]
    heard = UpstreamRequest("tools/call", {"name": "x"}, on_message=listener)
    assert legacy_params(heard, 5)["_meta"] == {"progressToken": 5}
    assert modern_params(heard, 5)["_meta"]["progressToken"] == 5


def test_credentials_cannot_replace_headers_of_the_protocol() -> None:
    mine = {
        "Authorization": "Bearer s", "X-Api-Key": "k", "host": "evil", "Content-Length": "5", "content-type": "text/plain", "Accept": "x",
        "Accept-Encoding": "gzip", "Transfer-Encoding": "chunked", "Mcp-Session-Id": "x", "MCP-METHOD": "x", "Mcp-Param-A": "x",
        "Connection": "close", "user-agent": "me",
    }  # fmt: skip
    assert dict(base_headers(mine).fields) == {
        "user-agent": "me",
        "Authorization": "Bearer s",
        "X-Api-Key": "k",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "Accept-Encoding": "identity",
    }


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[" * 200_000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b'{"a": NaN}', b'{"a": Infinity}', b'{"a": "\xff"}', b"<html>", b'{"a":1}x', b'"\\ud800"', b"\0"],
    ids=["empty", "cut", "arrays", "objects", "nan", "infinity", "utf8", "html", "trailing", "surrogate", "nul"],
)  # fmt: skip
def test_what_is_not_strict_json_is_a_protocol_error(raw: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        parse(raw)


def test_of_repeated_keys_one_counts_everywhere() -> None:
    answer = answer_of(parse(b'{"jsonrpc":"2.0","id":1,"result":{"a":1},"result":{"a":2,"a":3}}'), 1, "x", 0)
    assert answer.result == {"a": 3}
    assert orjson.dumps(answer.result) == b'{"a":3}'


@pytest.mark.parametrize(
    "message",
    [
        None, [], "x", 1, {}, {"id": 1}, {"id": 1, "result": None}, {"id": 1, "result": []}, {"id": 2, "result": {}}, {"id": "1", "result": {}},
        {"id": None, "result": {}}, {"id": 1, "error": "no"}, {"id": 1, "error": {"code": "1", "message": "m"}}, {"id": 1, "error": {"code": 1}},
        {"id": 2, "error": {"code": 1, "message": "m"}}, {"id": 1, "result": {}, "error": {"code": 1, "message": "m"}}, {"id": True, "method": "x"},
    ],
)  # fmt: skip
def test_what_is_no_answer_is_a_protocol_error(message) -> None:
    with pytest.raises(UpstreamProtocolError):
        answer_of(message, 1, "x", 0)


@pytest.mark.parametrize(
    ("message", "era"),
    [
        ({"result": {"supportedVersions": ["2026-07-28"]}}, "modern"),
        ({"result": {"supportedVersions": ["2027-01-01", "2026-07-28", "2025-06-18"]}}, "dual"),
        ({"result": {"supportedVersions": ["2025-11-25"]}}, "legacy"),
        ({"result": {"supportedVersions": "2026-07-28"}}, "legacy"),
        ({"result": {}}, "legacy"),
        ({"error": {"code": -32601, "message": ""}}, "legacy"),
        ({"error": {"code": -32600, "message": ""}}, "legacy"),
        ({"error": {"code": -32000, "message": ""}}, "legacy"),
        ({"error": {"code": -32022, "message": ""}}, "legacy"),
        ({"error": {"code": -32022, "message": "", "data": {"supported": ["2025-11-25"]}}}, "legacy"),
        ({"error": {"code": -32022, "message": "", "data": {"supported": ["2026-07-28"]}}}, "modern"),
        ({"error": {"code": -32021, "message": ""}}, "modern"),
        ({"error": "not found"}, "legacy"),
        (None, "legacy"),
        ("Not Found", "legacy"),
    ],
)
def test_the_era_that_an_answer_to_discover_shows(message, era: str) -> None:
    assert era_of_discover(message) == era


def test_a_server_of_the_future_alone_is_an_error_not_a_legacy_server() -> None:
    with pytest.raises(UpstreamProtocolError, match="2099-01-01"):
        era_of_discover({"error": {"code": -32022, "message": "", "data": {"supported": ["2099-01-01"]}}})
