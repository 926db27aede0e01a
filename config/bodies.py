"""Cuts bodies that are too large or too slow for the control plane before Django writes them to disk."""

import asyncio
from typing import Any

from apps.common.errors import MalformedRequest, SwitchyardError, TooLarge
from apps.common.jsontext import dumps
from apps.gateway.plane.http import Receive, Send

LIMIT = 8 * 1024 * 1024
"""Bytes; the API itself takes 4 MB of JSON."""
SECONDS = 20.0
"""Time for a whole body."""


def bounded(scope: dict[str, Any], receive: Receive, send: Send) -> Receive:
    """Return a `receive` that ends the request when its body is over 8 MB, or says it is (413), or takes over 20 s (400)."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    state = {"size": int(length) if length.isdigit() else 0, "over": False, "counted": length.isdigit()}
    deadline: float | None = asyncio.get_running_loop().time() + SECONDS

    async def checked() -> dict[str, Any]:
        nonlocal deadline
        if state["over"]:
            return {"type": "http.disconnect"}
        if state["size"] <= LIMIT:
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                state["over"] = True
                await _refuse(send, MalformedRequest(f"The body did not arrive within {SECONDS:g} s."))
                return {"type": "http.disconnect"}
            if not message.get("more_body"):
                deadline = None  # whole; from here on only the client's leaving is awaited
            if not state["counted"]:
                state["size"] += len(message.get("body", b""))
            if state["size"] <= LIMIT:
                return message
        state["over"] = True
        await _refuse(send, TooLarge(f"The body has more than {LIMIT} bytes, the limit here."))
        return {"type": "http.disconnect"}

    return checked


async def _refuse(send: Send, error: SwitchyardError) -> None:
    body = dumps(error.problem())
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
