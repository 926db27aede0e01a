"""Requests of a server's to the client while its call runs, in the initialize era: on the call's own stream, answered by a POST.

The answer is taken by the process that runs the call, and from the session that the call was made in alone.
"""

import asyncio
from collections.abc import Awaitable, Callable

from apps.common.ids import short_id
from apps.gateway.plane.call import Json
from apps.gateway.plane.jsonrpc import INTERNAL_ERROR, METHOD_NOT_FOUND
from apps.servers.transports.wire import is_error

FORWARDED = {"sampling/createMessage": "sampling", "elicitation/create": "elicitation", "roots/list": "roots"}
"""Method → the client's capability that it needs."""
WORKER = 8
"""Characters of a process's name."""
AT_ONCE = 32
"""Requests that wait for one session's client."""
Send = Callable[[Json], Awaitable[bool]]


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
        method = message.get("method")
        if not isinstance(method, str) or FORWARDED.get(method) not in capabilities:
            return refusal(METHOD_NOT_FOUND, f"The client does not take {str(method)[:100]}.")
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
