"""The legacy front (2025-03-26 to 2025-11-25, Streamable HTTP): a handshake, a session token, one message per POST."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from apps.common.errors import (
    InvalidRequest,
    MethodNotAllowed,
    MethodNotFound,
    SwitchyardError,
    UnsupportedRevision,
    ValidationFailed,
)
from apps.common.jsontext import dumps
from apps.gateway.plane.call import Answer, Call, Json
from apps.gateway.plane.http import Headers, Receive, send_empty
from apps.gateway.plane.jsonrpc import INTERNAL_ERROR, MAX_ID, REQUEST_CANCELLED, result_bytes, valid_id
from apps.gateway.plane.mcp.answers import cut_short, failure, legacy_answer
from apps.gateway.plane.mcp.asking import refusal
from apps.gateway.plane.mcp.endings import Levels
from apps.gateway.plane.mcp.envelope import client_label
from apps.gateway.plane.mcp.lists import LISTS
from apps.gateway.plane.mcp.resuming import keep, serve_standalone, take_up
from apps.gateway.plane.mcp.revisions import ASSUMED_LEGACY, LEGACY, LOG_LEVELS, MODERN
from apps.gateway.plane.mcp.session import Session
from apps.gateway.plane.mcp.shared import ROOTS_CHANGED
from apps.gateway.plane.mcp.visit import CALLS, Visit
from apps.gateway.plane.snapshot import caller_name
from apps.servers.transports.base import takes_requests
from apps.servers.transports.watching import SUBSCRIBE, UNSUBSCRIBE

_SESSION = b"mcp-session-id"


class LegacyLive:
    """The little that lives of legacy sessions in this process: log levels, and calls in flight that can be cancelled."""

    def __init__(self) -> None:
        self.levels = Levels()
        self.running: dict[tuple[str, Any], asyncio.Task[Any]] = {}
        self.cancelled: set[asyncio.Task[Any]] = set()

    def stop(self, call: Call, task: asyncio.Task[Any], error: SwitchyardError) -> None:
        """End a call in flight, which runs in `task`, with an error for its client."""
        if call.stopped is None and not task.done():
            call.stopped = error.with_traceback(None)
            self.cancelled.add(task)
            task.cancel()

    def cancel(self, owner: str, request_id: Any) -> bool:
        """Cancel a call in flight, if it is this session's; False when it is not here."""
        task = self.running.get((owner, request_id))
        if task is None:
            return False
        self.cancelled.add(task)
        task.cancel()
        return True


async def serve_legacy(visit: Visit, message: Json, headers: Headers, receive: Receive) -> None:
    """Answer one legacy message. Raises SessionGone, and other typed errors for what is refused before it is a call."""
    if is_answer(message):
        take_answer(visit, open_session(visit, headers), message)
        await visit.reply.accept()
        return
    method, params = read_message(message)
    version = headers.get(b"mcp-protocol-version")
    if method == "initialize":
        await _initialize(visit, message.get("id"), params)
        return
    check_version(version)
    session = open_session(visit, headers)
    enter(visit, session, version)
    await converse(visit, session, message, method, params, receive)


def is_answer(message: Json) -> bool:
    """Tell whether a message answers one of our requests."""
    return message.get("method") is None and ("result" in message or "error" in message)


def take_answer(visit: Visit, session: Session | None, message: Json) -> None:
    """Give an answer to who waits for it in this session, if anybody does."""
    if not visit.plane.shared.answer(_owner(visit, session), message):
        visit.note("session.answer_refused", details={"id": str(message.get("id"))[:80]})


def read_message(message: Json) -> tuple[str, Json]:
    """Return method and parameters of a request or notification. Raises InvalidRequest, ValidationFailed."""
    method = message.get("method")
    if not isinstance(method, str):
        raise InvalidRequest("The message has no method.")
    params = message.get("params", {})
    if not isinstance(params, dict):
        raise ValidationFailed("params must be an object.")
    if "id" in message and not valid_id(message["id"]):
        raise InvalidRequest(f"id must be an integer or a string of at most {MAX_ID} characters.")
    return method, params


def check_version(version: str | None) -> None:
    """Raise UnsupportedRevision for an MCP-Protocol-Version that is not spoken with a handshake."""
    if version is not None and version not in LEGACY:
        raise UnsupportedRevision("Unsupported protocol version", supported=[MODERN, *LEGACY], requested=version[:100])


def enter(visit: Visit, session: Session | None, version: str | None) -> None:
    """Note which session a visit is in, or which revision it speaks without one."""
    if session is None:
        visit.revision = version or ASSUMED_LEGACY
        return
    visit.revision, visit.session = session.revision, session.sid
    visit.client = client_label(session.client_info)
    visit.client_info, visit.capabilities = session.client_info, session.capabilities


async def converse(
    visit: Visit, session: Session | None, message: Json, method: str, params: Json, receive: Receive | None
) -> None:
    """Answer a request, or take a notification, of a client that has shaken hands. Raises a typed error for what is no call."""
    reply, id = visit.reply, message.get("id")
    if "id" not in message:
        if method == "notifications/cancelled" and valid_id(cancelled := params.get("requestId")):
            visit.plane.shared.cancel(_owner(visit, session), cancelled)
        elif method == ROOTS_CHANGED and session is not None:
            servers = [server.facts.id for server in visit.target.servers(visit.snapshot)]
            visit.plane.shared.roots_changed(session, caller_name(visit.caller), servers)
        await reply.accept()
    elif method in LISTS:
        await visit.list(id, method, params, modern=False)
    elif method in CALLS or method == SUBSCRIBE:
        await _call(visit, session, id, method, params, receive)
    elif method == UNSUBSCRIBE:
        await _unsubscribe(visit, session, id, params)
    elif method == "ping":
        await reply.finish(200, result_bytes(id, b"{}"))
    elif method == "logging/setLevel":
        await _set_level(visit, session, id, params)
    else:
        raise MethodNotFound(f"Method not found: {method[:100]}")


def open_session(visit: Visit, headers: Headers) -> Session | None:
    """Return the session that a request names, if it names one. Raises SessionGone."""
    token = headers.get(_SESSION)
    if token is None:
        return None
    return visit.plane.sessions.open(token, principal=visit.caller.principal.id, toolset=visit.target.slug)


def _owner(visit: Visit, session: Session | None) -> str:
    return session.sid if session is not None else f"{visit.caller.principal.id} {visit.target.slug}"


def shake_hands(visit: Visit, id: Any, params: Json, offered: tuple[str, ...]) -> Json:
    """Note who the client is and which revision is spoken; return the capabilities that it declares. Raises ValidationFailed."""
    wanted = params.get("protocolVersion")
    if id is None or not isinstance(wanted, str):
        raise ValidationFailed("initialize needs an id and params.protocolVersion.")
    info, capabilities = params.get("clientInfo"), params.get("capabilities")
    visit.revision, visit.client = wanted if wanted in offered else offered[0], client_label(info)
    visit.client_info, visit.capabilities = info if isinstance(info, dict) else None, capabilities
    return capabilities if isinstance(capabilities, dict) else {}


async def _initialize(visit: Visit, id: Any, params: Json) -> None:
    capabilities = shake_hands(visit, id, params, LEGACY)
    token = visit.plane.sessions.issue(
        principal=visit.caller.principal.id,
        toolset=visit.target.slug,
        revision=visit.revision,
        client_info=params.get("clientInfo"),
        capabilities=capabilities,
        seconds=visit.plane.config.session_seconds,
    )
    visit.session = visit.plane.sessions.open(token, principal=visit.caller.principal.id, toolset=visit.target.slug).sid
    visit.note("session.initialized")
    result = visit.plane.lists.initialize(visit.snapshot, visit.caller, visit.target, visit.revision)
    await visit.reply.finish(200, result_bytes(id, result), ((_SESSION, token.encode()),))


async def _call(visit: Visit, session: Session | None, id: Any, method: str, params: Json, receive: Receive | None) -> None:
    live = visit.plane.live
    call = visit.call(method, params, modern=False)
    if method == SUBSCRIBE:
        call.send = partial(visit.plane.watching.subscribe, _required(session))
    level = live.levels.get(session.sid) if session is not None else None
    call.log_level = level or "info"
    if session is not None:
        if receive is not None and visit.reply.accepts_stream:
            keep(visit, session)
        call.capabilities = session.capabilities
        call.client_info = session.client_info or None
        if visit.reply.accepts_stream and takes_requests(session.capabilities):
            call.on_request = _asker(visit, session, call)
    if level is not None:
        visit.quiet_below = LOG_LEVELS.index(level)
    task = asyncio.current_task()
    assert task is not None
    key = (_owner(visit, session), id)
    live.running[key] = task
    try:
        answer = await visit.run(call, receive, leaving_cancels=False)
    except asyncio.CancelledError:
        if task not in live.cancelled and not visit.plane.stopping:
            raise
        task.uncancel()
        if call.stopped is not None:
            answer = failure(call.stopped, call)
        elif task not in live.cancelled:
            answer = cut_short(call)
        else:
            answer = Answer(code=REQUEST_CANCELLED, message="The request was cancelled.", data={"call_id": call.call_id})
    finally:
        call.on_request = call.on_message = None  # they hold the call
        live.cancelled.discard(task)
        if live.running.get(key) is task:
            del live.running[key]
        del task  # what cancels it has this frame in its traceback
    if answer is not None:
        await visit.reply.finish(*legacy_answer(id, answer))


def _asker(visit: Visit, session: Session, call: Call) -> Callable[[Json], Awaitable[Json]]:
    """Return what answers a server's requests during a call: the client, over the call's stream.

    Where the client cannot be asked, for want of room or because it has left, it raises why in a call that is made in rounds.
    """
    plane, task = visit.plane, asyncio.current_task()
    assert task is not None

    async def send(message: Json) -> bool:
        return await visit.reply.event(dumps(message))

    async def ask(message: Json) -> Json:
        answered = "none"
        try:
            with plane.waits.question(visit, session.sid, call, task, len(dumps(message))):
                outcome = await plane.asking.ask(session.sid, session.capabilities, message, send)
            answered = "result" if "result" in outcome else "error"
        except SwitchyardError as error:
            answered = "refused"
            if call.rounds:
                raise
            return refusal(INTERNAL_ERROR, error.detail)
        finally:
            plane.recorder.asked(call, str(message.get("method")), answered)
        try:
            plane.pipeline.renew(call)
        except SwitchyardError as error:  # taken away while the client was asked: the server gets no answer, the client this
            plane.live.stop(call, task, error)
            return refusal(INTERNAL_ERROR, "The call was ended.")
        return outcome

    return ask


def _required(session: Session | None) -> Session:
    if session is None:
        raise InvalidRequest("A subscription belongs to a session: initialize, and send Mcp-Session-Id.")
    return session


async def _unsubscribe(visit: Visit, session: Session | None, id: Any, params: Json) -> None:
    """Serve `resources/unsubscribe`, which asks nobody: giving up is always allowed."""
    uri = params.get("uri")
    if not isinstance(uri, str) or not uri:
        raise ValidationFailed("params.uri must be a string that is not empty.")
    if visit.plane.watching.unsubscribe(_required(session), uri):
        visit.note("session.unsubscribed", action=UNSUBSCRIBE, details={"uri": uri[:300]})
    await visit.reply.finish(200, result_bytes(id, b"{}"))


async def _set_level(visit: Visit, session: Session | None, id: Any, params: Json) -> None:
    level = params.get("level")
    if level not in LOG_LEVELS:
        raise ValidationFailed(f"params.level must be one of {', '.join(LOG_LEVELS)}.")
    if session is not None:
        visit.plane.shared.set_level(session, level)
    await visit.reply.finish(200, result_bytes(id, b"{}"))


async def serve_stream(visit: Visit, headers: Headers, receive: Receive) -> None:
    """Serve GET: the session's standalone stream, or the one that Last-Event-ID names. Raises SessionGone, StreamGone, Overloaded;
    MethodNotAllowed without a session, so that nobody reads it as an expired one.
    """
    session = open_session(visit, headers)
    if session is None or not visit.reply.accepts_stream:
        raise MethodNotAllowed("There is no stream without a session, and none without Accept: text/event-stream.")
    enter(visit, session, None)
    last = headers.get(b"last-event-id")
    with visit.plane.streams.place(visit.caller):
        if last:
            await take_up(visit, session, last, receive)
        else:
            await serve_standalone(visit, session, receive)


async def end_session(visit: Visit, headers: Headers, send: Any) -> None:
    """Serve DELETE: end the session. Raises SessionGone."""
    session = open_session(visit, headers)
    if session is None:
        raise MethodNotAllowed("There is no session to end: Mcp-Session-Id is missing.")
    visit.plane.shared.end(session)
    visit.session = session.sid
    visit.note("session.ended")
    await send_empty(send, 204)
