"""Streamable HTTP upstream of either era: finds out which one the endpoint speaks, and follows it when that changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from apps.common.errors import (
    AddressRefused,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from apps.servers.domain import LEGACY_REVISIONS, EndpointFacts, Secrets, ServerFacts
from apps.servers.transports.announcements import Announcements, reconnect
from apps.servers.transports.authorized import Http
from apps.servers.transports.base import Description, Json, UpstreamAnswer, UpstreamEvents, UpstreamRequest
from apps.servers.transports.callers import Callers, Standing
from apps.servers.transports.calls import Calls
from apps.servers.transports.era import DUAL, LEGACY, MODERN, era_of_discover, identity, order, supported_versions
from apps.servers.transports.everything import EVERYTHING, EVERYTHING_MODERN, Seen
from apps.servers.transports.http_legacy import LegacyHttp, LegacySession, ModernOnly
from apps.servers.transports.http_modern import ModernHttp, NotModern
from apps.servers.transports.http_wire import HttpWire
from apps.servers.transports.watching import Watched, refusal
from apps.servers.transports.wire import LATEST_LEGACY, LATEST_MODERN, UNSUPPORTED_VERSION, error_in

PROBE_SECONDS = 30.0
REPROBE_SECONDS = 30.0
"""A modern endpoint that answers like an old one is asked anew at most this often."""


class HttpUpstream:
    """A Streamable HTTP server. Calls run side by side; in the initialize era each caller has a session of their own."""

    def __init__(
        self,
        server: ServerFacts,
        endpoint: EndpointFacts,
        secrets: Secrets,
        events: UpstreamEvents,
        http: Http,
        *,
        owns_http: bool,
        capabilities: Json,
    ) -> None:
        self._server = server
        self._endpoint = endpoint
        self._events = events
        self._http = http
        self._owns_http = owns_http
        self._announcements = Announcements(server.id, events)
        self._wire = HttpWire(endpoint.url, secrets, http)
        self._modern = ModernHttp(self._wire)
        self._watched = Watched(self._announcements)
        self._legacy = LegacyHttp(self._wire, self._announcements, capabilities, self._watched)
        self._callers: Callers[LegacyHttp] = Callers(
            lambda place, declared: LegacyHttp(self._wire, Announcements(server.id, events, place), declared or capabilities),
            LegacyHttp.end,
            server.idle_seconds,
        )
        self._standing = Standing(self._callers, LegacyHttp.follow, lambda legacy: legacy.watching)
        self._era = endpoint.era if endpoint.era in {MODERN, LEGACY, DUAL} else ""
        self._era_lock = asyncio.Lock()
        self._reprobe_at = 0.0
        self._calls = Calls()
        self.seen = Seen()
        self._listeners: set[asyncio.Task[None]] = set()
        self._alone = False
        """The server has listed its revisions in a refusal, and none of the initialize era is among them."""
        self._silent = False
        """The server refused the stream that changes come on."""
        self._reaper: asyncio.TimerHandle | None = None

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Send a request and return its answer; see Upstream."""
        limit = self._calls.begin(request)
        try:
            with limit:
                era = self._era or await self._find_era()
                if era == LEGACY or (era == DUAL and request.era == LEGACY):
                    return await self._call_legacy(request)
                try:
                    return await self._modern.call(request)
                except NotModern as refused:
                    return await self._after_refusal(request, refused)
        except TimeoutError:
            raise self._calls.expired(request) from None
        finally:
            self._calls.end(limit)

    async def _call_legacy(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Call in the initialize era; when the server has left it, in the modern one."""
        try:
            return await self._in_session(request)
        except ModernOnly:
            if await self._find_era(self._era) == LEGACY:
                raise UpstreamProtocolError("The server refuses both the handshake and requests without one.") from None
        try:
            return await self._modern.call(request)
        except NotModern as refused:
            raise _no_answer(refused) from None

    async def _in_session(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Call in the caller's session, or in our own."""
        if not request.caller:
            self._plan_reaping()
            return await self._legacy.call(request)
        with self._callers.use(request.caller, request.declared) as legacy:
            return await legacy.call(request)

    async def _after_refusal(self, request: UpstreamRequest, refused: NotModern) -> UpstreamAnswer:
        """A modern request was refused as old servers do: look again which era this is, at most every 30 s."""
        now = asyncio.get_running_loop().time()
        if now >= self._reprobe_at:
            self._reprobe_at = now + REPROBE_SECONDS
            if await self._find_era(self._era) == LEGACY:
                return await self._in_session(request)
        error = error_in(refused.message)
        if error is not None:
            return UpstreamAnswer(None, error, LATEST_MODERN, 0)
        raise _no_answer(refused)

    async def _find_era(self, known: str = "") -> str:
        """Ask the server for its era, once for all callers, and report it; `known` is what turned out to be wrong.

        An outage raises and decides nothing. The legacy era is believed after a handshake only.
        """
        async with self._era_lock:
            if self._era and self._era != known:
                return self._era
            era, revisions, _ = await self._probe()
            if era == MODERN and known == DUAL:
                era = DUAL
            if era == LEGACY:
                try:
                    revisions = ((await self._legacy.session()).revision,)
                except ModernOnly:
                    raise UpstreamProtocolError("The server refuses both the handshake and requests without one.") from None
            self._settle(era, revisions)
            return era

    async def _probe(self, capabilities: Json | None = None) -> tuple[str, tuple[str, ...], Json]:
        """Send `server/discover`, declaring `capabilities`; return era, revisions and the result."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                status, message = await self._modern.discover(PROBE_SECONDS, capabilities)
                self._alone = _takes_ours(message)
                if self._alone:
                    status, message = await self._modern.discover(PROBE_SECONDS, capabilities)
        except TimeoutError:
            raise UpstreamTimeout("The server did not answer the question for its revision in time.") from None
        era = era_of_discover(message)
        result: Json = (message.get("result") or {}) if status == 200 and type(message) is dict else {}
        return era, supported_versions(result) or (LATEST_MODERN,), result

    def _settle(self, era: str, revisions: tuple[str, ...]) -> None:
        """Remember the era and report it."""
        self._era = era
        self._events.era_found(self._endpoint.id, era, revisions)

    async def describe(self, *, survey: bool = False) -> Description:
        """Ask for everything anew; see Upstream.

        A modern server is also offered the handshake, since `server/discover` does not say whether it takes one; one that is known not
        to take it only with `survey`. Then a server that takes it is offered each older revision too. Sessions made for that are ended
        at once.
        """
        if self._calls.closed:
            raise UpstreamUnavailable("The connection to the server is closed.")
        known = self._era
        era, revisions, result = await self._probe(EVERYTHING_MODERN)
        spoken = set(revisions) if era != LEGACY else set()
        modern = era != LEGACY
        session = None
        if not modern or (not self._alone and (survey or known != MODERN)):
            session = await self._try_handshake(LATEST_LEGACY, needed=not modern, beside_modern=modern)
        if session is not None:
            spoken.add(session.revision)
            if survey:
                spoken |= await self._older(session.revision, spoken, beside_modern=modern)
            era = DUAL if era != LEGACY else LEGACY
            result = result or session.result
        if not result:
            raise UpstreamProtocolError("The server did not describe itself.")
        self._settle(era, order(spoken))
        return Description(era, order(spoken), *identity(result), surveyed=survey or era == MODERN)

    async def _older(self, newest: str, spoken: set[str], *, beside_modern: bool) -> set[str]:
        """Return the revisions with the handshake, before `newest`, that the server takes."""
        found = set()
        for revision in LEGACY_REVISIONS:
            if revision < newest and revision != "2024-11-05" and revision not in spoken:
                older = await self._try_handshake(revision, needed=False, beside_modern=beside_modern)
                if older is not None:
                    found.add(older.revision)
        return found

    async def _try_handshake(self, revision: str, *, needed: bool, beside_modern: bool) -> LegacySession | None:
        """Initialize and end a session; None when the server will not (an error instead when it is `needed`)."""
        try:
            session = await self._legacy.initialize(revision, beside_modern=beside_modern, capabilities=EVERYTHING)
        except ModernOnly:
            if needed:
                raise UpstreamProtocolError("The server refuses both the handshake and requests without one.") from None
            return None
        except UpstreamError:
            if needed:
                raise
            return None
        await self._legacy.end(session)
        return session

    @asynccontextmanager
    async def everything(self, events: UpstreamEvents) -> AsyncIterator[tuple[LegacyHttp, Json]]:
        """Open a session that declares everything; see Upstream."""
        legacy = LegacyHttp(self._wire, Announcements(self._server.id, events), EVERYTHING)
        try:
            yield legacy, identity((await legacy.session()).result)[1]
        except ModernOnly:
            raise UpstreamProtocolError("The server has left the initialize era.") from None
        finally:
            with suppress(UpstreamError, AddressRefused):
                await legacy.end()

    async def watch(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Ask for updates of a resource, or no more of them; see Upstream."""
        limit = self._calls.begin(request)
        try:
            with limit:
                era = self._era or await self._find_era()
                if era == LEGACY:
                    return await self._watch_legacy(request)
                if self._silent:
                    return refusal("The server tells of no changes.")
                return await self._watched.put(request)
        except ModernOnly:
            raise UpstreamUnavailable("The server has left the initialize era; try again.") from None
        except TimeoutError:
            raise self._calls.expired(request) from None
        finally:
            self._calls.end(limit)

    async def _watch_legacy(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Subscribe in the caller's session, or in our own."""
        if not request.caller:
            return await self._legacy.watch(request)
        return await self._standing.watch(request, lambda legacy: legacy.watch(request))

    async def notify(self, method: str, params: Json | None = None, request: UpstreamRequest | None = None) -> None:
        """Send a notification in the session, if there is one; the modern era has none for servers."""
        session = self._legacy if request is None else self._callers.kept(request.caller, request.declared)
        if session is not None and self._era != MODERN and not self._calls.closed:
            await session.notify(method, params)

    async def listen(self) -> None:
        """Follow the server's announcements, reconnecting with growing pauses; see Upstream."""
        if self._calls.closed:
            return
        task = asyncio.get_running_loop().create_task(self._follow())
        self._listeners.add(task)
        try:
            await asyncio.wait({task})
        finally:
            self._listeners.discard(task)
            task.cancel()
        if not task.cancelled():
            task.result()

    async def _follow(self) -> None:
        """Keep one stream of announcements open."""
        missed = False

        def opened() -> None:
            nonlocal missed
            if missed:
                missed = False
                self._announcements.everything()
                self._watched.missed()

        async def attempt() -> bool:
            nonlocal missed
            try:
                era = self._era or await self._find_era()
                if era == LEGACY:
                    follow = self._legacy.listen(opened)
                else:
                    follow = self._modern.listen(self._announcements, self._watched, opened)
                if not await follow:
                    self._silent = True
                    self._watched.refused()
                    return False
            except (UpstreamError, AddressRefused, NotModern, ModernOnly):
                self._watched.failed("The server's stream of changes cannot be opened.")
            missed = True
            return True

        await reconnect(attempt)

    def _plan_reaping(self) -> None:
        """End the session when nobody has used it for the server's idle time."""
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(self._server.idle_seconds, self._reap)

    def _reap(self) -> None:
        """End an idle session, or look again later."""
        self._reaper = None
        loop = asyncio.get_running_loop()
        left = self._server.idle_seconds - (loop.time() - self._calls.last_end)
        if self._calls.closed:
            return
        if self._calls.in_flight or self._listeners or left > 0:
            self._reaper = loop.call_later(max(left, 1.0), self._reap)
        else:
            self._wire.background(self._legacy.end())

    async def aclose(self, reason: str = "stopped") -> None:
        """End calls, streams and the session."""
        if self._calls.closed:
            return
        self._calls.close()
        if self._reaper is not None:
            self._reaper.cancel()
        listeners = list(self._listeners)
        for task in listeners:
            task.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
        await self._calls.drained()
        await self._standing.aclose()
        await self._callers.aclose()
        with suppress(UpstreamError, AddressRefused):
            await self._legacy.end()
        await self._wire.aclose()
        if self._owns_http:
            await self._http.aclose()

    def stats(self) -> Json:
        """Return `in_flight`, `calls`, and the `sessions` of callers."""
        return {"in_flight": self._calls.in_flight, "calls": self._calls.total, "sessions": len(self._callers)}


def _takes_ours(message: Any) -> bool:
    """Tell whether a server has refused our revision and named it as one that it speaks, and none of the initialize era: then it is
    asked again.
    """
    error = error_in(message)
    data = error.get("data") if error is not None and error["code"] == UNSUPPORTED_VERSION else None
    supported = data.get("supported") if type(data) is dict else None
    return type(supported) is list and LATEST_MODERN in supported and not any(one in LEGACY_REVISIONS for one in supported)


def _no_answer(refused: NotModern) -> UpstreamProtocolError:
    """Return the error for a refusal without a JSON-RPC error."""
    return UpstreamProtocolError(f"The server answered HTTP {refused.status} and no JSON-RPC error.")
