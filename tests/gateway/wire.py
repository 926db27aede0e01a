"""The gateway as a client sees it, with nothing in between."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "wire", "version": "1"},
}


def post(
    product: Any, path: str, body: Any, headers: dict[str, str] | None = None, *, key: str | None = ""
) -> tuple[int, dict, Any]:
    """POST a message; returns status, headers and the answer (of a stream: its last message)."""
    parts = urlsplit(product.base_url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    sent = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if key is not None:
        sent["Authorization"] = f"Bearer {key or product.key}"
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, raw, sent | (headers or {}))
    answer = connection.getresponse()
    text = answer.read().decode()
    found = {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    if found.get("content-type", "").startswith("text/event-stream"):
        text = [line[6:] for line in text.splitlines() if line.startswith("data: ")][-1]
    return answer.status, found, json.loads(text) if text else None


def modern(method: str, params: dict | None = None, id: Any = 1) -> tuple[dict, dict[str, str]]:
    """Return a modern request and its headers."""
    params = {**(params or {}), "_meta": META}
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
    named = params.get("name") or params.get("uri")
    if named:
        headers["Mcp-Name"] = named
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}, headers


def legacy(method: str, params: dict | None = None, id: Any = 1) -> dict:
    """Return a legacy request."""
    return {"jsonrpc": "2.0", "id": id, "method": method, **({"params": params} if params is not None else {})}


def call_tool(product: Any, name: str, arguments: dict, path: str = "/mcp", key: str = "", era: str = "modern") -> dict:
    """Call a tool and return the whole answer."""
    params = {"name": name, "arguments": arguments}
    if era == "modern":
        body, headers = modern("tools/call", params)
        return post(product, path, body, headers, key=key)[2]
    return post(product, path, legacy("tools/call", params), key=key)[2]


def error_of(answer: dict) -> str:
    """Return the last part of an error's type."""
    return answer["error"]["data"]["type"].rsplit("/", 1)[-1]
