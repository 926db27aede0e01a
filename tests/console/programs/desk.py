"""A legacy MCP server over stdio: one tool that answers text, a structured value, an image and a link, and one that fails."""

import base64
import json
import sys

PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
    )
).decode()
TOOLS = [
    {
        "name": "look_up",
        "description": "Looks up a customer by name.",
        "annotations": {"readOnlyHint": True},
        "inputSchema": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "limit": {"type": "integer", "minimum": 1, "maximum": 9},
                "name": {"type": "string", "description": "Who."},
                "plan": {"enum": ["free", "paid"]},
                "address": {"type": "object", "properties": {"city": {"type": "string"}}},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
        },
    },
    {"name": "always_fails", "description": "Fails.", "inputSchema": {"type": "object", "properties": {}}},
]


def answer(method: str, params: dict) -> dict:
    """Return the result of a request; raises KeyError for an unknown method."""
    if method == "initialize":
        info = {"name": "desk", "version": "1.0"}
        return {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "ping":
        return {}
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call" and params["name"] == "look_up":
        given = params.get("arguments", {})
        return {
            "content": [
                {"type": "text", "text": f"<b>Found</b> {given.get('name')} <script>alert(1)</script>"},
                {"type": "image", "data": PIXEL, "mimeType": "image/png"},
                {"type": "resource_link", "uri": "https://example.com/customers/1", "name": "Customer 1"},
            ],
            "structuredContent": {"given": given},
        }
    if method == "tools/call":
        return {"content": [{"type": "text", "text": "It broke."}], "isError": True}
    raise KeyError(method)


def main() -> None:
    """Answer line by line."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        reply = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            reply["result"] = answer(message["method"], message.get("params") or {})
        except KeyError:
            reply["error"] = {"code": -32601, "message": "Method not found"}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
