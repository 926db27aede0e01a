"""JSON-RPC batches (2025-03-26 alone): several messages in one POST, each a message of its own for policy, limits and log.

Requests run side by side, a few at a time. Their answers are one JSON array, or, where something has to be said before the last of
them is there, events on one stream in the order in which they come.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from apps.common.clock import now_us
from apps.common.errors import AuthenticationRequired, InvalidRequest, SwitchyardError, TooLarge
from apps.common.jsontext import dumps
from apps.gateway.plane.call import Json
from apps.gateway.plane.http import Headers
from apps.gateway.plane.jsonrpc import error_bytes, error_of, valid_id
from apps.gateway.plane.mcp.legacy import check_version, enter, is_answer, open_session, read_message
from apps.gateway.plane.mcp.parts import Part, answer_entry, refuse
from apps.gateway.plane.mcp.resuming import keep
from apps.gateway.plane.mcp.revisions import BATCHED, META_VERSION
from apps.gateway.plane.mcp.session import Session
from apps.gateway.plane.mcp.visit import Visit
from apps.gateway.plane.reply import Reply
from apps.gateway.plane.views import current_caller, find_target

MOST = 100
"""Messages of one batch."""
AT_ONCE = 8
"""Requests of one batch that are worked on at the same time."""


async def serve_batch(visit: Visit, entries: list[Any], headers: Headers) -> None:
    """Answer a batch on `/mcp`. Raises InvalidRequest, UnsupportedRevision, SessionGone for one that is refused as a whole."""
    version = headers.get(b"mcp-protocol-version")
    check_version(version)
    session = open_session(visit, headers)
    enter(visit, session, version)
    check_batch(entries, visit.revision)
    if session is not None and visit.reply.accepts_stream:
        keep(visit, session)
    batch = _Batch(visit)
    await batch.attend(run_entries(visit, session, entries, batch.part))
    await batch.finish()


class _Batch:
    """What becomes of the answers to one POST."""

    def __init__(self, visit: Visit) -> None:
        self._config = visit.plane.config
        self._reply = visit.reply
        self._answers: list[bytes] = []
        self._size = 0

    def part(self, entry: Any) -> Part:
        """Return what a message of the batch is answered with."""
        return Part(self._reply.event, partial(self._answered, entry), accepts_stream=self._reply.accepts_stream)

    async def attend(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work, and keep the connection alive where it takes long."""
        task = asyncio.create_task(work)
        wait = self._config.stream_after
        try:
            while not (await asyncio.wait({task}, timeout=wait))[0]:
                await self._reply.comment()
                wait = self._config.keepalive
        finally:
            task.cancel()
        task.result()

    async def _answered(self, entry: Any, body: bytes) -> None:
        most = self._config.answer_bytes
        if self._size + len(body) > most and not self._reply.accepts_stream:
            error = TooLarge(f"The answers to this batch have more than {most} bytes together. The request ran; send it alone.")
            body = error_bytes(entry.get("id"), *error_of(error))
        self._answers.append(body)
        self._size += len(body)
        if self._reply.streaming or self._size > most:
            await self._flush()

    async def _flush(self) -> None:
        while self._answers and self._reply.accepts_stream:
            answers, self._answers, self._size = self._answers, [], 0
            for body in answers:
                await self._reply.event(body)

    async def finish(self) -> None:
        """All are answered."""
        reply = self._reply
        if reply.streaming:
            await self._flush()
            if reply.keeper is not None:
                await reply.keeper.end()
            await reply.finish_stream(b"")
        elif self._answers:
            await reply.finish(200, b"[" + b",".join(self._answers) + b"]")
        else:
            await reply.accept()


def check_batch(entries: list[Any], revision: str) -> None:
    """Raise InvalidRequest where there are no batches, for one that is none (JSON-RPC 2.0, section 6), and for too long a one."""
    if revision != BATCHED:
        raise InvalidRequest(f"Batches are not accepted here, only in {BATCHED}; send one message per request.")
    if not entries:
        raise InvalidRequest("A batch holds at least one message.")
    if len(entries) > MOST:
        raise InvalidRequest(f"A batch holds at most {MOST} messages here; this one holds {len(entries)}.")


async def run_entries(visit: Visit, session: Session | None, entries: list[Any], part: Callable[[Any], Reply]) -> None:
    """Take each message of a batch; `part` makes what one is answered with. Returns when all are answered."""
    repeated = _repeated(entries)
    places = asyncio.Semaphore(AT_ONCE)
    tasks: list[asyncio.Task[None]] = []
    try:
        for entry in entries:
            own = Visit(
                visit.plane,
                visit.snapshot,
                visit.caller,
                visit.target,
                part(entry),
                address=visit.address,
                size=len(dumps(entry)),
            )
            enter(own, session, None)
            error = _error_in(entry, repeated)
            if error is not None:
                await refuse(own, entry, error)
            elif is_answer(entry) or "id" not in entry:
                await answer_entry(own, session, entry)
            else:
                tasks.append(asyncio.create_task(_in_turn(places, own, session, entry)))
                await asyncio.sleep(0)  # it begins now: a cancellation that comes after it finds it
        if tasks:
            await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _in_turn(places: asyncio.Semaphore, visit: Visit, session: Session | None, message: Json) -> None:
    async with places:
        try:
            _look_again(visit)
        except SwitchyardError as error:
            await refuse(visit, message, error)
        else:
            await answer_entry(visit, session, message)


def _look_again(visit: Visit) -> None:
    """Go on with the rights of now: those before it in the batch may have taken long. Raises AuthenticationRequired, NotFound."""
    snapshot, key = visit.plane.store.current, visit.caller.key
    caller = current_caller(snapshot, visit.caller)
    if caller is None or (key is not None and key.expires_us is not None and key.expires_us <= now_us()):
        raise AuthenticationRequired("The API key was revoked or has expired meanwhile.")
    if snapshot is not visit.snapshot:
        visit.renew(snapshot, caller, find_target(snapshot, caller, visit.target.slug))


def _repeated(entries: list[Any]) -> set[tuple[type, Any]]:
    """Return the ids that more than one request has; 1 and "1" are two."""
    ids = Counter(_identity(entry) for entry in entries if isinstance(entry, dict) and "method" in entry)
    return {id for id, count in ids.items() if id is not None and count > 1}


def _identity(entry: Json) -> tuple[type, Any] | None:
    id = entry.get("id")
    return (type(id), id) if valid_id(id) else None


def _error_in(entry: Any, repeated: set[tuple[type, Any]]) -> SwitchyardError | None:
    """Return what keeps a message from being one of a batch."""
    if not isinstance(entry, dict):
        return InvalidRequest("Each message of a batch must be an object.")
    if entry.get("jsonrpc") != "2.0":
        return InvalidRequest('jsonrpc must be "2.0".')
    if is_answer(entry):
        return None
    try:
        method, params = read_message(entry)
    except SwitchyardError as error:
        return error
    if method == "initialize":
        return InvalidRequest("initialize is sent alone, before everything else; it may not be part of a batch.")
    meta = params.get("_meta")
    if isinstance(meta, dict) and META_VERSION in meta:
        return InvalidRequest(f"{META_VERSION} belongs to a revision without batches; send this request alone.")
    if _identity(entry) in repeated:
        return InvalidRequest("Several requests of this batch have this id; none of them was run.")
    return None
