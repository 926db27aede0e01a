"""The legacy front (2025-03-26 to 2025-11-25, Streamable HTTP): a handshake, a session token, one message per POST."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from apps.common.errors import InvalidRequest, MethodNotAllowed, MethodNotFound, UnsupportedRevision, ValidationFailed
from apps.common.jsontext import dumps
from apps.gateway.plane.call import Answer, Call, Json
from apps.gateway.plane.http import Headers, Receive, send_empty
from apps.gateway.plane.jsonrpc import MAX_ID, REQUEST_CANCELLED, error_bytes, result_bytes, valid_id
from apps.gateway.plane.mcp.asking import FORWARDED
from apps.gateway.plane.mcp.envelope import client_label
from apps.gateway.plane.mcp.lists import LISTS
from apps.gateway.plane.mcp.revisions import ASSUMED_LEGACY, LATEST_LEGACY, LEGACY, LOG_LEVELS, MODERN
from apps.gateway.plane.mcp.session import Session
from apps.gateway.plane.mcp.streams import Stream
from apps.gateway.plane.mcp.visit import CALLS, Visit

_SESSION = b"mcp-session-id"


class LegacyLive:
    """The little that lives of legacy sessions in this process: log levels, and calls in flight that can be cancelled."""

    def __init__(self) -> None:
        self.levels: dict[str, str] = {}
        self.running: dict[tuple[str, Any], asyncio.Task[Any]] = {}
        self.cancelled: set[asyncio.Task[Any]] = set()

    def set_level(self, sid: str, level: str) -> None:
        """Remember a session's log level; the oldest are forgotten beyond 10,000 sessions."""
        if len(self.levels) >= 10_000:
            self.levels.pop(next(iter(self.levels)))
        self.levels[sid] = level

    def cancel(self, owner: str, request_id: Any) -> None:
        """Cancel a call in flight, if it is this session's."""
        task = self.running.get((owner, request_id))
        if task is not None:
            self.cancelled.add(task)
            task.cancel()


async def serve_legacy(visit: Visit, message: Json, headers: Headers, receive: Receive) -> None:
    """Answer one legacy message. Raises SessionGone, and other typed errors for what is refused before it is a call."""
    reply, method, id = visit.reply, message.get("method"), message.get("id")
    if method is None and ("result" in message or "error" in message):
        visit.plane.asking.answer(_owner(visit, _session(visit, headers)), message)
        await reply.accept()
        return
    if not isinstance(method, str):
        raise InvalidRequest("The message has no method.")
    params = message.get("params", {})
    if not isinstance(params, dict):
        raise ValidationFailed("params must be an object.")
    if "id" in message and not valid_id(id):
        raise InvalidRequest(f"id must be an integer or a string of at most {MAX_ID} characters.")
    version = headers.get(b"mcp-protocol-version")
    if version is not None and version not in LEGACY and method != "initialize":
        raise UnsupportedRevision("Unsupported protocol version", supported=[MODERN, *LEGACY], requested=version[:100])
    if method == "initialize":
        await _initialize(visit, id, params)
        return
    session = _session(visit, headers)
    visit.revision = session.revision if session is not None else version or ASSUMED_LEGACY
    if session is not None:
        visit.client = client_label(session.client_info)
        visit.session = session.sid
    if "id" not in message:
        if method == "notifications/cancelled" and valid_id(cancelled := params.get("requestId")):
            visit.plane.live.cancel(_owner(visit, session), cancelled)
        await reply.accept()
    elif method in LISTS:
        await visit.list(id, method, params, modern=False)
    elif method in CALLS:
        await _call(visit, session, id, method, params, receive)
    elif method == "ping":
        await reply.finish(200, result_bytes(id, b"{}"))
    elif method == "logging/setLevel":
        await _set_level(visit, session, id, params)
    else:
        raise MethodNotFound(f"Method not found: {method[:100]}")


def _session(visit: Visit, headers: Headers) -> Session | None:
    token = headers.get(_SESSION)
    if token is None:
        return None
    return visit.plane.sessions.open(token, principal=visit.caller.principal.id, toolset=visit.target.slug)


def _owner(visit: Visit, session: Session | None) -> str:
    return session.sid if session is not None else f"{visit.caller.principal.id} {visit.target.slug}"


async def _initialize(visit: Visit, id: Any, params: Json) -> None:
    reply, wanted = visit.reply, params.get("protocolVersion")
    if id is None or not isinstance(wanted, str):
        raise ValidationFailed("initialize needs an id and params.protocolVersion.")
    revision = wanted if wanted in LEGACY else LATEST_LEGACY
    info, capabilities = params.get("clientInfo"), params.get("capabilities")
    visit.revision, visit.client = revision, client_label(info)
    token = visit.plane.sessions.issue(
        principal=visit.caller.principal.id,
        toolset=visit.target.slug,
        revision=revision,
        client_info=info,
        capabilities=capabilities if isinstance(capabilities, dict) else {},
        seconds=visit.plane.config.session_seconds,
    )
    visit.session = visit.plane.sessions.open(token, principal=visit.caller.principal.id, toolset=visit.target.slug).sid
    visit.note("session.initialized")
    result = visit.plane.lists.initialize(visit.snapshot, visit.caller, visit.target, revision)
    await reply.finish(200, result_bytes(id, result), ((_SESSION, token.encode()),))


async def _call(visit: Visit, session: Session | None, id: Any, method: str, params: Json, receive: Receive) -> None:
    live = visit.plane.live
    call = visit.call(method, params, modern=False)
    level = live.levels.get(session.sid) if session is not None else None
    call.log_level = level or "info"
    if session is not None:
        call.capabilities = session.capabilities
        call.client_info = session.client_info or None
        if visit.reply.accepts_stream and any(name in session.capabilities for name in FORWARDED.values()):
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
        if task not in live.cancelled:
            raise
        task.uncancel()
        answer = Answer(code=REQUEST_CANCELLED, message="The request was cancelled.", data={"call_id": call.call_id})
    finally:
        live.cancelled.discard(task)
        if live.running.get(key) is task:
            del live.running[key]
    if answer is not None:
        await visit.reply.finish(*legacy_answer(id, answer))


def _asker(visit: Visit, session: Session, call: Call) -> Callable[[Json], Awaitable[Json]]:
    """Return what answers a server's requests during a call: the client, over the call's stream."""

    async def send(message: Json) -> bool:
        return await visit.reply.event(dumps(message))

    async def ask(message: Json) -> Json:
        outcome = await visit.plane.asking.ask(session.sid, session.capabilities, message, send)
        method = message.get("method")
        visit.note(
            "call.asked",
            action=method[:40] if isinstance(method, str) else None,
            details={"call_id": call.call_id, "answered": "result" if "result" in outcome else "error"},
        )
        return outcome

    return ask


def legacy_answer(id: Any, answer: Answer) -> tuple[int, bytes]:
    """Return status and body of a call's answer."""
    if answer.result is not None:
        return 200, result_bytes(id, answer.raw)
    return answer.status, error_bytes(id, answer.code, answer.message, answer.data)


async def _set_level(visit: Visit, session: Session | None, id: Any, params: Json) -> None:
    level = params.get("level")
    if level not in LOG_LEVELS:
        raise ValidationFailed(f"params.level must be one of {', '.join(LOG_LEVELS)}.")
    if session is not None:
        visit.plane.live.set_level(session.sid, level)
    await visit.reply.finish(200, result_bytes(id, b"{}"))


async def serve_stream(visit: Visit, headers: Headers, receive: Receive) -> None:
    """Serve GET: the session's standalone stream. Raises SessionGone; MethodNotAllowed without a session, so that nobody reads it as an expired one."""
    session = _session(visit, headers)
    if session is None or not visit.reply.accepts_stream:
        raise MethodNotAllowed("There is no stream without a session, and none without Accept: text/event-stream.")
    visit.revision, visit.session = session.revision, session.sid
    visit.plane.streams.admit(visit.caller)
    await visit.reply.comment()
    stream = Stream(visit.caller, visit.target.slug, ("tools", "resources", "prompts"), visit.reply)
    await visit.plane.streams.serve(stream, visit.snapshot, visit.target, receive)
    await visit.reply.finish_stream(b"")


async def end_session(visit: Visit, headers: Headers, send: Any) -> None:
    """Serve DELETE: end the session. Raises SessionGone."""
    session = _session(visit, headers)
    if session is None:
        raise MethodNotAllowed("There is no session to end: Mcp-Session-Id is missing.")
    visit.plane.sessions.end(session)
    visit.session = session.sid
    visit.note("session.ended")
    await send_empty(send, 204)
