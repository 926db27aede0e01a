"""Where the POSTs of the HTTP+SSE transport go: to the session that the address names, in this process or in the one that has it."""

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from apps.common.clock import now_us
from apps.common.errors import AuthenticationRequired, InvalidRequest
from apps.common.jsontext import dumps
from apps.gateway.plane.jsonrpc import parse
from apps.gateway.plane.mcp.session import Session, SessionGone
from apps.gateway.plane.mcp.sse import Channel
from apps.gateway.plane.mcp.visit import Visit
from apps.gateway.plane.views import current_caller, find_target

if TYPE_CHECKING:
    from apps.gateway.plane.plane import Plane

WORKER = 8
"""Characters of a process's name, before the sealed session."""
ASK_SECONDS = 4.0
_PARSE_ON_LOOP = 256 * 1024
_POST = tuple[str, str, int, bytes]
_GONE = "The session has ended with its stream; connect again."


class DistantChannel:
    """A session whose stream another process has."""

    def __init__(self, worker: str, session: Session) -> None:
        self.session = session
        self._worker = worker

    async def take(self, visit: Visit, message: Any) -> None:
        """Bring what was POSTed there, and answer 202. Raises what `Channel.take` does, and SessionGone."""
        posted = msgspec.msgpack.encode((self.session.sid, visit.address, visit.size, dumps(message)))
        if await visit.plane.questions.ask(self._worker, "sse.post", posted, ASK_SECONDS) is None:
            raise SessionGone(_GONE)
        await visit.reply.accept()


def find_channel(visit: Visit, query: bytes) -> Channel | DistantChannel:
    """Return the session that a POST names. Raises InvalidRequest, SessionGone."""
    try:
        named = parse_qs(query.decode("ascii"), max_num_fields=8).get("session_id", [""])[-1]
    except ValueError:
        named = ""
    if not named:
        raise InvalidRequest("POST to the address that the event `endpoint` names: session_id is missing.")
    plane, worker = visit.plane, named[:WORKER]
    session = plane.sessions.open(named[WORKER:], principal=visit.caller.principal.id, toolset=visit.path)
    if worker != plane.bus.worker and not plane.bus.alone:
        return DistantChannel(worker, session)
    channel = plane.channels.get(session.sid)
    if channel is None:
        raise SessionGone(_GONE)
    return channel


def answer_posts(plane: "Plane") -> None:
    """Take the POSTs that reach other processes for sessions of this one."""

    async def take(_: str, posted: bytes) -> bytes:
        sid, address, size, raw = msgspec.msgpack.decode(posted, type=_POST)
        channel = plane.channels.get(sid)
        if channel is None:
            raise SessionGone(_GONE)
        message = parse(raw) if len(raw) <= _PARSE_ON_LOOP else await asyncio.to_thread(parse, raw)
        snapshot, key = plane.store.current, channel.caller.key
        caller = current_caller(snapshot, channel.caller)
        if caller is None or (key is not None and key.expires_us is not None and key.expires_us <= now_us()):
            raise AuthenticationRequired("The API key was revoked or has expired meanwhile.")
        target = find_target(snapshot, caller, channel.slug)
        visit = Visit(plane, snapshot, caller, target, channel.part(), address=address, size=size)
        await channel.take(visit, message)
        return b""

    plane.questions.answer("sse.post", take)
