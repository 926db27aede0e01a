"""The one ASGI application. `/mcp` and the health checks go to the data plane before Django and its middleware."""

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.production")

import django

django.setup()

from django.core.handlers.asgi import ASGIHandler  # noqa: E402

from apps.gateway.adapters.runtime import GatewayRuntime  # noqa: E402
from apps.gateway.plane.http import Receive, Send, send_empty  # noqa: E402
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
                await send_empty(send, 404)
        elif path.startswith("/health/"):
            await serve_health(runtime, path, send)
        elif console_here:
            receive = bounded(scope, receive, send)
            await _django(scope, receive, send)  # type: ignore[arg-type]  # ASGI send, by another name
        else:
            await send_empty(send, 404)
    elif kind == "lifespan":
        await serve_lifespan(runtime, receive, send)
    elif kind == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4404})
