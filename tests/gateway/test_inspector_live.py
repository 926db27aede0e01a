"""A recording on a running gateway: both sides of calls of both eras, in force within a second, without a secret, ended and gone."""

import json
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.factories import unique
from tests.gateway.wire import legacy, modern, post
from tests.support import eventually


def api(product: Any, path: str, body: Any = None, method: str = "") -> Any:
    request = urllib.request.Request(
        f"{product.base_url}/api/v1/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={**product.headers, "Content-Type": "application/json"},
        method=method or ("GET" if body is None else "POST"),
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        raw = answer.read()
    return json.loads(raw) if raw and answer.headers["Content-Type"] == "application/json" else raw


@pytest.fixture
def key(shared_product):
    made = api(shared_product, "api-keys/", {"name": unique("inspected")})
    api(shared_product, "grants/", {"kind": "server", "server": "system", "api_key": made["id"]})
    return made


def calculate(product: Any, key: str, expression: str, era: str = "modern") -> None:
    params = {"name": "system__calculate", "arguments": {"expression": expression}}
    body, headers = modern("tools/call", params) if era == "modern" else (legacy("tools/call", params), {})
    post(product, "/mcp", body, headers, key=key)


def messages(product: Any, recording: str, **filters: str) -> list[dict]:
    query = urlencode({"limit": "200", **filters})
    return api(product, f"recordings/{recording}/messages/?{query}")["results"]


@pytest.mark.parametrize("kind", ["api_key", "server"])
def test_both_sides_of_a_call_are_recorded_within_a_second(shared_product, key, kind):
    ref = key["id"] if kind == "api_key" else "system"
    calculate(shared_product, key["key"], "1 + 1")
    row = api(shared_product, "recordings/", {"kind": kind, "object": ref, "minutes": 5})
    started = time.monotonic()

    def seen() -> list[dict]:
        calculate(shared_product, key["key"], "20 + 22")
        return [
            one
            for one in messages(shared_product, row["id"], text="20 + 22")
            if one["client"] == "wire 1" or one["side"] == "server"
        ]

    eventually(seen, within=10, every=0.1)
    assert time.monotonic() - started < 5, "in force within a second, written half a second later"
    calculate(shared_product, key["key"], "40 + 2", era="legacy")

    def whole() -> Any:
        asked = [one for one in messages(shared_product, row["id"], text="40 + 2") if one["side"] == "client"]
        found = messages(shared_product, row["id"], call_id=asked[0]["call_id"]) if asked else []
        return found if len(found) == 4 else None

    story = eventually(whole, within=10, every=0.1)
    assert [(one["side"], one["direction"], one["kind"]) for one in story] == [
        ("client", "in", "request"), ("server", "out", "request"), ("server", "in", "result"), ("client", "out", "result"),
    ]  # fmt: skip
    assert {one["method"] for one in story} == {"tools/call"}
    assert {one["server"] for one in story} == {"system"}
    assert story[1]["message"]["params"]["name"] == "calculate", "as the server knows it"
    assert "[redacted]" in json.dumps(story[1]["message"]), "the assertion for built-in servers is a credential"
    secret = key["key"].split("_", 2)[2]
    taken = api(shared_product, f"recordings/{row['id']}/download/")
    lines = [json.loads(line) for line in taken.splitlines()]
    assert len(lines) >= 8
    assert secret not in taken.decode()
    stopped = api(shared_product, f"recordings/{row['id']}/stop/", {})
    assert (stopped["on"], stopped["dropped"]) == (False, 0)

    witness = api(shared_product, "recordings/", {"kind": kind, "object": ref, "minutes": 5})

    def witnessed() -> list[dict]:
        calculate(shared_product, key["key"], "7 * 6")
        return messages(shared_product, witness["id"], text="7 * 6")

    assert eventually(witnessed, within=10, every=0.1)
    assert not messages(shared_product, row["id"], text="7 * 6")
    api(shared_product, f"recordings/{witness['id']}/", method="DELETE")
    reads = api(shared_product, f"audit-events/?object_kind=recording&object_id={row['id']}&limit=200")["results"]
    assert {"recording.started", "recording.read", "recording.stopped"} <= {one["event_type"] for one in reads}
    api(shared_product, f"recordings/{row['id']}/", method="DELETE")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        messages(shared_product, row["id"])


def test_a_session_is_recorded_from_its_next_message(shared_product, key):
    info = {"name": unique("agent"), "version": "1"}
    begin = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
    _, headers, _ = post(shared_product, "/mcp/system", legacy("initialize", begin), key=key["key"])
    session = {"Mcp-Session-Id": headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
    seen = eventually(lambda: api(shared_product, f"clients/?search={info['name']}")["results"], within=20)
    row = api(shared_product, "recordings/", {"kind": "session", "object": seen[0]["session"], "minutes": 5})

    def listed() -> list[dict]:
        post(shared_product, "/mcp/system", legacy("tools/list"), session, key=key["key"])
        post(shared_product, "/mcp/system", legacy("tools/list"), key=key["key"])  # another one, without a session
        return messages(shared_product, row["id"], kind="result")

    first = eventually(listed, within=10, every=0.1)[0]
    assert (first["method"], first["side"], first["direction"]) == ("tools/list", "client", "out")
    everything = messages(shared_product, row["id"])
    asked = [one for one in everything if one["kind"] == "request"]
    assert len(asked) - len(messages(shared_product, row["id"], kind="result")) in (0, 1)
    assert {one["method"] for one in everything} == {"tools/list"}
    assert headers["mcp-session-id"] not in json.dumps(everything)
    api(shared_product, f"recordings/{row['id']}/", method="DELETE")
