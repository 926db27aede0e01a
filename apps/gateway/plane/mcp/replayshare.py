"""The streams of all processes of an installation (a `ReplayStore`): each process keeps its own, and is asked for them by the others.

A stream's name says which process has it. A call's stream ends with that process, as its call does; a standalone one goes on in the
process that the client comes to.
"""

import secrets
from collections.abc import Callable

import msgspec

from apps.gateway.plane.mcp.elsewhere import Questions
from apps.gateway.plane.mcp.replay import STANDALONE, MemoryReplays, Resumed, State, StreamGone, Taken, hold

WORKER = slice(1, 9)
"""Where a process's name stands in a stream's."""
ASK_SECONDS = 4.0
"""For another process to answer, beside what it waits for."""
WAIT_SECONDS = 2.0
"""For the next event of another process's stream, before it is asked again: so one that is gone is noticed."""
PORTION = 1024 * 1024
"""Bytes that are asked of another process at once; one event may be more."""
_pack, _unpack = msgspec.msgpack.encode, msgspec.msgpack.decode
_TAKE, _READ = tuple[str, str, int, str], tuple[str, int, float]


class SharedReplays:
    """See ReplayStore."""

    def __init__(self, own: MemoryReplays, questions: Questions) -> None:
        self.own = own
        self._questions = questions
        self._bus = questions.bus
        self._reading: dict[str, Callable[[], Taken | None]] = {}
        """Readers here of other processes' streams, by ticket."""
        self._lent: dict[str, Taken] = {}
        """Streams of this process that are read in another one."""
        questions.answer("replay.take", self._answer_take)
        questions.answer("replay.read", self._answer_read)
        self._bus.on("replay.taken", self._take_taken)

    def _worker(self, name: str) -> str | None:
        """Return the process that has a stream, where it is not this one."""
        worker = name[WORKER]
        return None if worker == self._bus.worker else worker

    async def open(self, name: str, *, session: str, principal: str, taken: Taken) -> bool:
        """See ReplayStore."""
        return await self.own.open(name, session=session, principal=principal, taken=taken)

    async def append(self, name: str, number: int, data: bytes) -> None:
        """See ReplayStore."""
        await self.own.append(name, number, data)

    async def end(self, name: str) -> None:
        """See ReplayStore."""
        await self.own.end(name)

    async def rest(self, name: str, state: State) -> None:
        """See ReplayStore."""
        await self.own.rest(name, state)

    async def drop(self, session: str) -> None:
        """See ReplayStore."""
        await self.own.drop(session)

    def close(self) -> None:
        """See ReplayStore."""
        self.own.close()

    async def take(self, name: str, *, session: str, after: int, taken: Taken) -> Resumed:
        """See ReplayStore."""
        worker = self._worker(name)
        if worker is None:
            return await self.own.take(name, session=session, after=after, taken=taken)
        ticket = secrets.token_hex(8)
        for old in [old for old, reader in self._reading.items() if reader() is None]:
            del self._reading[old]
        self._reading[ticket] = hold(taken)
        said = await self._questions.ask(worker, "replay.take", _pack((name, session, after, ticket)), ASK_SECONDS)
        if said is None:
            raise StreamGone("The process that had this stream has ended. Initialize again.")
        return Resumed(_unpack(said, type=int), None, here=False)

    async def read(self, name: str, after: int, wait: float) -> tuple[list[tuple[int, bytes]], bool]:
        """See ReplayStore."""
        worker = self._worker(name)
        if worker is None:
            return await self.own.read(name, after, wait)
        question = _pack((name, after, min(wait, WAIT_SECONDS)))
        said = await self._questions.ask(worker, "replay.read", question, WAIT_SECONDS + ASK_SECONDS)
        if said is None:
            raise StreamGone("The process that had this stream has ended. Initialize again.")
        return _unpack(said, type=tuple[list[tuple[int, bytes]], bool])

    async def _answer_take(self, sender: str, question: bytes) -> bytes:
        name, session, after, ticket = _unpack(question, type=_TAKE)

        def taken() -> State:
            self._bus.tell("replay.taken", ticket.encode(), sender)
            return {}

        resumed = await self.own.take(name, session=session, after=after, taken=taken)
        if name.startswith(STANDALONE):  # it goes on there, under another name
            await self.own.rest(name, resumed.state or {})
            return _pack(resumed.last)
        for old in [old for old in self._lent if old not in self.own]:
            del self._lent[old]
        self._lent[name] = taken
        return _pack(resumed.last)

    async def _answer_read(self, sender: str, question: bytes) -> bytes:
        name, after, wait = _unpack(question, type=_READ)
        events, ended = await self.own.read(name, after, wait)
        size = 0
        for count, (_, data) in enumerate(events, 1):
            size += len(data)
            if size >= PORTION and count < len(events):
                return _pack((events[:count], False))
        return _pack((events, ended))

    def _take_taken(self, _: str, message: bytes) -> None:
        reader = self._reading.pop(message.decode(), None)
        taken = reader() if reader is not None else None
        if taken is not None:
            taken()
