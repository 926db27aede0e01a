"""The resources that a session of the initialize era has subscribed to: kept while it lives, told on its standalone stream."""

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

from apps.common.background import Background
from apps.common.errors import Overloaded
from apps.gateway.plane.bus import Bus
from apps.gateway.plane.jsonrpc import METHOD_NOT_FOUND
from apps.gateway.plane.mcp.asking import refusal
from apps.gateway.plane.mcp.session import Session
from apps.gateway.plane.mcp.streams import Stream
from apps.gateway.plane.watches import Watches
from apps.servers.domain import ServerFacts
from apps.servers.transports.base import Json, UpstreamAnswer, UpstreamRequest, takes_requests
from apps.servers.transports.watching import SUBSCRIBE

if TYPE_CHECKING:
    from apps.gateway.plane.mcp.shared import SharedSessions

SESSIONS = 10_000
SHARE = 20
"""One principal may have this part of them: 500."""
EACH = 256
"""Resources that one session may watch."""
RELEASE_SECONDS = 600.0
"""Without a stream for so long, a session's subscriptions are taken back from the servers until it opens one again."""


class SessionWatches:
    """What one session watches (a `Watcher`)."""

    __slots__ = ("coming", "expires", "missed", "owner", "released", "stream", "timer", "uris")

    def __init__(self, session: Session) -> None:
        self.expires = session.expires
        self.owner = session.principal
        self.uris: dict[str, tuple[str, UpstreamRequest]] = {}
        """URI → server, and how it was asked."""
        self.coming: Counter[str] = Counter()
        """Subscriptions that are being made."""
        self.stream: Stream | None = None
        self.missed: dict[str, None] = {}
        """Updates that came while no stream was open, at most one for each resource watched."""
        self.released = False
        self.timer: asyncio.TimerHandle | None = None

    def updated(self, server_id: str, uri: str) -> None:
        """See Watcher."""
        if self.stream is not None:
            self.stream.updated(server_id, uri)
        elif len(self.missed) < EACH:
            self.missed[uri] = None


class LegacyWatches:
    """All sessions' subscriptions in this process. Where there are several processes, `shared` tells them of each other's; the one
    that has a session's stream watches all of them.
    """

    def __init__(self, watches: Watches, bus: Bus) -> None:
        self._watches = watches
        self._bus = bus
        self.shared: SharedSessions | None = None
        self._sessions: dict[str, SessionWatches] = {}
        self._of_owner: Counter[str] = Counter()
        self._streams: dict[str, tuple[Session, Stream]] = {}
        """The open stream of each session that has one."""
        self._background = Background()

    async def subscribe(self, session: Session, facts: ServerFacts, request: UpstreamRequest) -> UpstreamAnswer:
        """Watch a resource for a session. Raises Overloaded when it has too many, and the UpstreamError family."""
        mine = self._sessions.get(session.sid) or self._begin(session)
        uri = str(request.params["uri"])
        if len({*mine.uris, *mine.coming, uri}) > EACH:
            raise Overloaded(f"This session watches {EACH} resources, the most one may. Unsubscribe from some.", rule="watched")
        mine.coming[uri] += 1
        try:
            answer = await self._watches.add(facts, request, mine)
        finally:
            mine.coming[uri] -= 1
            if not mine.coming[uri]:
                del mine.coming[uri]
        if answer.error is not None:
            return answer
        if self._sessions.get(session.sid) is mine:
            mine.uris[uri] = (facts.id, request)
            if self.shared is not None:
                self.shared.watched(session, uri, facts.id, request.caller)
        else:
            self._watches.drop(facts.id, uri, mine)  # the session ended meanwhile
        return answer

    def unsubscribe(self, session: Session, uri: str) -> bool:
        """Watch a resource no more; False when the session did not, as far as this process knows."""
        known = self._drop(session.sid, uri)
        if self.shared is not None:
            self.shared.watched(session, uri, "", "")
        return known

    def attach(self, session: Session, stream: Stream) -> None:
        """Tell of updates on this stream from now on, and of those that came while there was none."""
        self._streams[session.sid] = (session, stream)
        mine = self._sessions.get(session.sid)
        if mine is not None:
            if mine.timer is not None:
                mine.timer.cancel()
                mine.timer = None
            mine.stream = stream
            missed, mine.missed = mine.missed, {}
            for uri in missed:
                stream.updated("", uri)
            if mine.released:
                mine.released = False
                for server_id, request in mine.uris.values():
                    self._watches.restore(server_id, request, mine)
        self._load(session)

    def detach(self, sid: str, stream: Stream) -> None:
        """The stream has ended."""
        if sid in self._streams and self._streams[sid][1] is stream:
            del self._streams[sid]
        mine = self._sessions.get(sid)
        if mine is not None and mine.stream is stream:
            mine.stream = None
            mine.missed.update(stream.updates)
            self._plan_release(mine)

    def end(self, sid: str) -> None:
        """The session has ended."""
        mine = self._sessions.pop(sid, None)
        if mine is not None:
            self._of_owner[mine.owner] -= 1
            if not self._of_owner[mine.owner]:
                del self._of_owner[mine.owner]
            self._release(mine)

    def living(self) -> dict[str, int]:
        """Return the sessions that watch something here, with the time when they expire."""
        return {sid: mine.expires for sid, mine in self._sessions.items() if mine.uris}

    def learn(self, sid: str, uri: str, server_id: str, caller: str) -> None:
        """Another process has subscribed a session, or unsubscribed it (no server); of interest where its stream is."""
        if not server_id:
            self._drop(sid, uri)
        elif sid in self._streams:
            self._adopt(self._streams[sid][0], {uri: (server_id, caller)})

    def reload(self) -> None:
        """Messages of other processes may have been missed: ask what they said."""
        for session, _ in tuple(self._streams.values()):
            self._load(session)

    def _load(self, session: Session) -> None:
        if self.shared is None or self._bus.alone:
            return
        shared = self.shared

        async def load() -> None:
            self._adopt(session, await shared.subscriptions(session.sid))

        self._background.start(load())

    def _adopt(self, session: Session, uris: dict[str, tuple[str, str]]) -> None:
        """Watch what a session has subscribed to elsewhere."""
        if not uris or session.sid not in self._streams:
            return
        try:
            mine = self._sessions.get(session.sid) or self._begin(session)
        except Overloaded:
            return
        for uri, (server_id, caller) in uris.items():
            if uri not in mine.uris and len(mine.uris) < EACH:
                request = UpstreamRequest(SUBSCRIBE, {"uri": uri}, caller=caller, session=session.sid)
                declare(request, session.capabilities)
                mine.uris[uri] = (server_id, request)
                self._watches.restore(server_id, request, mine)

    def _drop(self, sid: str, uri: str) -> bool:
        mine = self._sessions.get(sid)
        known = mine.uris.pop(uri, None) if mine is not None else None
        if mine is None or known is None:
            return False
        self._watches.drop(known[0], uri, mine)
        return True

    def _plan_release(self, mine: SessionWatches) -> None:
        mine.timer = asyncio.get_running_loop().call_later(RELEASE_SECONDS, self._release_for_now, mine)

    def _release_for_now(self, mine: SessionWatches) -> None:
        mine.released = True
        self._release(mine)

    def _release(self, mine: SessionWatches) -> None:
        if mine.timer is not None:
            mine.timer.cancel()
        for uri, (server_id, _) in mine.uris.items():
            self._watches.drop(server_id, uri, mine)

    def _begin(self, session: Session) -> SessionWatches:
        now = time.time()
        for sid in [sid for sid, one in self._sessions.items() if one.expires <= now]:
            self.end(sid)
        if len(self._sessions) >= SESSIONS:
            raise Overloaded(
                "Too many sessions watch resources here. Try again later.", rule="watching-sessions", retry_after=60
            )
        if self._of_owner[session.principal] >= SESSIONS // SHARE:
            raise Overloaded("Too many sessions of this key watch resources. End some.", rule="watching-sessions-per-key")
        mine = self._sessions[session.sid] = SessionWatches(session)
        self._of_owner[mine.owner] += 1
        if session.sid in self._streams:
            mine.stream = self._streams[session.sid][1]
        else:
            self._plan_release(mine)
        return mine


def declare(request: UpstreamRequest, capabilities: Json) -> None:
    """Have a subscription made in the session in which the client's calls are made: with the capabilities that it declares."""
    request.client_capabilities = capabilities
    if takes_requests(capabilities):
        request.on_request = _ask_nobody


async def _ask_nobody(message: Json) -> Json:
    return refusal(METHOD_NOT_FOUND, "A subscription asks nothing of the client.")
