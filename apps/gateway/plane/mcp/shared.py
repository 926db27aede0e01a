"""What processes tell each other of sessions of the initialize era: ended, log levels, cancelled calls, answers, subscriptions.

A session's token says who it is, so any process serves any request of it; this is the little that is not in the token.
"""

import asyncio
import hashlib
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from apps.common.background import Background
from apps.common.errors import SwitchyardError
from apps.common.jsontext import dumps
from apps.gateway.plane.call import Json
from apps.gateway.plane.mcp.lives import LeftBehind
from apps.gateway.plane.mcp.session import Session
from apps.gateway.plane.mcp.watching import declare
from apps.gateway.plane.upstreams import user_of_name
from apps.servers.transports.base import Upstream, UpstreamRequest

if TYPE_CHECKING:
    from apps.gateway.plane.plane import Plane

ROOTS_CHANGED = "notifications/roots/list_changed"
SETTLE = 0.05
"""Seconds in which several notices of a client's become one."""
TELL_SECONDS = 10.0
_pack, _unpack = msgspec.msgpack.encode, msgspec.msgpack.decode


def _field(uri: str) -> str:
    return hashlib.sha256(uri.encode()).hexdigest()[:32]


class SharedSessions:
    """This process's part of it. On one node everything stays in memory: the bus of one process says and keeps nothing."""

    def __init__(self, plane: "Plane") -> None:
        self._plane = plane
        self._bus = plane.bus
        self._background = Background()
        self._telling: set[tuple[str, str]] = set()
        self._bus.on("ended", self._take_ended)
        self._bus.on("level", self._take_level)
        self._bus.on("cancel", self._take_cancel)
        self._bus.on("answer", self._take_answer)
        self._bus.on("watched", self._take_watched)
        self._bus.on("roots", self._take_roots)
        self._bus.on_reset(lambda: self._background.start(self._reload()))

    def end(self, session: Session) -> None:
        """A session was ended by its client: nobody serves it any more."""
        self._forget(session.sid, session.expires, session.principal)
        ended = _pack((session.expires, session.principal))
        self._bus.put("ended", session.sid, ended, session.expires - int(time.time()))
        self._bus.drop("level", session.sid)
        self._bus.drop("watched", session.sid)
        self._bus.tell("ended", _pack((session.sid, session.expires, session.principal)))

    def left_behind(self) -> LeftBehind | None:
        """Return what the next life of this process has to know of its sessions, where it is the only one."""
        seconds = self._plane.config.session_seconds
        levels = dict.fromkeys(self._plane.live.levels, int(time.time()) + seconds)
        return self._plane.sessions.leave({**levels, **self._plane.watching.living()}, seconds)

    def set_level(self, session: Session, level: str) -> None:
        """A client chose the log messages that it gets in its session."""
        self._plane.live.levels.set(session.sid, level, session.principal)
        chosen = _pack((level, session.principal))
        self._bus.put("level", session.sid, chosen, session.expires - int(time.time()))
        self._bus.tell("level", _pack((session.sid, level, session.principal)))

    def cancel(self, owner: str, request_id: Any) -> None:
        """A client cancelled a call of its own."""
        if not self._plane.live.cancel(owner, request_id):
            self._bus.tell("cancel", dumps([owner, request_id]))

    def answer(self, owner: str, message: Json) -> bool:
        """A client answered a server's request; the process that asked is named in the request's id.

        False when nobody waits for it: it was answered, taken back, or is not this session's.
        """
        if self._plane.asking.answer(owner, message):
            return True
        worker = self._plane.asking.worker_of(message.get("id"))
        if worker is None or worker == self._bus.worker or self._bus.alone:
            return False
        self._bus.tell("answer", dumps([owner, message]), worker)
        return True

    def watched(self, session: Session, uri: str, server_id: str, caller: str) -> None:
        """A session has subscribed to a resource, or unsubscribed (no server)."""
        if server_id:
            value = _pack((uri, server_id, caller))
            self._bus.put_in("watched", session.sid, _field(uri), value, session.expires - int(time.time()))
        else:
            self._bus.drop_from("watched", session.sid, _field(uri))
        self._bus.tell("watched", _pack((session.sid, uri, server_id, caller)))

    async def subscriptions(self, sid: str) -> dict[str, tuple[str, str]]:
        """Return what a session has subscribed to in all processes: URI → server, and whose session it is there."""
        kept = await self._bus.within("watched", sid)
        rows = [_unpack(value, type=tuple[str, str, str]) for value in kept.values()]
        return {uri: (server_id, caller) for uri, server_id, caller in rows}

    def roots_changed(self, session: Session, caller: str, server_ids: list[str]) -> None:
        """A client's roots are others: tell the servers at which it has a session, once for all notices of the same moment."""
        self._tell_roots(session.sid, caller, session.capabilities, server_ids)
        self._bus.tell("roots", dumps([session.sid, caller, session.capabilities, server_ids]))

    def _tell_roots(self, sid: str, caller: str, capabilities: Json, server_ids: list[str]) -> None:
        for server_id in server_ids:
            upstream = self._plane.upstreams.current(server_id) or self._plane.upstreams.current(
                server_id, user_of_name(self._plane.store.current, caller)
            )
            if upstream is not None and (sid, server_id) not in self._telling:
                self._telling.add((sid, server_id))
                self._background.start(self._tell_one(upstream, sid, caller, capabilities, server_id))

    async def _tell_one(self, upstream: Upstream, sid: str, caller: str, capabilities: Json, server_id: str) -> None:
        await asyncio.sleep(SETTLE)
        self._telling.discard((sid, server_id))
        request = UpstreamRequest(ROOTS_CHANGED, {}, caller=caller, session=sid)
        declare(request, capabilities)
        with suppress(SwitchyardError, TimeoutError):
            async with asyncio.timeout(TELL_SECONDS):
                await upstream.notify(ROOTS_CHANGED, None, request)

    def _take_roots(self, _: str, message: bytes) -> None:
        self._tell_roots(*msgspec.json.decode(message))

    def _forget(self, sid: str, expires: int, principal: str) -> None:
        self._plane.sessions.end(sid, expires, principal)
        self._plane.watching.end(sid)
        self._plane.streams.end_session(sid)
        self._plane.waits.end_session(sid)
        self._plane.live.levels.drop(sid)
        self._background.start(self._plane.replays.drop(sid))

    def _take_ended(self, _: str, message: bytes) -> None:
        self._forget(*_unpack(message, type=tuple[str, int, str]))

    def _take_level(self, _: str, message: bytes) -> None:
        self._plane.live.levels.set(*_unpack(message, type=tuple[str, str, str]))

    def _take_cancel(self, _: str, message: bytes) -> None:
        owner, request_id = msgspec.json.decode(message)
        self._plane.live.cancel(owner, request_id)

    def _take_answer(self, _: str, message: bytes) -> None:
        owner, said = msgspec.json.decode(message)
        self._plane.asking.answer(owner, said)

    def _take_watched(self, _: str, message: bytes) -> None:
        self._plane.watching.learn(*_unpack(message, type=tuple[str, str, str, str]))

    async def _reload(self) -> None:
        """Learn what was said while this process did not listen."""
        for sid, ended in (await self._bus.every("ended")).items():
            self._forget(sid, *_unpack(ended, type=tuple[int, str]))
        for sid, chosen in (await self._bus.every("level")).items():
            self._plane.live.levels.set(sid, *_unpack(chosen, type=tuple[str, str]))
        self._plane.watching.reload()
