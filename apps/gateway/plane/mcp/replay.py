"""What was said on event streams of sessions, kept for a while, so that a client whose connection broke can have what it missed.

Streamable HTTP of the revisions before 2026-07-28, "Resumability and Redelivery". A stream's name is random and good in its own
session alone; an event's id is the stream's name and the event's number in it. Kept is little and not for long: what a session, a
principal or all of them have over their limit is forgotten, oldest first, and is then gone for who comes back.
"""

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Protocol
from weakref import WeakMethod, ref

from apps.common.errors import SwitchyardError

CALL, STANDALONE = "c", "s"
"""First letter of a stream's name: a call's (or a batch's), or the one that a session has beside its calls."""
RETAIN_SECONDS = 300.0
"""How long a stream is kept that has ended, or whose reader has left."""
STREAMS, ALL_STREAMS = 256, 16_384
"""Streams that are kept for one session, and for all."""
SHARE = 4
"""One principal may have this part of all that is kept."""
State = dict[str, int]
"""What a standalone stream's client was last told of, by kind of list; means nothing to another process."""
Taken = Callable[[], State]
"""Is called when another connection takes a stream up: the present one says nothing more, and tells its state. It is held weakly:
who reads keeps it for as long as it reads.
"""


class StreamGone(SwitchyardError):
    """No such stream in this session, or what was missed on it is no longer kept."""

    slug, title, status, jsonrpc_code = "stream-gone", "The stream cannot be taken up; initialize again", 404, -32600


@dataclass(frozen=True, slots=True)
class ReplayLimits:
    """How much is kept: events and bytes of one session, and of all together."""

    session_events: int = 2048
    session_bytes: int = 24 * 1024 * 1024
    """One answer of the largest size fits."""
    all_events: int = 262_144
    all_bytes: int = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Resumed:
    """A stream that was taken up."""

    last: int
    """The number of its newest event."""
    state: State | None
    """None where it is not known."""
    here: bool = True
    """This process has it, so that it can go on under its name."""


class ReplayStore(Protocol):
    """Keeps the events of streams. Numbers are given by the writer: 1, 2, 3 and on; 0 is before the first.

    A store that several processes share may answer any of them; `taken` is called in the process that opened the stream, or took it
    up, last.
    """

    async def open(self, name: str, *, session: str, principal: str, taken: Taken) -> bool:
        """Begin to keep a stream; False when there is no room for it: then it cannot be taken up."""
        ...

    async def append(self, name: str, number: int, data: bytes) -> None:
        """Keep an event (one line of JSON) of a stream that is open; of any other nothing is kept."""
        ...

    async def end(self, name: str) -> None:
        """Nothing follows on this stream."""
        ...

    async def rest(self, name: str, state: State) -> None:
        """The reader of a standalone stream has left; it was told of this."""
        ...

    async def take(self, name: str, *, session: str, after: int, taken: Taken) -> Resumed:
        """Take a stream up after an event. Raises StreamGone when it is not this session's or an event after that one is not kept."""
        ...

    async def read(self, name: str, after: int, wait: float) -> tuple[list[tuple[int, bytes]], bool]:
        """Return the events after one, and whether none will follow them; waits for the next at most `wait` seconds.

        Raises StreamGone as `take` does.
        """
        ...

    async def drop(self, session: str) -> None:
        """The session has ended: forget its streams; a standalone one is taken from its reader."""
        ...

    def close(self) -> None:
        """Forget everything."""


class _Event:
    __slots__ = ("data", "number", "stream")

    def __init__(self, stream: "_Stream", number: int, data: bytes) -> None:
        self.stream = stream
        self.number = number
        self.data = data


class _Ledger:
    """Events in the order in which they came, and how many bytes they are."""

    __slots__ = ("events", "most", "most_bytes", "size")

    def __init__(self, most: int, most_bytes: int) -> None:
        self.events: OrderedDict[int, _Event] = OrderedDict()
        self.size = 0
        self.most = most
        self.most_bytes = most_bytes

    @property
    def over(self) -> bool:
        return len(self.events) > self.most or self.size > self.most_bytes

    def add(self, serial: int, event: _Event) -> None:
        self.events[serial] = event
        self.size += len(event.data)

    def remove(self, serial: int) -> None:
        self.size -= len(self.events.pop(serial).data)


class _Session:
    __slots__ = ("ledger", "streams")

    def __init__(self, limits: ReplayLimits) -> None:
        self.ledger = _Ledger(limits.session_events, limits.session_bytes)
        self.streams: OrderedDict[str, _Stream] = OrderedDict()


class _Stream:
    __slots__ = ("ended", "expires", "kept", "last", "lost", "name", "principal", "session", "state", "taken", "wake")

    def __init__(self, name: str, session: str, principal: str, taken: Taken) -> None:
        self.name = name
        self.session = session
        self.principal = principal
        self.taken: Callable[[], Taken | None] = hold(taken)
        self.kept: deque[int] = deque()
        """Serials of its events."""
        self.last = 0
        self.lost = 0
        """The newest event that is no longer kept."""
        self.ended = False
        self.expires = 0.0
        """When it is forgotten; 0 while it goes on."""
        self.state: State | None = None
        self.wake: asyncio.Event | None = None


class MemoryReplays:
    """The streams of one process (a `ReplayStore`). Belongs to one event loop."""

    def __init__(self, limits: ReplayLimits | None = None) -> None:
        self._limits = limits or ReplayLimits()
        self._streams: dict[str, _Stream] = {}
        self._sessions: dict[str, _Session] = {}
        self._owners: dict[str, _Ledger] = {}
        self._all = _Ledger(self._limits.all_events, self._limits.all_bytes)
        self._resting: OrderedDict[str, _Stream] = OrderedDict()
        """Streams that expire, soonest first."""
        self._serial = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, name: str) -> bool:
        return name in self._streams

    @property
    def size(self) -> int:
        """Return how many bytes are kept."""
        return self._all.size

    async def open(self, name: str, *, session: str, principal: str, taken: Taken) -> bool:
        """See ReplayStore."""
        mine = self._sessions.get(session)
        if mine is None:
            mine = self._sessions[session] = _Session(self._limits)
        if len(mine.streams) >= STREAMS:
            over = next((one for one in mine.streams.values() if one.expires), None)
            if over is None:
                return False
            self._forget(over)
            self._sessions[session] = mine
        if len(self._streams) >= ALL_STREAMS:
            if not self._resting:
                if not mine.streams:
                    del self._sessions[session]
                return False
            self._forget(next(iter(self._resting.values())))
            self._sessions[session] = mine
        self._streams[name] = mine.streams[name] = _Stream(name, session, principal, taken)
        return True

    async def append(self, name: str, number: int, data: bytes) -> None:
        """See ReplayStore."""
        stream = self._streams.get(name)
        if stream is None:
            return
        self._serial += 1
        event = _Event(stream, number, data)
        ledgers = self._ledgers(stream)
        for ledger in ledgers:
            ledger.add(self._serial, event)
        stream.kept.append(self._serial)
        stream.last = number
        for ledger in ledgers:
            while ledger.over:
                self._lose(next(iter(ledger.events)))
        _wake(stream)

    async def end(self, name: str) -> None:
        """See ReplayStore."""
        stream = self._streams.get(name)
        if stream is not None:
            stream.ended = True
            self._expire(stream)
            _wake(stream)

    async def rest(self, name: str, state: State) -> None:
        """See ReplayStore."""
        stream = self._streams.get(name)
        if stream is not None:
            stream.state, stream.taken = state, _nobody
            self._expire(stream)

    async def take(self, name: str, *, session: str, after: int, taken: Taken) -> Resumed:
        """See ReplayStore."""
        stream = self._whole(name, session, after)
        before = stream.taken()
        if before is not None:
            stream.state = before()
            _wake(stream)
        stream.taken = hold(taken)
        if not stream.ended:
            stream.expires = 0.0
            self._resting.pop(name, None)
        return Resumed(stream.last, stream.state)

    async def read(self, name: str, after: int, wait: float) -> tuple[list[tuple[int, bytes]], bool]:
        """See ReplayStore."""
        stream = self._whole(name, None, after)
        if stream.last <= after and not stream.ended and wait > 0:
            if stream.wake is None:
                stream.wake = asyncio.Event()
            stream.wake.clear()
            try:
                async with asyncio.timeout(wait):
                    await stream.wake.wait()
            except TimeoutError:
                return [], False
            stream = self._whole(name, None, after)
        events = [self._all.events[serial] for serial in stream.kept]
        return [(event.number, event.data) for event in events if event.number > after], stream.ended

    async def drop(self, session: str) -> None:
        """See ReplayStore."""
        mine = self._sessions.get(session)
        for stream in list(mine.streams.values()) if mine is not None else []:
            taken = stream.taken() if stream.name.startswith(STANDALONE) else None
            if taken is not None:
                taken()
            self._forget(stream)

    def close(self) -> None:
        """See ReplayStore."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for stream in list(self._streams.values()):
            self._forget(stream)

    def _whole(self, name: str, session: str | None, after: int) -> _Stream:
        stream = self._streams.get(name)
        if stream is None or (session is not None and stream.session != session) or after > stream.last:
            raise StreamGone("There is no such stream in this session, or it is no longer kept. Initialize again.")
        if after < stream.lost:
            raise StreamGone("Events after this one are no longer kept. Initialize again.")
        return stream

    def _ledgers(self, stream: _Stream) -> tuple[_Ledger, ...]:
        owner = self._owners.get(stream.principal)
        if owner is None:
            limits = self._limits
            owner = _Ledger(limits.all_events // SHARE, max(limits.all_bytes // SHARE, limits.session_bytes))
            self._owners[stream.principal] = owner
        return self._sessions[stream.session].ledger, owner, self._all

    def _lose(self, serial: int) -> None:
        event = self._all.events[serial]
        stream = event.stream
        stream.lost = event.number
        stream.kept.popleft()  # what is lost is the oldest everywhere
        for ledger in self._ledgers(stream):
            ledger.remove(serial)

    def _forget(self, stream: _Stream) -> None:
        while stream.kept:
            self._lose(stream.kept[0])
        self._streams.pop(stream.name, None)
        self._resting.pop(stream.name, None)
        mine = self._sessions[stream.session]
        del mine.streams[stream.name]
        if not mine.streams:
            del self._sessions[stream.session]
        owner = self._owners.get(stream.principal)
        if owner is not None and not owner.events:
            del self._owners[stream.principal]
        _wake(stream)

    def _expire(self, stream: _Stream) -> None:
        stream.expires = time.monotonic() + RETAIN_SECONDS
        self._resting.pop(stream.name, None)
        self._resting[stream.name] = stream
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(RETAIN_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = time.monotonic()
        while self._resting:
            first = next(iter(self._resting.values()))
            if first.expires > now:
                self._timer = asyncio.get_running_loop().call_later(first.expires - now + 0.1, self._sweep)
                return
            self._forget(first)


def _wake(stream: _Stream) -> None:
    if stream.wake is not None:
        stream.wake.set()


def hold(taken: Taken) -> "Callable[[], Taken | None]":
    """Return a weak reference."""
    return WeakMethod(taken) if isinstance(taken, MethodType) else ref(taken)


def _nobody() -> Taken | None:
    return None


def new_name(kind: str, worker: str = "00000000") -> str:
    """Return the name of a new stream of a process (8 characters): 96 random bits."""
    return kind + worker + secrets.token_urlsafe(12)


def event_id(name: str, number: int) -> str:
    """Return the id of an event."""
    return f"{name}.{number}"


def read_event_id(id: str) -> tuple[str, int]:
    """Return a stream's name and an event's number. Raises StreamGone for an id that is none of ours."""
    name, _, number = id.rpartition(".")
    if len(id) > 64 or not name or not number.isascii() or not number.isdigit() or len(number) > 12:
        raise StreamGone("Last-Event-ID is not the id of an event from here. Initialize again.")
    return name, int(number)
