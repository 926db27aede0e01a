"""The HTTP+SSE front (the transport of 2024-11-05, with every revision that has a handshake): GET `/sse` or `/sse/<toolset>` opens
the one stream of a session, whose first event names the address that messages are POSTed to.

A POST is answered 202 at once; answers, notifications and the server's requests come on the stream. The session lives as long as its
stream, in this process: what still runs when it ends is cancelled, for nobody could be told what became of it.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

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

AT_ONCE = 64
"""Requests of one session that are worked on at the same time."""
WAITING, MOST_WAITING = 32 * 1024 * 1024, 96 * 1024 * 1024
"""Bytes that wait for a slow reader: with more no request is taken, with still more the session ends."""
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

    def __init__(self, session: Session, stream: Stream) -> None:
        self.session = session
        self.caller = stream.caller
        self.slug = stream.slug
        self.closing = False
        self._stream = stream
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0
        self._waiting = 0

    async def take(self, visit: Visit, message: Any) -> None:
        """Take what was POSTed, and answer 202. Raises InvalidRequest, ValidationFailed, Overloaded, NotReady."""
        post, session = visit.reply, self.session
        enter(visit, session, None)
        visit.reply = self.part()
        if isinstance(message, list):
            check_batch(message, session.revision)
            work = run_entries(visit, session, message, lambda entry: self.part())
            self._start(work, min(len(message), BATCH_AT_ONCE))
        elif not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            raise InvalidRequest('A message is an object whose jsonrpc is "2.0".')
        elif is_answer(message):
            take_answer(visit, session, message)
        elif valid_id(message.get("id")):
            self._start(self._request(visit, message), 1)
        else:
            await converse(visit, session, message, *read_message(message), None)
        await post.accept()

    async def settle(self) -> None:
        """Take no more requests; wait a while for those that are being answered."""
        self.closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=SETTLE_SECONDS)

    async def end(self) -> None:
        """Cancel what still runs."""
        self.closing = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=SETTLE_SECONDS)

    def part(self) -> Part:
        """Return what a message is answered with: it writes to the stream."""
        return _SsePart(self._say, self._answer, accepts_stream=True)

    async def _say(self, body: bytes) -> bool:
        self._waiting += len(body)
        if self._waiting > MOST_WAITING:
            self._stream.closed.set()
        try:
            return await self._stream.reply.event(body)
        finally:
            self._waiting -= len(body)

    async def _answer(self, body: bytes) -> None:
        await self._say(body)

    def _start(self, work: Coroutine[Any, Any, None], weight: int) -> None:
        refusal: SwitchyardError | None = None
        if self.closing:
            refusal = NotReady("This session ends. Connect again.", retry_after=1)
        elif self._busy + weight > AT_ONCE:
            refusal = Overloaded(f"This session has {self._busy} requests to be answered.", rule="sse-requests", retry_after=1)
        elif self._waiting > WAITING:
            refusal = Overloaded("Too much waits to be read on this session's stream.", rule="sse-unread", retry_after=1)
        if refusal is not None:
            work.close()
            raise refusal
        self._busy += weight
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, weight))

    def _done(self, weight: int, task: asyncio.Task[None]) -> None:
        self._busy -= weight
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
    plane, reply = visit.plane, visit.reply
    plane.streams.admit(visit.caller)
    reply.accepts_stream = True
    token, session = _seal(visit, LEGACY_REVISIONS[-1], None, {})
    sid = session.sid
    enter(visit, session, None)
    stream = Stream(visit.caller, visit.target.slug, tuple(CHANGES), reply, session=sid)
    channel = plane.channels[sid] = Channel(session, stream)

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
        plane.live.levels.pop(sid, None)
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
