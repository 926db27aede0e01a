"""Clients that speak to a running gateway appear with what they declare, and what one sees now is what its lists gave it."""

import json
import urllib.request
from typing import Any

from tests.factories import unique
from tests.gateway.wire import legacy, modern, post
from tests.support import eventually


def api(product: Any, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"{product.base_url}/api/v1/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={**product.headers, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_clients_of_both_eras_appear_and_see_what_they_were_given(shared_product):
    key = api(shared_product, "api-keys/", {"name": unique("seen")})
    api(shared_product, "grants/", {"kind": "server", "server": "system", "api_key": key["id"]})
    name = unique("agent")
    eventually(lambda: listed(shared_product, key["key"]))
    info = {"name": name, "version": "4.2"}
    begin = {
        "protocolVersion": "2025-06-18",
        "capabilities": {"elicitation": {}, "roots": {"listChanged": True}},
        "clientInfo": info,
    }
    _, headers, _ = post(shared_product, "/mcp/system", legacy("initialize", begin), key=key["key"])
    session = {"Mcp-Session-Id": headers["mcp-session-id"], "MCP-Protocol-Version": "2025-06-18"}
    call = {"name": "calculate", "arguments": {"expression": "1+1"}}
    for _ in range(3):
        post(shared_product, "/mcp/system", legacy("tools/call", call), session, key=key["key"])
    body, headers = modern("tools/list")
    body["params"]["_meta"] = {**body["params"]["_meta"], "io.modelcontextprotocol/clientInfo": info}
    given = post(shared_product, "/mcp", body, headers, key=key["key"])[2]["result"]["tools"]

    def both() -> Any:
        found = {row["revision"]: row for row in api(shared_product, f"clients/?api_key={key['id']}&search={name}")["results"]}
        return found if len(found) == 2 else None

    found = eventually(both, within=20)
    old, new = found["2025-06-18"], found["2026-07-28"]
    assert (old["name"], old["version"], old["era"], old["toolset"], old["calls"]) == (name, "4.2", "legacy", "system", 3)
    assert old["declared"] == ["elicitation.form", "roots", "roots.listChanged"]
    assert (old["address"], old["session"] != "", old["streams"]) == ("127.0.0.1", True, True)
    assert (new["toolset"], new["calls"], new["declared"], new["session"]) == ("", 0, [], "")
    sight = api(shared_product, f"compatibility/sight/?client={new['id']}")
    assert [one["name"] for one in sight["listed"] if one["kind"] == "tool"] == [tool["name"] for tool in given]
    (pair,) = api(shared_product, f"compatibility/?client={old['id']}")["results"]
    states = {one["feature"]: one["state"] for one in pair["features"]}
    assert states["tools"] in ("works", "translated")
    assert states["elicitation-url"] == "not-asked"


def listed(product: Any, key: str) -> Any:
    body, headers = modern("tools/list")
    return post(product, "/mcp", body, headers, key=key)[2]["result"]["tools"]
