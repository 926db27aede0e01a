"""Messages that have no POST of their own to be answered on: those of a batch, and those of the HTTP+SSE transport."""

from collections.abc import Awaitable, Callable
from typing import Any

from apps.common.errors import SwitchyardError
from apps.gateway.plane.call import Json
from apps.gateway.plane.http import Header
from apps.gateway.plane.jsonrpc import error_bytes, error_of, valid_id
from apps.gateway.plane.log import log_defect
from apps.gateway.plane.mcp.legacy import converse, is_answer, read_message, take_answer
from apps.gateway.plane.mcp.session import Session
from apps.gateway.plane.mcp.visit import Visit
from apps.gateway.plane.reply import Reply


class Part(Reply):
    """The answer to one message that shares with others what it is written to."""

    __slots__ = ("_answer", "_say")

    def __init__(
        self, say: Callable[[bytes], Awaitable[bool]], answer: Callable[[bytes], Awaitable[None]], *, accepts_stream: bool
    ) -> None:
        super().__init__(_nowhere, accepts_stream=accepts_stream)
        self._say = say
        self._answer = answer

    async def comment(self) -> None:
        """Nothing: what is shared is kept alive by who holds it."""

    async def event(self, body: bytes) -> bool:
        """Send a message before the result; False when the client cannot take one."""
        return self.accepts_stream and await self._say(body)

    async def finish(self, status: int, body: bytes, headers: tuple[Header, ...] = ()) -> None:
        """Send the response."""
        self.visit = None
        await self._answer(body)

    async def accept(self) -> None:
        """Nothing: notifications and responses have no answer."""
        self.visit = None


async def _nowhere(message: dict[str, Any]) -> None:
    raise AssertionError("a part of an answer writes to nothing of its own")


async def answer_entry(visit: Visit, session: Session | None, message: Json) -> None:
    """Take one message that has no POST of its own; whatever is wrong with a request becomes its answer."""
    try:
        if is_answer(message):
            take_answer(visit, session, message)
            return
        method, params = read_message(message)
        await converse(visit, session, message, method, params, None)
    except SwitchyardError as error:
        await refuse(visit, message, error)
    except Exception as error:  # noqa: BLE001 - one message must not cost the others their answers
        log_defect("front", error, path=visit.path)
        await _say_error(visit, message, SwitchyardError("Switchyard failed on this request."))


async def refuse(visit: Visit, message: Any, error: SwitchyardError) -> None:
    """Record that a message was refused, and answer it so; with id null where it has none that is good."""
    visit.refused(message, error)
    await _say_error(visit, message, error)


async def _say_error(visit: Visit, message: Any, error: SwitchyardError) -> None:
    id = message.get("id") if isinstance(message, dict) else None
    await visit.reply.finish(200, error_bytes(id if valid_id(id) else None, *error_of(error)))
