"""Requests of a server's to the client while its call runs, in the initialize era: on the call's own stream, answered by a POST.

The answer is taken by the process that runs the call, and from the session that the call was made in alone.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from apps.common.ids import short_id
from apps.gateway.plane.call import Json
from apps.gateway.plane.jsonrpc import INTERNAL_ERROR, METHOD_NOT_FOUND
from apps.gateway.plane.reply import LAST_WORD_SECONDS
from apps.servers.transports.wire import is_error

FORWARDED = {"sampling/createMessage": "sampling", "elicitation/create": "elicitation", "roots/list": "roots"}
"""Method → the client's capability that it needs."""
WORKER = 8
"""Characters of a process's name."""
AT_ONCE = 32
"""Requests that wait for one session's client."""
Send = Callable[[Json], Awaitable[bool]]


def lacking(capabilities: Json, message: Json) -> str:
    """Return what a client lacks to take a server's request, as it would declare it (`sampling.tools`); empty = nothing.

    A request that MCP has not needs something that no client declares: its own name.
    """
    method = message.get("method")
    needed = FORWARDED.get(method) if isinstance(method, str) else None
    if needed is None:
        return str(method)[:100]
    declared = capabilities.get(needed)
    if declared is None:
        return needed
    params = message.get("params")
    parts = declared if isinstance(declared, dict) else {}
    if needed == "elicitation" and isinstance(params, dict):
        mode = "url" if params.get("mode") == "url" else "form"
        # without parts it is the form alone, as before there were two modes (2025-11-25)
        return "" if mode in parts or (mode == "form" and "url" not in parts) else f"elicitation.{mode}"
    if needed == "sampling" and isinstance(params, dict) and "tools" in params and "tools" not in parts:
        return "sampling.tools"
    return ""


def refusal(code: int, text: str) -> Json:
    """Return the outcome of a request that does not reach the client."""
    return {"error": {"code": code, "message": text}}


class Asking:
    """The requests of this process that wait for a client's answer."""

    def __init__(self, worker: str = "") -> None:
        self._worker = worker
        self._waiting: dict[str, dict[str, asyncio.Future[Json]]] = {}

    async def ask(self, owner: str, capabilities: Json, message: Json, send: Send) -> Json:
        """Send a server's request under an id of our own and return what the client answers: `result` or `error`.

        What the client has not declared, or cannot be sent, is refused in its name. When the server takes its request back
        (this is cancelled), the client is told.
        """
        if lacks := lacking(capabilities, message):
            return refusal(METHOD_NOT_FOUND, f"The client has not declared {lacks}.")
        waiting = self._waiting.setdefault(owner, {})
        if len(waiting) >= AT_ONCE:
            return refusal(INTERNAL_ERROR, f"The client has {AT_ONCE} requests to answer already.")
        id = f"sy-{self._worker}-{short_id()}"
        answered = waiting[id] = asyncio.get_running_loop().create_future()
        try:
            if not await send({**message, "id": id}):
                return refusal(INTERNAL_ERROR, "The client takes no requests: it reads no event stream.")
            outcome: Json = await answered
            return outcome
        except asyncio.CancelledError:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORD_SECONDS):
                    await send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
            raise
        finally:
            del waiting[id]
            if not waiting:
                self._waiting.pop(owner, None)

    @staticmethod
    def worker_of(id: object) -> str | None:
        """Return the process that asked under this id; None for one that is not ours."""
        parts = id.split("-") if isinstance(id, str) and len(id) < 80 else []
        return parts[1] if len(parts) == 3 and parts[0] == "sy" and len(parts[1]) == WORKER else None

    def answer(self, owner: str, message: Json) -> bool:
        """Take a client's answer; False when nothing of this session's waits for it here."""
        id = message.get("id")
        answered = self._waiting.get(owner, {}).get(id) if isinstance(id, str) else None
        if answered is None or answered.done():
            return False
        if isinstance(message.get("result"), dict):
            answered.set_result({"result": message["result"]})
        elif is_error(message.get("error")):
            answered.set_result({"error": message["error"]})
        else:
            answered.set_result(refusal(INTERNAL_ERROR, "The client's answer is neither a result nor an error."))
        return True
