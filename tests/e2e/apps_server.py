"""A server with MCP Apps, made with the official SDK: `python -m tests.e2e.apps_server PORT dual|modern|legacy`."""

import sys
from typing import Any

import uvicorn
from mcp.server.apps import Apps, ResourceCsp, ResourcePermissions, client_supports_apps
from mcp.server.mcpserver import Context, MCPServer

URI = "ui://clock/app.html"
HTML = "<!doctype html><title>Clock</title>"
MODERN = b"2026-07-28"

apps = Apps()


@apps.tool(resource_uri=URI, visibility=["model", "app"], meta={"com.example/kept": {"a": [1]}}, description="Tells the time.")
async def clock(ctx: Context[Any]) -> str:
    """Say whether this client shows apps."""
    return f"apps: {client_supports_apps(ctx)}"


apps.add_html_resource(
    URI,
    HTML,
    csp=ResourceCsp(connect_domains=["https://time.example"]),
    permissions=ResourcePermissions(clipboard_write={}),
    prefers_border=True,
)


def of_one_era(inner: Any, era: str) -> Any:
    """Refuse the other era, in the words that servers of each have for it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or era == "dual":
            await inner(scope, receive, send)
            return
        version = dict(scope["headers"]).get(b"mcp-protocol-version")
        if (version == MODERN) is (era == "modern"):
            await inner(scope, receive, send)
            return
        code = b"-32022" if era == "modern" else b"-32600"
        body = b'{"jsonrpc":"2.0","id":null,"error":{"code":%b,"message":"Unsupported protocol version",' % code
        body += b'"data":{"supported":["2026-07-28"],"requested":"?"}}}' if era == "modern" else b'"data":null}}'
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 400, "headers": head})
        await send({"type": "http.response.body", "body": body})

    return app


if __name__ == "__main__":
    served = MCPServer("clock", extensions=[apps]).streamable_http_app()
    uvicorn.run(of_one_era(served, sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
