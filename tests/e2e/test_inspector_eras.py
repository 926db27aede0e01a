"""What the inspector shows where a server asks in the middle of a call and the eras differ: the whole story under one call, in order."""

import json

import pytest

from tests.e2e.raw import Wire
from tests.e2e.support import LEGACY, Client, made, rest
from tests.e2e.test_asked_clients import ASKED, NAME, Asked, parked, servers  # noqa: F401 - a fixture
from tests.support import eventually

pytestmark = pytest.mark.once  # what it is about does not know the database


@pytest.fixture
def record(shared_product):
    """A function that records a server, and one that gives the story of the only call since."""
    made_here = []

    def begin(slug: str) -> str:
        row = made(rest(shared_product, "POST", "recordings/", {"kind": "server", "object": slug, "minutes": 5}))
        made_here.append(row["id"])
        probe = Asked(shared_product, "modern", f"/mcp/{slug}")
        eventually(lambda: probe.names() and read(shared_product, row["id"]), within=10)
        return row["id"]

    yield begin
    for id in made_here:
        rest(shared_product, "DELETE", f"recordings/{id}/")


def read(product, recording: str, **filters: str) -> list[dict]:
    query = "&".join(f"{name}={value}" for name, value in {"limit": "200", **filters}.items())
    return made(rest(product, "GET", f"recordings/{recording}/messages/?{query}"))["results"]


def story(product, recording: str, length: int) -> list[tuple[str, str, str, str]]:
    def whole() -> list[dict]:
        found = [one for one in read(product, recording) if one["call_id"]]
        assert len({one["call_id"] for one in found}) == 1, found
        assert len(found) == length, [(one["side"], one["direction"], one["kind"], one["method"]) for one in found]
        return found

    return [(one["side"], one["direction"], one["kind"], one["method"]) for one in eventually(whole, within=10)]


def test_a_parked_call(shared_product, servers, record):
    recording = record(servers["legacy"])
    client = Asked(shared_product, "modern", f"/mcp/{servers['legacy']}")
    state, requests = parked(client)
    (key,) = requests
    assert "Ada" in client.again("test_elicitation", {"message": "Name?"}, state, {key: NAME}).result["content"][0]["text"]
    assert story(shared_product, recording, 8) == [
        ("client", "in", "request", "tools/call"),
        ("server", "out", "request", "tools/call"),
        ("server", "in", "request", "elicitation/create"),
        ("client", "out", "result", "tools/call"),
        ("client", "in", "request", "tools/call"),
        ("server", "out", "result", "elicitation/create"),
        ("server", "in", "result", "tools/call"),
        ("client", "out", "result", "tools/call"),
    ]
    assert state[:40] not in json.dumps(read(shared_product, recording)), "what carries the call is not kept"


def test_a_call_in_rounds(shared_product, servers, record):
    recording = record(servers["modern"])
    path = f"/mcp/{servers['modern']}"
    client = Client(shared_product, "legacy", path)
    params = {"protocolVersion": LEGACY, "capabilities": ASKED, "clientInfo": {"name": "asked", "version": "1"}}
    client.session = client.send(client.message("initialize", params), {"MCP-Protocol-Version": None}).headers["mcp-session-id"]
    body = client.message("tools/call", {"name": "test_input_required_result_elicitation", "arguments": {}})
    raw = json.dumps(body).encode()
    with Wire(shared_product) as wire:
        wire.send(wire.head("POST", path, {**client.headers(body), "Content-Length": str(len(raw))}) + raw)
        wire.socket.settimeout(10)
        text = b""
        while b"elicitation/create" not in text:
            text += wire.socket.recv(65536)
        message = next(json.loads(line[6:]) for line in text.splitlines() if b"elicitation/create" in line)
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": {"action": "accept", "content": {"name": "Ada"}}}
        assert client.send(answer).status == 202
        while b"Hello, Ada!" not in text:
            text += wire.socket.recv(65536)
    assert story(shared_product, recording, 8) == [
        ("client", "in", "request", "tools/call"),
        ("server", "out", "request", "tools/call"),
        ("server", "in", "result", "tools/call"),
        ("client", "out", "request", "elicitation/create"),
        ("client", "in", "result", "elicitation/create"),
        ("server", "out", "request", "tools/call"),
        ("server", "in", "result", "tools/call"),
        ("client", "out", "result", "tools/call"),
    ]
    assert client.session not in json.dumps(read(shared_product, recording))
