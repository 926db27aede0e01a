"""The doors `/mcp` and `/sse`, each with or without a toolset: outside checks, credential, body, era; then the front of that era."""

import asyncio
from typing import TYPE_CHECKING, Any

from apps.common.errors import (
    AuditUnavailable,
    AuthenticationRequired,
    InvalidRequest,
    MethodNotAllowed,
    MethodNotFound,
    NotReady,
    SwitchyardError,
    UnsupportedMediaType,
)
from apps.common.jsontext import dumps
from apps.gateway.plane.http import ClientGone, Headers, Receive, Scope, Send, read_body, send_empty, send_json
from apps.gateway.plane.jsonrpc import error_of, parse, valid_id
from apps.gateway.plane.log import log_defect
from apps.gateway.plane.mcp.batches import serve_batch
from apps.gateway.plane.mcp.legacy import end_session, serve_legacy, serve_stream
from apps.gateway.plane.mcp.modern import serve_modern
from apps.gateway.plane.mcp.revisions import META_VERSION, MODERN, STATUS_OF_CODE
from apps.gateway.plane.mcp.sse import Channel, SseReply, serve_sse
from apps.gateway.plane.mcp.sseposts import DistantChannel, find_channel
from apps.gateway.plane.mcp.visit import Visit
from apps.gateway.plane.reply import Reply
from apps.gateway.plane.snapshot import Caller
from apps.gateway.plane.views import find_target

if TYPE_CHECKING:
    from apps.gateway.plane.plane import Plane

_METHODS = b"POST, GET, DELETE, OPTIONS"
_POST = b"POST"
_OWN_STATUS = frozenset((401, 403, 404, 405, 413, 415, 429, 503))
"""Statuses that say more than the one of the JSON-RPC code."""
_PARSE_ON_LOOP = 256 * 1024


async def serve_mcp(
    plane: "Plane", slug: str, scope: Scope, receive: Receive, send: Send, *, sse: bool = False, posted: bool = False
) -> None:
    """Serve one HTTP request to `/mcp` or `/mcp/<slug>`; with `sse` to `/sse`, with `posted` to where its messages go."""
    id: Any = None
    asked = Headers(scope["headers"])
    address, passed_on = plane.guard.address(scope, asked)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    reply: Reply | None = None
    caller: Caller | None = None
    visit: Visit | None = None
    message: Any = None
    channel: Channel | DistantChannel | None = None
    try:
        headers = plane.guard.check(asked)
        method = scope["method"]
        if method == "OPTIONS":
            await _preflight(send, headers)
            return
        if method not in ("POST", "GET", "DELETE"):
            raise MethodNotAllowed(f"{method[:20]} is not served here; send messages by POST.")
        if not plane.store.ready:
            raise NotReady("Switchyard is starting; try again in a moment.", retry_after=1)
        snapshot, caller = await plane.auth.authenticate(asked, address, passed_on)
        target = find_target(snapshot, caller, slug)
        accept = asked.get(b"accept") or ""
        reply = (SseReply if sse else Reply)(send, accepts_stream="text/event-stream" in accept, headers=headers)
        visit = Visit(plane, snapshot, caller, target, reply, address=address, size=0)
        if sse:
            if method == "GET":
                await serve_sse(visit, receive)
                return
            if method != "POST" or not posted:
                raise MethodNotAllowed("GET opens the event stream; its first event names the address to POST to.", allow="GET")
            channel = find_channel(visit, scope["query_string"])
        elif method != "POST":
            if asked.get(b"mcp-protocol-version") == MODERN:
                raise MethodNotAllowed(f"{MODERN} has POST alone.")
            if method == "GET":
                await serve_stream(visit, asked, receive)
            else:
                await end_session(visit, asked, send)
            return
        content_type = (asked.get(b"content-type") or "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise UnsupportedMediaType("Send the message as Content-Type: application/json.")
        body = await read_body(asked, receive, plane.config.body_bytes, plane.config.body_seconds)
        visit.size = len(body)
        if plane.store.current is not snapshot or (caller.key is not None and caller.key.expires_us is not None):
            # what was taken away while the body was on its way is no longer there
            snapshot, caller = await plane.auth.authenticate(asked, address, passed_on)
            visit.renew(snapshot, caller, find_target(snapshot, caller, slug))
        message = parse(body) if len(body) <= _PARSE_ON_LOOP else await asyncio.to_thread(parse, body)
        if plane.tap is not None:
            plane.tap.received(visit, message, asked, channel.session.sid if channel is not None else None)
        if channel is not None:
            await channel.take(visit, message)
            return
        if not isinstance(message, dict):
            if not isinstance(message, list):
                raise InvalidRequest("The message must be an object.")
            if asked.get(b"mcp-protocol-version") == MODERN:
                raise InvalidRequest("Batches are not accepted here; send one message per request.")
            await serve_batch(visit, message, asked)
            return
        id = message.get("id")
        if not valid_id(id):
            id = None
        if message.get("jsonrpc") != "2.0":
            raise InvalidRequest('jsonrpc must be "2.0".')
        if _is_modern(asked, message):
            await serve_modern(visit, message, asked, receive)
        else:
            await serve_legacy(visit, message, asked, receive)
    except ClientGone:
        return
    except SwitchyardError as error:
        if visit is not None:
            visit.refused(message, error)
        else:
            plane.refusals.note(error, address, scope["path"], caller)
        await _answer_error(send, reply, id, error, headers, modern=asked.get(b"mcp-protocol-version") == MODERN)
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - one bad request must not cost the next one its answer
        log_defect("front", error, path=scope["path"])
        defect = SwitchyardError("Switchyard failed on this request. Nothing was sent to a server after the failure.")
        await _answer_error(send, reply, id, defect, headers, modern=True)
    finally:
        if reply is not None:
            reply.visit = None  # they hold each other


def _is_modern(asked: Headers, message: dict[str, Any]) -> bool:
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    if isinstance(meta, dict) and META_VERSION in meta:
        return True
    return asked.get(b"mcp-protocol-version") == MODERN and message.get("method") != "initialize"


async def _preflight(send: Send, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    if not headers:
        await send_empty(send, 405, ((b"allow", _METHODS),))
        return
    allowed = b"authorization, content-type, accept, mcp-protocol-version, mcp-session-id, mcp-method, mcp-name, last-event-id"
    await send_empty(
        send,
        204,
        (
            *headers,
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", allowed),
            (b"access-control-max-age", b"600"),
        ),
    )


async def _answer_error(
    send: Send, reply: Reply | None, id: Any, error: SwitchyardError, headers: tuple[tuple[bytes, bytes], ...], *, modern: bool
) -> None:
    code, message, data = error_of(error)
    extra: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, AuthenticationRequired):
        extra = ((b"www-authenticate", b'Bearer realm="switchyard", error="invalid_token"'),)
    if isinstance(error, (AuditUnavailable, NotReady)) or "retry_after" in error.extra:
        extra = (*extra, (b"retry-after", str(error.extra.get("retry_after", 1)).encode()))
    if isinstance(error, MethodNotAllowed):
        extra = ((b"allow", error.extra.get("allow", "").encode() or (_POST if modern else _METHODS)),)
    status = error.status if error.status in _OWN_STATUS else STATUS_OF_CODE.get(code, error.status)
    if isinstance(error, MethodNotFound) and not modern:
        status = 200
    if status >= 500 and status != 503 and not modern:
        status = 200
    if error.status == 413:
        extra = (*extra, (b"connection", b"close"))
    body = dumps({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message, "data": data}})
    await _finish(send, reply, status, body, (*headers, *extra) if reply is None else extra)


async def _finish(send: Send, reply: Reply | None, status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    if reply is not None:
        await reply.finish(status, body, headers)
    else:
        await send_json(send, status, body, headers)
