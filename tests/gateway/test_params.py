"""Arguments that are repeated in headers (`x-mcp-header`): what a null is, and which tools may not be called."""

import pytest

from apps.common.crypto.keyring import Key, Keyring
from apps.common.errors import UpstreamProtocolError
from apps.gateway.plane.call import Call
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.mcp.bridge import Bridge
from apps.gateway.plane.mcp.params import judged
from apps.gateway.plane.views import find_target
from tests.gateway.pictures import caller, definition, grant, picture, server

MODERN, LEGACY = "2026-07-28", "2025-11-25"
MARKED = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "verbose": {"type": "boolean", "x-mcp-header": "Verbose"},
        "plain": {"type": "string"},
    },
    "required": ["region"],
}


def called(schema: dict, arguments: dict, **facts) -> Call:
    snapshot = picture(
        (server("files", **facts),),
        [definition("files", "read", inputSchema=schema)],
        grants={"api_key:key-1": [grant("server", server_id="id-files")]},
    )
    who = caller(snapshot)
    call = Call(
        snapshot, who, find_target(snapshot, who, "files"), "tools/call", {"name": "read", "arguments": arguments}, MODERN, True
    )
    call.name, call.server = "read", snapshot.servers["id-files"]
    call.item = call.server.own["tool"]["read"]
    return call


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({"region": "eu", "verbose": None}, {"region": "eu"}),
        ({"region": None, "verbose": None}, {"region": None}),
        ({"region": "eu", "plain": None}, {"region": "eu", "plain": None}),
        ({"region": "eu", "unknown": None}, {"region": "eu", "unknown": None}),
        ({"region": "eu", "verbose": False}, {"region": "eu", "verbose": False}),
        ({}, {}),
    ],
)
def test_a_marked_argument_that_is_null_counts_as_left_out(arguments, left):
    call = called(MARKED, arguments)
    assert judged(call.item, arguments) == left


@pytest.mark.parametrize(
    "schema",
    [
        {"x-mcp-header": 1, "properties": {"a": None}},
        {"x-mcp-header": 1, "properties": [], "required": 7},
        {"properties": {"a": {"x-mcp-header": "A"}}, "required": [None, {}]},
        {"properties": {"a": True, "b": {"x-mcp-header": "B"}}},
    ],
)
def test_schemas_of_any_shape_are_read(schema):
    assert isinstance(judged(called(schema, {"a": None}).item, {"a": None}), dict)


def test_the_server_gets_the_null_and_no_header_for_it():
    call = called(MARKED, {"region": "eu", "verbose": None}, revisions=(MODERN,))
    request = Bridge(PlaneConfig(), Keyring([Key("k1", b"k" * 32)])).request(call)
    assert request.params["arguments"] == {"region": "eu", "verbose": None}
    assert {name.lower(): value for name, value in request.param_headers.items()} == {"mcp-param-region": "eu"}


WRONG = [
    {"a": {"type": "string", "x-mcp-header": ""}},
    {"a": {"type": "number", "x-mcp-header": "A"}},
    {"a": {"type": "object", "x-mcp-header": "A"}},
    {"a": {"type": "string", "x-mcp-header": "A"}, "b": {"type": "string", "x-mcp-header": "a"}},
    {"a": {"type": "string", "x-mcp-header": "A B"}},
]


@pytest.mark.parametrize("properties", WRONG)
def test_a_tool_that_marks_arguments_wrongly_may_not_be_called_over_http(properties):
    bridge = Bridge(PlaneConfig(), Keyring([Key("k1", b"k" * 32)]))
    schema = {"type": "object", "properties": properties}
    with pytest.raises(UpstreamProtocolError, match="may not be called"):
        bridge.request(called(schema, {}, revisions=(MODERN, LEGACY)))
    assert bridge.request(called(schema, {}, revisions=(LEGACY,))).param_headers == {}
    assert bridge.request(called(schema, {}, revisions=(MODERN,), transport="stdio")).param_headers == {}
