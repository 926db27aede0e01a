"""What a call becomes on its way up, and an answer on its way down."""

import pytest

from apps.common.crypto.keyring import Keyring, new_key_text
from apps.common.errors import UpstreamProtocolError, ValidationFailed
from apps.gateway.plane.call import Call
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.mcp.bridge import Bridge
from apps.gateway.plane.recorder import Recorder
from apps.gateway.plane.views import find_named, find_target
from apps.servers.transports.base import UpstreamAnswer
from tests.gateway.pictures import caller, definition, grant, picture, server

MODERN = "2026-07-28"


@pytest.fixture
def bridge():
    return Bridge(PlaneConfig(), Keyring.parse(new_key_text("k1")))


def call(arguments, method="tools/call", **params):
    snapshot = picture(
        (server("files"),), [definition("files", "read")], grants={"api_key:key-1": [grant("server", server_id="id-files")]}
    )
    who = caller(snapshot)
    target = find_target(snapshot, who, "files")
    made = Call(snapshot, who, target, method, {"name": "read", "arguments": arguments, **params}, MODERN, True)
    made.name, made.server = "read", snapshot.servers["id-files"]
    made.item, _ = find_named(snapshot, who, target, "tool", "read")
    return made


def asked(bridge, arguments, state="theirs"):
    """Return the state as the client gets it, from a server that asks for more."""
    result = {"resultType": "input_required", "requestState": state, "inputRequests": {}}
    answered, *_ = bridge.answer(call(arguments), UpstreamAnswer(result, None, MODERN, 10))
    assert answered["requestState"] != state
    return answered["requestState"]


def test_a_servers_state_comes_back_to_it_with_the_same_request(bridge):
    sealed = asked(bridge, {"a": 1, "b": [2]})
    request = bridge.request(call({"a": 1, "b": [2]}, requestState=sealed, inputResponses={}))
    assert request.params["requestState"] == "theirs"


@pytest.mark.parametrize("arguments", [{"a": 2}, {}, {"a": 1, "b": 1}])
def test_a_servers_state_is_of_no_use_with_other_arguments(bridge, arguments):
    sealed = asked(bridge, {"a": 1})
    with pytest.raises(ValidationFailed, match="requestState"):
        bridge.request(call(arguments, requestState=sealed))


@pytest.mark.parametrize("state", ["", "theirs", "AAAA", 7, None, "x" * 2_000_000])
def test_a_state_that_is_not_ours_is_refused(bridge, state):
    with pytest.raises(ValidationFailed, match="requestState"):
        bridge.request(call({}, requestState=state))


def needs(bridge, requests, capabilities):
    made = call({})
    made.capabilities = capabilities
    return bridge.answer(made, UpstreamAnswer({"resultType": "input_required", "inputRequests": requests}, None, MODERN, 10))


ASKS = {"a": {"method": "elicitation/create", "params": {"message": "Name?"}}}


def test_what_a_client_has_not_declared_is_not_asked_of_it(bridge):
    result, code, message, data = needs(bridge, ASKS, {"sampling": {}})
    assert (result, code) == (None, -32021)
    assert "elicitation" in message
    assert data == {"requiredCapabilities": {"elicitation": {}}}
    assert needs(bridge, ASKS, {"elicitation": {}})[0]["inputRequests"] == ASKS


@pytest.mark.parametrize(
    "requests", [{"a": {"method": "evil/x"}}, {"a": "x"}, [], {"a": {}}, {str(n): ASKS["a"] for n in range(33)}]
)
def test_requests_that_mcp_has_not_go_to_no_client(bridge, requests):
    with pytest.raises(UpstreamProtocolError):
        needs(bridge, requests, {"elicitation": {}, "sampling": {}, "roots": {}})


@pytest.mark.parametrize("params", [[1], "x", None, 7])
async def test_progress_that_is_none_is_dropped(bridge, params):
    told = []

    async def forward(message):
        told.append(message)

    made = call({}, _meta={"progressToken": 1})
    made.on_message = forward
    request = bridge.request(made)
    await request.on_message({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
    assert told == []
    await request.on_message({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}})
    assert told[0]["params"] == {"progress": 1, "progressToken": 1}


async def test_a_secret_in_a_uri_is_not_recorded():
    class Kept:
        rows: list = []

        async def append(self, record):
            self.rows.append(record)
            return 1

    sink = Kept()
    made = call({}, "resources/read", uri="https://joe:hunter22@host/x?token=abcdef123456")
    made.name = made.params["uri"]
    await Recorder(sink).refused(made, "permission-denied", "default-deny", "You may not.")
    assert "hunter22" not in str(sink.rows[0])
    assert "abcdef123456" not in str(sink.rows[0])
    assert "host/x" in sink.rows[0].object
