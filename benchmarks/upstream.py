"""A trivial MCP server over Streamable HTTP, both eras, on bare ASGI: the fastest thing a gateway can stand before.

Run: `python -m uvicorn benchmarks.upstream:app --port PORT`.
"""

import orjson

TOOL = {
    "name": "echo",
    "description": "Gives back its text.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}
MODERN = "2026-07-28"
INFO = {"name": "bench", "version": "1"}


def answer(message: dict) -> dict:
    """Return the result of a request."""
    method, params = message["method"], message.get("params", {})
    if method == "tools/call":
        text = params.get("arguments", {}).get("text", "")
        return {"content": [{"type": "text", "text": text}], "resultType": "complete"}
    if method == "tools/list":
        return {"tools": [TOOL], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    if method == "server/discover":
        return {
            "resultType": "complete",
            "supportedVersions": [MODERN, "2025-11-25"],
            "capabilities": {"tools": {}},
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": INFO},
        }
    if method == "initialize":
        return {
            "protocolVersion": params.get("protocolVersion", "2025-11-25"),
            "capabilities": {"tools": {}},
            "serverInfo": INFO,
        }
    return {}


async def app(scope, receive, send):
    """Serve."""
    if scope["type"] != "http":
        if scope["type"] == "lifespan":
            while True:
                event = await receive()
                await send({"type": f"{event['type']}.complete"})
                if event["type"] == "lifespan.shutdown":
                    return
        return
    body = b""
    while True:
        event = await receive()
        body += event.get("body", b"")
        if not event.get("more_body"):
            break
    headers = [(b"content-type", b"application/json")]
    if scope["method"] != "POST":
        await send({"type": "http.response.start", "status": 405, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    message = orjson.loads(body)
    if "id" not in message:
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    if message["method"] == "initialize":
        headers.append((b"mcp-session-id", b"bench-session"))
    reply = orjson.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message)})
    headers.append((b"content-length", str(len(reply)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": reply})
