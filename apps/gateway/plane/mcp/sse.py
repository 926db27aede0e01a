"""The HTTP+SSE front (the transport of 2024-11-05, with every revision that has a handshake): GET `/sse` or `/sse/<toolset>` opens
the one stream of a session, whose first event names the address that messages are POSTed to.

A POST is answered 202 at once; answers, notifications and the server's requests come on the stream. The session lives as long as its
stream, in this process: what still runs when it ends is cancelled, for nobody could be told what became of it.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from apps.common.errors import InvalidRequest, NotReady, Overloaded, SwitchyardError, UnsupportedRevision
from apps.gateway.plane.call import Json
from apps.gateway.plane.http import Receive
from apps.gateway.plane.jsonrpc import result_bytes, valid_id
from apps.gateway.plane.mcp.batches import AT_ONCE as BATCH_AT_ONCE
from apps.gateway.plane.mcp.batches import check_batch, run_entries
from apps.gateway.plane.mcp.legacy import converse, enter, is_answer, read_message, shake_hands, take_answer
from apps.gateway.plane.mcp.parts import Part, answer_entry, refuse
from apps.gateway.plane.mcp.revisions import META_VERSION
from apps.gateway.plane.mcp.session import Session
from apps.gateway.plane.mcp.streams import CHANGES, Stream
from apps.gateway.plane.mcp.visit import Visit
from apps.gateway.plane.reply import Reply
from apps.servers.domain import LEGACY_REVISIONS

if TYPE_CHECKING:
    from apps.gateway.plane.plane import Plane

AT_ONCE = 64
"""Requests of one session that are worked on at the same time."""
WAITING, MOST_WAITING = 32 * 1024 * 1024, 96 * 1024 * 1024
"""Bytes of a session's requests, from their arrival to the end of their work, and of what waits to be read: with more no request is
taken, with still more the session ends.
"""
HELD = 512 * 1024 * 1024
"""The same of all sessions; a quarter for one principal. With more the session ends that has most of it."""
EACH = 1024
"""What the work on a request, and an answer that waits, take beside their own bytes."""
SETTLE_SECONDS = 4.0
"""For calls in flight when the process stops."""


class SseReply(Reply):
    """The answer to a GET or POST of this transport."""

    __slots__ = ()
    door = "/sse"


class _SsePart(Part):
    __slots__ = ()
    door = "/sse"


class Channel:
    """One session: its stream, and what is being answered on it."""

    def __init__(self, plane: "Plane", session: Session, stream: Stream) -> None:
        self._plane = plane
        self._held = plane.sse_held
        self.owner = stream.caller.principal.id
        self.session = session
        self.caller = stream.caller
        self.slug = stream.slug
        self.closing = False
        self._stream = stream
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.Task[None]] = set()
        """Answers that wait for their turn on the stream."""
        self._busy = 0
        self.waiting = 0
        """Bytes, see WAITING."""

    async def take(self, visit: Visit, message: Any) -> None:
        """Take what was POSTed, and answer 202. Raises InvalidRequest, ValidationFailed, Overloaded, NotReady."""
        post, session = visit.reply, self.session
        enter(visit, session, None)
        visit.reply = self.part()
        if isinstance(message, list):
            check_batch(message, session.revision)
            work = run_entries(visit, session, message, lambda entry: self.part())
            self._start(work, min(len(message), BATCH_AT_ONCE), visit.size)
        elif not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            raise InvalidRequest('A message is an object whose jsonrpc is "2.0".')
        elif is_answer(message):
            take_answer(visit, session, message)
        elif valid_id(message.get("id")):
            self._start(self._request(visit, message), 1, visit.size)
        else:
            await converse(visit, session, message, *read_message(message), None)
        await post.accept()

    async def settle(self) -> None:
        """Take no more requests; wait a while for those that are being answered."""
        self.closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                while work := self._tasks | self._writers:
                    await asyncio.wait(work)

    async def end(self) -> None:
        """Cancel what still runs."""
        self.closing = True
        work = self._tasks | self._writers
        for task in work:
            task.cancel()
        if work:
            await asyncio.wait(work, timeout=SETTLE_SECONDS)

    def part(self) -> Part:
        """Return what a message is answered with: it writes to the stream."""
        return _SsePart(self._say, self._answer, accepts_stream=True)

    async def _say(self, body: bytes) -> bool:
        """Write a message to the stream when its turn comes; whoever says something waits for that, as its server then does."""
        size = len(body) + EACH
        self._hold(size)
        self._look()
        try:
            return await self._stream.reply.event(body)
        finally:
            self._free(size)

    async def _answer(self, body: bytes) -> None:
        """Write an answer when its turn comes: by then nothing but its bytes is left of the request."""
        task = asyncio.create_task(self._write(body))
        self._writers.add(task)
        task.add_done_callback(self._writers.discard)

    async def _write(self, body: bytes) -> None:
        await self._say(body)

    def _hold(self, size: int) -> None:
        self.waiting += size
        self._held.add(self.owner, size)

    def _free(self, size: int) -> None:
        self.waiting -= size
        self._held.give_back(self.owner, size)

    def _look(self) -> None:
        """End the session that has most, where there is too much."""
        if self.waiting > MOST_WAITING:
            self._stream.closed.set()
        for owner in ([self.owner] if self._held.over_share(self.owner) else []) + ([""] if self._held.over else []):
            rivals = [one for one in self._plane.channels.values() if owner in ("", one.owner)]
            max(rivals, key=lambda one: one.waiting, default=self)._stream.closed.set()

    def _start(self, work: Coroutine[Any, Any, None], weight: int, size: int) -> None:
        size += EACH
        try:
            self._admit(weight, size)
        except SwitchyardError:
            work.close()
            raise
        self._busy += weight
        self._hold(size)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, weight, size))

    def _admit(self, weight: int, size: int) -> None:
        if self.closing:
            raise NotReady("This session ends. Connect again.", retry_after=1)
        unanswered = self._busy + len(self._writers)
        if unanswered + weight > AT_ONCE:
            raise Overloaded(f"This session has {unanswered} requests to be answered.", rule="sse-requests", retry_after=1)
        if self.waiting + size > WAITING:
            raise Overloaded("Too much waits to be read on this session's stream.", rule="sse-unread", retry_after=1)
        if not self._held.fits(self.owner, size):
            raise Overloaded("Too much waits to be read on the streams of this key.", rule="sse-unread-of-key", retry_after=1)

    def _done(self, weight: int, size: int, task: asyncio.Task[None]) -> None:
        self._busy -= weight
        self._free(size)
        self._tasks.discard(task)

    async def _request(self, visit: Visit, message: Json) -> None:
        params = message.get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        try:
            if isinstance(meta, dict) and META_VERSION in meta:
                raise UnsupportedRevision(
                    "Unsupported protocol version", supported=list(LEGACY_REVISIONS), requested=str(meta[META_VERSION])[:100]
                )
            if message.get("method") == "initialize":
                await self._initialize(visit, message["id"], read_message(message)[1])
                return
        except SwitchyardError as error:
            await refuse(visit, message, error)
            return
        await answer_entry(visit, self.session, message)

    async def _initialize(self, visit: Visit, id: Any, params: Json) -> None:
        capabilities = shake_hands(visit, id, params, LEGACY_REVISIONS)
        said = _seal(visit, visit.revision, params.get("clientInfo"), capabilities)[1]
        session = self.session
        session.revision, session.client_info, session.capabilities = said.revision, said.client_info, said.capabilities
        visit.note("session.initialized")
        result = visit.plane.lists.initialize(visit.snapshot, visit.caller, visit.target, visit.revision)
        await visit.reply.finish(200, result_bytes(id, result))


async def serve_sse(visit: Visit, receive: Receive) -> None:
    """Serve GET: a session, from its first event to its last. Raises Overloaded."""
    with visit.plane.streams.place(visit.caller):
        await _serve_session(visit, receive)


async def _serve_session(visit: Visit, receive: Receive) -> None:
    plane, reply = visit.plane, visit.reply
    reply.accepts_stream = True
    token, session = _seal(visit, LEGACY_REVISIONS[-1], None, {})
    sid = session.sid
    enter(visit, session, None)
    stream = Stream(visit.caller, visit.target.slug, tuple(CHANGES), reply, session=sid)
    channel = plane.channels[sid] = Channel(plane, session, stream)

    async def name_address() -> bool:
        await reply.chunk(f"event: endpoint\ndata: {visit.path}/messages?session_id={plane.bus.worker}{token}\n\n".encode())
        return True

    expiry = plane.loop.call_later(plane.config.session_seconds, stream.closed.set)
    plane.watching.attach(session, stream)
    try:
        await plane.streams.serve(stream, visit.snapshot, visit.target, receive, first=name_address)
        if plane.streams.closing:
            await channel.settle()
    finally:
        expiry.cancel()
        await channel.end()
        del plane.channels[sid]
        plane.watching.detach(sid, stream)
        plane.watching.end(sid)
        plane.live.levels.drop(sid)
        enter(visit, session, None)
        visit.note("session.ended")
    await reply.finish_stream(b"")


def _seal(visit: Visit, revision: str, client_info: Any, capabilities: Json) -> tuple[str, Session]:
    """Return a session of this place, sealed and as it is read; for its address, not for `/mcp`."""
    principal, sessions = visit.caller.principal.id, visit.plane.sessions
    token = sessions.issue(
        principal=principal,
        toolset=visit.path,
        revision=revision,
        client_info=client_info,
        capabilities=capabilities,
        seconds=visit.plane.config.session_seconds,
    )
    return token, replace(sessions.open(token, principal=principal, toolset=visit.path))
