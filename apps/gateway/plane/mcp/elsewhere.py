"""Questions to other processes, where a stream of the initialize era is wanted that one of them has: answered, refused in the same
words as here, or, when that process is gone, not answered.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from apps.common.background import Background
from apps.common.errors import (
    AuthenticationRequired,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    SwitchyardError,
    ValidationFailed,
)
from apps.common.jsontext import dumps
from apps.gateway.plane.bus import Bus
from apps.gateway.plane.log import log_defect
from apps.gateway.plane.mcp.replay import StreamGone
from apps.gateway.plane.mcp.session import SessionGone

AT_ONCE = 2_000
"""Questions of others that are being answered here, and own ones that wait."""
Answerer = Callable[[str, bytes], Awaitable[bytes]]
"""Gets who asks and what; may raise a SwitchyardError."""

_pack, _unpack = msgspec.msgpack.encode, msgspec.msgpack.decode
_ERRORS = {
    one.slug: one
    for one in (
        AuthenticationRequired,
        InvalidRequest,
        NotFound,
        NotReady,
        Overloaded,
        SessionGone,
        StreamGone,
        SwitchyardError,
        ValidationFailed,
    )
}


class Questions:
    """Asks, and answers what is asked, over the bus. Belongs to one event loop."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._answerers: dict[str, Answerer] = {}
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[bytes, str, str, bytes]]] = {}
        self._responding = Background()
        bus.on("asked", self._take_question)
        bus.on("told", self._take_answer)

    def answer(self, topic: str, answerer: Answerer) -> None:
        """Have questions of a topic answered."""
        self._answerers[topic] = answerer

    async def ask(self, worker: str, topic: str, question: bytes, seconds: float) -> bytes | None:
        """Return a process's answer; None when it is not there, or says nothing for so long. Raises the error it answers with."""
        if worker == self.bus.worker or len(self._waiting) >= AT_ONCE:
            return None
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                if not await self.bus.send(worker, "asked", _pack((number, topic, question))):
                    return None
                said: bytes
                said, slug, detail, extra = await answer
        except TimeoutError:
            return None
        finally:
            del self._waiting[number]
        if slug:
            raise _ERRORS.get(slug, SwitchyardError)(detail, **msgspec.json.decode(extra))
        return said

    def _take_question(self, sender: str, message: bytes) -> None:
        number, topic, question = _unpack(message, type=tuple[int, str, bytes])
        if len(self._responding) < AT_ONCE:
            self._responding.start(self._respond(sender, number, topic, question))

    async def _respond(self, sender: str, number: int, topic: str, question: bytes) -> None:
        answer: tuple[int, bytes, str, str, bytes]
        try:
            answer = (number, await self._answerers[topic](sender, question), "", "", b"")
        except SwitchyardError as error:
            answer = (number, b"", error.slug, error.detail, dumps(error.extra))
        except Exception as error:  # noqa: BLE001 - who asks learns that it failed
            log_defect("bus", error)
            answer = (number, b"", SwitchyardError.slug, SwitchyardError.title, b"{}")
        self.bus.tell("told", _pack(answer), sender)

    def _take_answer(self, _: str, message: bytes) -> None:
        number, *said = _unpack(message, type=tuple[int, bytes, str, str, bytes])
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(_four(said))


def _four(said: list[Any]) -> tuple[bytes, str, str, bytes]:
    answer, slug, detail, extra = said
    return answer, slug, detail, extra
