"""Event streams of sessions that a client can take up again: ids on their events, and `GET` with `Last-Event-ID`.

Streamable HTTP of the revisions before 2026-07-28. A call's stream is read to the call's answer, which is kept until the client comes
for it; that its connection broke cancels nothing. A session's standalone stream goes on: what was said and not read is said again, and
what changed while nobody read is told. Where nothing is known of it any more, every list counts as changed.
"""

from typing import TYPE_CHECKING

from apps.gateway.plane.http import Receive
from apps.gateway.plane.mcp.replay import (
    CALL,
    STANDALONE,
    State,
    StreamGone,
    Taken,
    event_id,
    new_name,
    read_event_id,
)
from apps.gateway.plane.mcp.session import Session
from apps.gateway.plane.mcp.streams import CHANGES, Stream
from apps.gateway.plane.mcp.visit import Visit
from apps.gateway.plane.reply import event_chunk

if TYPE_CHECKING:
    from apps.gateway.plane.plane import Plane

PRIMED_FROM = "2025-11-25"
"""The first revision whose clients know an event without data."""
RETRY_MS = 1000
"""What clients are asked to wait before they come back."""


class Trail:
    """Gives the events of one stream their ids and has them kept (a `Keeper`). Nothing is done before there is a stream."""

    __slots__ = ("_begun", "_kind", "_session", "_store", "_taken", "_worker", "name", "number")

    def __init__(self, plane: "Plane", session: Session, kind: str, taken: Taken | None = None) -> None:
        self._store = plane.replays
        self._worker = plane.bus.worker
        self._session = session
        self._kind = kind
        self._taken = taken
        self._begun = False
        self.name = ""
        """The stream's, once there is one that is kept."""
        self.number = 0
        """The newest event's."""

    def go_on(self, name: str, number: int) -> None:
        """Go on with a stream that was taken up."""
        self._begun, self.name, self.number = True, name, number

    async def begin(self, taken: Taken) -> bytes:
        """See Keeper."""
        if self._begun:
            return b""
        self._begun = True
        name, session, taken = new_name(self._kind, self._worker), self._session, self._taken or taken
        if not await self._store.open(name, session=session.sid, principal=session.principal, taken=taken):
            return b""
        self.name = name
        return primer(session, name, 0)

    async def add(self, data: bytes) -> bytes:
        """See Keeper."""
        if not self.name:
            return event_chunk(data)
        self.number += 1
        await self._store.append(self.name, self.number, data)
        return event_chunk(data, event_id(self.name, self.number))

    async def end(self) -> None:
        """See Keeper."""
        if self.name:
            await self._store.end(self.name)


def primer(session: Session, name: str, number: int) -> bytes:
    """Return an event without data, which tells a client where it stands and how long to wait before it comes back."""
    if session.revision < PRIMED_FROM:
        return b""
    return b"id: %s\nretry: %d\ndata: \n\n" % (event_id(name, number).encode(), RETRY_MS)


def keep(visit: Visit, session: Session) -> None:
    """Have the stream kept that a call's answer may become."""
    visit.reply.keeper = Trail(visit.plane, session, CALL)


async def take_up(visit: Visit, session: Session, last: str, receive: Receive) -> None:
    """Serve GET with Last-Event-ID. Raises StreamGone for what is not kept, or is not this session's."""
    name, after = read_event_id(last)
    if name.startswith(STANDALONE):
        await serve_standalone(visit, session, receive, name, after)
    else:
        await _serve_call(visit, session, receive, name, after)


async def _serve_call(visit: Visit, session: Session, receive: Receive, name: str, after: int) -> None:
    """Read a call's stream on another connection, to its end."""
    plane, reply = visit.plane, visit.reply
    stream = Stream(visit.caller, visit.target.slug, (), reply, session=session.sid)

    def taken() -> State:
        reply.cut()
        stream.closed.set()
        return {}

    async def read() -> bool:
        await reply.chunk(primer(session, name, after) or b": resumed\n\n")
        at, ended = after, False
        while not ended and not reply.cut_off:
            events, ended = await plane.replays.read(name, at, plane.config.keepalive)
            for at, data in events:
                await reply.chunk(event_chunk(data, event_id(name, at)))
            if not events and not ended:
                await reply.comment()
        return False

    await plane.replays.take(name, session=session.sid, after=after, taken=taken)
    visit.note("session.resumed", details={"stream": "call"})
    await plane.streams.serve(stream, visit.snapshot, visit.target, receive, first=read)
    await reply.finish_stream(b"")


async def serve_standalone(visit: Visit, session: Session, receive: Receive, name: str = "", after: int = 0) -> None:
    """Serve the stream that a session has beside its calls; with a name, the one of that name goes on after an event."""
    plane, reply = visit.plane, visit.reply
    stream = Stream(visit.caller, visit.target.slug, tuple(CHANGES), reply, session=session.sid)
    left = False

    def taken() -> State:
        nonlocal left
        left = True
        plane.watching.detach(session.sid, stream)
        reply.cut()
        stream.closed.set()
        return stream.told

    trail = Trail(plane, session, STANDALONE, taken)
    reply.keeper = trail

    async def catch_up() -> bool:
        await reply.chunk((primer(session, name, after) if trail.name == name else b"") or b": resumed\n\n")
        at = after
        while at < last:
            try:
                events, _ = await plane.replays.read(name, at, 0)
            except StreamGone:  # what is new has pushed it out meanwhile
                return False
            if not events:
                break
            for at, data in events:
                await reply.chunk(event_chunk(data, event_id(name, at)))
        if trail.name != name:  # what it stands at is another process's
            await reply.chunk(primer(session, trail.name, 0))
        return True

    first, last = None, after
    if name:
        visit.note("session.resumed", details={"stream": "standalone"})
        stream.state = dict.fromkeys(CHANGES, -1)
        try:
            resumed = await plane.replays.take(name, session=session.sid, after=after, taken=taken)
        except StreamGone:
            pass  # nothing is known of it: it goes on under another name, and every list counts as changed
        else:
            if resumed.here:
                trail.go_on(name, resumed.last)
            stream.state = resumed.state or stream.state
            first, last = catch_up, resumed.last
    if first is None:
        await reply.comment()
    plane.watching.attach(session, stream)
    try:
        await plane.streams.serve(stream, visit.snapshot, visit.target, receive, first=first)
    finally:
        if not left:
            plane.watching.detach(session.sid, stream)
            await plane.replays.rest(trail.name, stream.told)
    await reply.finish_stream(b"")
