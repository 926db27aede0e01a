"""`/health/live` and `/health/ready`, for monitors and load balancers; no credential, and nothing that helps an attacker."""

from apps.common.jsontext import dumps
from apps.gateway.adapters.runtime import GatewayRuntime
from apps.gateway.plane.http import Send, send_json


async def serve_health(runtime: GatewayRuntime, path: str, send: Send) -> None:
    """Answer a health check: live = the process serves; ready = calls can be made and recorded now (else 503)."""
    if path in ("/health/live", "/health/live/"):
        await send_json(send, 200, b'{"status":"live"}')
    elif path in ("/health/ready", "/health/ready/"):
        ready, parts = await runtime.readiness()
        body = dumps({"status": "ready" if ready else "not ready", "parts": parts})
        await send_json(send, 200 if ready else 503, body)
    else:
        await send_json(send, 404, b'{"type":"https://switchyard.dev/problems/not-found","title":"Not found","status":404}')
