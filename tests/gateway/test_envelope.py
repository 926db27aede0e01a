"""A modern request's envelope: the order of the checks and what each refuses."""

import base64

import pytest

from apps.gateway.plane.http import Headers
from apps.gateway.plane.mcp.envelope import EnvelopeError, client_label, decode_value, read_envelope
from apps.gateway.plane.mcp.revisions import META_CAPABILITIES, META_CLIENT, META_LOG_LEVEL, META_VERSION, MODERN

META = {META_VERSION: MODERN, META_CAPABILITIES: {"elicitation": {}}, META_CLIENT: {"name": "c", "version": "1"}}


def scope(version=MODERN, method="tools/call", name="echo", extra=()):
    headers = [(b"mcp-protocol-version", version), (b"mcp-method", method), (b"mcp-name", name)]
    return Headers([(key, value.encode()) for key, value in headers if value is not None] + list(extra))


def test_a_good_request_is_read():
    meta = META | {META_LOG_LEVEL: "debug"}
    envelope = read_envelope(scope(extra=[(b"mcp-param-region", b" eu ")]), "tools/call", {"name": "echo", "_meta": meta})
    assert envelope.capabilities == {"elicitation": {}}
    assert envelope.client_info == {"name": "c", "version": "1"}
    assert envelope.log_level == "debug"
    assert envelope.param_headers == {"mcp-param-region": "eu"}


@pytest.mark.parametrize(
    ("params", "headers", "code"),
    [
        (None, {}, -32602),
        ({}, {}, -32602),
        ({"_meta": []}, {}, -32602),
        ({"_meta": {META_VERSION: MODERN}}, {}, -32602),
        ({"_meta": {META_CAPABILITIES: {}}}, {}, -32602),
        ({"name": "echo", "_meta": META}, {"version": None}, -32020),
        ({"name": "echo", "_meta": META}, {"version": "2025-11-25"}, -32020),
        ({"name": "echo", "_meta": META}, {"method": "tools/list"}, -32020),
        ({"name": "echo", "_meta": META}, {"method": None}, -32020),
        ({"name": "echo", "_meta": META}, {"name": "other"}, -32020),
        ({"name": "echo", "_meta": META}, {"name": None}, -32020),
        ({"name": "echo", "_meta": META}, {"name": "=?base64?!!?="}, -32020),
        ({"name": "echo", "_meta": META}, {"extra": [(b"mcp-name", b"echo")]}, -32020),
        ({"name": "echo", "_meta": META}, {"extra": [(b"mcp-param-x", b"1"), (b"mcp-param-x", b"1")]}, -32020),
        ({"name": "echo", "_meta": META | {META_VERSION: "2099-01-01"}}, {"version": "2099-01-01"}, -32022),
        ({"name": "echo", "_meta": META | {META_VERSION: None}}, {"version": None}, -32020),
        ({"name": "echo", "_meta": META | {META_CAPABILITIES: 1}}, {}, -32602),
        ({"name": "echo", "_meta": META | {META_CLIENT: "x"}}, {}, -32602),
    ],
)
def test_each_rule_refuses_with_its_code(params, headers, code):
    with pytest.raises(EnvelopeError) as refused:
        read_envelope(scope(**headers), "tools/call", params)
    assert refused.value.code == code


def test_an_unknown_version_is_told_what_is_supported():
    with pytest.raises(EnvelopeError) as refused:
        read_envelope(scope(version="2027-01-01"), "tools/call", {"name": "echo", "_meta": META | {META_VERSION: "2027-01-01"}})
    assert refused.value.data == {"supported": [MODERN], "requested": "2027-01-01"}


def test_names_outside_ascii_travel_as_base64():
    encoded = f"=?base64?{base64.b64encode('écho'.encode()).decode()}?="
    assert decode_value(encoded) == "écho"
    assert read_envelope(scope(name=encoded), "tools/call", {"name": "écho", "_meta": META}).revision == MODERN
    assert decode_value("=?base64?w6lj?=") == "éc"
    assert decode_value("=?base64?w6k?=") is None  # not canonical: padding is missing
    assert decode_value("plain") == "plain"


def test_client_labels_are_short_and_printable():
    assert client_label({"name": "Claude", "version": "1.2"}) == "Claude 1.2"
    assert client_label({"name": "a\x1b[31mb\n", "version": 3}) == "a [31mb"
    assert len(client_label({"name": "x" * 1000})) <= 120
    assert client_label(None) == client_label([]) == client_label({}) == ""
