"""The one ASGI application. `/mcp`, `/sse` and the health checks go to the data plane before Django and its middleware."""

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.production")

import django

django.setup()

from django.core.handlers.asgi import ASGIHandler  # noqa: E402

from apps.gateway.adapters.runtime import GatewayRuntime  # noqa: E402
from apps.gateway.plane.http import SECURITY_HEADERS, Receive, Send  # noqa: E402
from config.bodies import bounded  # noqa: E402
from config.health import serve_health  # noqa: E402
from config.lifespan import serve_lifespan  # noqa: E402
from config.processes.roles import serves_gateway, serves_web  # noqa: E402

runtime = GatewayRuntime()
gateway_here = serves_gateway()
console_here = serves_web()
_django = ASGIHandler()


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Dispatch by type and path."""
    kind = scope["type"]
    if kind == "http":
        path: str = scope["path"]
        if path == "/mcp" or path.startswith("/mcp/"):
            if gateway_here and runtime.plane is not None:
                await runtime.plane(scope, receive, send)
            else:
                await _not_here(scope, send)
        elif path == "/sse" or path.startswith("/sse/"):
            if gateway_here and runtime.plane is not None:
                await runtime.plane.sse(scope, receive, send)
            else:
                await _not_here(scope, send)
        elif path.startswith("/health/"):
            await serve_health(runtime, path, send)
        elif console_here:
            receive = bounded(scope, receive, send)
            await _django(scope, receive, send)  # type: ignore[arg-type]  # ASGI send, by another name
        else:
            await _not_here(scope, send)
    elif kind == "lifespan":
        await serve_lifespan(runtime, receive, send)
    elif kind == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4404})


async def _not_here(scope: dict[str, Any], send: Send) -> None:
    """Answer 404 with a line that says what this process serves."""
    served = [*(["/admin/", "/api/"] if console_here else []), *(["/mcp", "/sse"] if gateway_here else []), "/health/"]
    body = f"Not found. This process of Switchyard serves {', '.join(served[:-1])} and {served[-1]}.\n".encode()
    headers = [*SECURITY_HEADERS, (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})
