"""The old HTTP+SSE transport (revision 2024-11-05): messages go up by POST, everything comes down one event stream."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urljoin

from yarl import URL

from apps.common.errors import (
    AddressRefused,
    UpstreamDied,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTooLarge,
    UpstreamUnauthenticated,
    UpstreamUnavailable,
)
from apps.common.http import HttpResponse
from apps.common.http.check import parse_url
from apps.servers.domain import EndpointFacts, Secrets, ServerFacts
from apps.servers.transports.announcements import Announcements, Backoff
from apps.servers.transports.authorized import Http
from apps.servers.transports.base import Description, Json, UpstreamAnswer, UpstreamEvents, UpstreamRequest
from apps.servers.transports.calls import Calls
from apps.servers.transports.channel import Channel
from apps.servers.transports.era import LEGACY, identity
from apps.servers.transports.event_stream import EventStream
from apps.servers.transports.floods import Flooded, Pace, Turns
from apps.servers.transports.handshake import Agreed, agree
from apps.servers.transports.http_wire import PIECE, HttpWire, is_stream, refuse_status
from apps.servers.transports.watching import Watched
from apps.servers.transports.wire import legacy_params, notification_body, request_body, says_more

OPEN_SECONDS = 30.0
"""For the stream, the endpoint event and the handshake together."""
SMALLEST_CAP = 16 * 1024 * 1024
"""One event may always have this many bytes, more when somebody waits for a larger answer."""
PING_SECONDS = 10.0
STREAM_PACE = 64 * 1024 * 1024
"""Bytes in 10 s while no call is in flight: some late answers of the usual largest size."""


@dataclass(eq=False, slots=True)
class _Link:
    """One open event stream and the address that belongs to it."""

    response: HttpResponse
    channel: Channel
    target: "asyncio.Future[URL]"
    reader: "asyncio.Task[None] | None" = None
    agreed: Agreed | None = None
    log_level: str = ""
    opened: float = field(default_factory=lambda: asyncio.get_running_loop().time())


class SseUpstream:
    """An HTTP+SSE server; always of the initialize era. One stream carries the answers of all callers."""

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
        place: str = "",
    ) -> None:
        self._server = server
        self._endpoint = endpoint
        self._events = events
        self._http = http
        self._owns_http = owns_http
        self._capabilities = capabilities
        self._announcements = Announcements(server.id, events, place)
        self._watched = Watched(self._announcements)
        self._wire = HttpWire(endpoint.url, secrets, http)
        self._era = endpoint.era
        self._calls = Calls()
        self._link: _Link | None = None
        self._opening: asyncio.Task[_Link] | None = None
        self._lost = False
        self._listening = False
        self._changed = asyncio.Event()
        self._reaper: asyncio.TimerHandle | None = None

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Send a request and return its answer; opens the stream when there is none. See Upstream."""
        limit = self._calls.begin(request)
        link: _Link | None = None
        try:
            with limit:
                link = await self._ready()
                if request.log_level is not None and says_more(request.log_level, link.log_level):
                    await self._set_level(link, request.log_level)
                return await self._exchange(link, request)
        except TimeoutError:
            if link is not None and not self._calls.closed:
                self._wire.background(self._verify(link))
            raise self._calls.expired(request) from None
        finally:
            self._calls.end(limit)
            self._plan_reaping()

    async def _exchange(self, link: _Link, request: UpstreamRequest) -> UpstreamAnswer:
        """One request: POST it, wait for its answer on the stream."""
        channel = link.channel
        revision = link.agreed.revision if link.agreed is not None else ""
        id = channel.next_id()
        pending = channel.open(id, request, revision)
        try:
            await self._post(link, request_body(id, request.method, legacy_params(request, id)), request)
            return await channel.wait(pending)
        except asyncio.CancelledError:
            if request.sent and not pending.settled:
                notice = notification_body("notifications/cancelled", {"requestId": id})
                self._wire.notice(lambda: self._post(link, notice), len(notice))
            raise
        finally:
            channel.close(pending)

    async def _set_level(self, link: _Link, level: str) -> None:
        """Ask for log messages; the level belongs to the whole stream."""
        link.log_level = level
        if link.agreed is not None and "logging" in identity(link.agreed.result)[1]:
            await self._exchange(link, UpstreamRequest("logging/setLevel", {"level": level}))

    async def _post(self, link: _Link, body: bytes, request: UpstreamRequest | None = None) -> None:
        """POST one message to the address that the stream named; a refusal raises."""
        target = link.target.result()
        if request is not None:
            request.sent = True
        try:
            response = await self._http.request("POST", target, headers=self._wire.headers, body=body)
        except (UpstreamUnavailable, UpstreamUnauthenticated, AddressRefused):
            if request is not None:
                request.sent = False
            raise
        refuse_status(response)
        if response.status in {400, 404, 410}:
            response.close()
            self._drop(link, UpstreamDied("The server no longer knows the stream."))
            raise UpstreamUnavailable(f"The server no longer knows the stream (HTTP {response.status}).")
        if response.status >= 300:
            response.close()
            raise UpstreamProtocolError(f"The server answered a message with HTTP {response.status}.")
        await response.read(65_536)

    def _send(self, link: _Link, body: bytes) -> None:
        """POST a message of the handshake, whose answer comes on the stream."""
        self._wire.background(self._post(link, body))

    def _reply(self, link: _Link, body: bytes) -> None:
        """POST the answer to a request of the server's in its turn; Flooded when too many wait for theirs."""
        self._wire.reply(lambda: self._post(link, body), len(body))

    async def _ready(self) -> _Link:
        """Return the open stream, opening it if need be; once for all who ask."""
        link = self._link
        if link is not None and link.agreed is not None and link.channel.ended is None:
            return link
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
            self._opening.add_done_callback(self._opened)
        try:
            return await asyncio.shield(self._opening)
        except asyncio.CancelledError:
            if self._calls.closed:
                raise UpstreamDied("The connection to the server was closed during the call.") from None
            raise

    def _opened(self, task: asyncio.Task[_Link]) -> None:
        """Forget the opening, successful or not."""
        self._opening = None
        if not task.cancelled():
            task.exception()

    async def _open(self) -> _Link:
        """Open the stream, learn the address, do the handshake."""
        headers = self._wire.headers.changed({"Accept": "text/event-stream"}, without=("Content-Type",))
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                response = await self._http.request("GET", self._wire.url, headers=headers)
                refuse_status(response)
                if response.status != 200 or not is_stream(response):
                    response.close()
                    raise UpstreamProtocolError(f"The server answered HTTP {response.status} and no event stream.")
                link = self._make(response)
                try:
                    await asyncio.shield(link.target)
                    send = lambda body: self._send(link, body)  # noqa: E731
                    link.agreed = await agree(link.channel, send, self._capabilities, legacy_first=True)
                    if link.agreed.era != LEGACY:
                        raise UpstreamProtocolError("The server refused the handshake.")
                except BaseException:
                    self._drop(link, UpstreamDied("The stream was closed."))
                    raise
        except TimeoutError:
            raise UpstreamUnavailable(f"The server did not open its stream within {OPEN_SECONDS:g} s.") from None
        self._link = link
        if self._era != LEGACY:
            self._era = LEGACY
            self._events.era_found(self._endpoint.id, LEGACY, link.agreed.revisions)
        if self._watched:
            self._wire.background(self._watched.again(partial(self._exchange, link)))
        if self._lost:
            self._lost = False
            self._announcements.everything()
        return link

    def _make(self, response: HttpResponse) -> _Link:
        """Start reading a stream."""
        loop = asyncio.get_running_loop()
        link: _Link
        channel = Channel(lambda body: self._reply(link, body), self._announcements)
        link = _Link(response, channel, loop.create_future())
        link.reader = loop.create_task(self._read(link))
        return link

    async def _read(self, link: _Link) -> None:
        """Read the stream until it ends; everything in flight ends with it."""
        stream, turns = EventStream(SMALLEST_CAP), Turns()
        pace = Pace(STREAM_PACE, "messages")
        error: UpstreamError = UpstreamDied("The server ended the stream.")
        try:
            while chunk := await link.response.chunk():
                turns.begin()
                stream.limit = max(link.channel.largest, SMALLEST_CAP)
                if not link.channel.in_flight:
                    pace.spend(len(chunk))
                for start in range(0, len(chunk), PIECE):
                    await turns.give()
                    for event in stream.feed(chunk[start : start + PIECE]):
                        if event.name == "endpoint":
                            self._endpoint_event(link, event.data)
                        elif event.name == "message" and event.data:
                            await link.channel.take(event.data)
        except (UpstreamTooLarge, Flooded) as ended:
            error = ended.plain() if isinstance(ended, Flooded) else ended
            link.channel.fail([], error)
        except (UpstreamError, AddressRefused) as failure:
            error = failure if isinstance(failure, UpstreamError) else UpstreamProtocolError(failure.detail)
        finally:
            self._drop(link, error)

    def _endpoint_event(self, link: _Link, data: bytes) -> None:
        """Take the address for messages; only one on the stream's own origin is used."""
        if link.target.done():
            return
        text = urljoin(str(self._wire.url), data.decode("utf-8", "replace").strip())
        target = parse_url(text)
        if target.origin() != self._wire.url.origin():
            raise UpstreamProtocolError("The server names an address on another origin for messages, which is not used.")
        link.target.set_result(target)

    def _drop(self, link: _Link, error: UpstreamError) -> None:
        """End a stream and what waits on it."""
        if link.channel.ended is None:
            link.channel.end(error)
        if not link.target.done():
            link.target.set_exception(error)
            link.target.exception()
        if self._link is link:
            self._link = None
            self._lost = not self._calls.closed
        link.response.close()
        if link.reader is not None and link.reader is not asyncio.current_task():
            link.reader.cancel()
        self._changed.set()

    async def _verify(self, link: _Link) -> None:
        """After a call without an answer: a stream that nobody else waits on and that answers no ping is dropped."""
        if link.channel.ended is not None or link.channel.in_flight:
            return
        try:
            async with asyncio.timeout(PING_SECONDS / 2.5):
                await self._exchange(link, UpstreamRequest("ping", {}))
        except (UpstreamError, TimeoutError):
            self._drop(link, UpstreamDied("The server's stream is dead."))

    async def describe(self, *, survey: bool = False) -> Description:
        """Open a new stream if there is none, and tell what the handshake said; see Upstream."""
        if self._calls.closed:
            raise UpstreamUnavailable("The connection to the server is closed.")
        link = await self._ready()
        assert link.agreed is not None
        self._events.era_found(self._endpoint.id, LEGACY, link.agreed.revisions)
        return Description(LEGACY, link.agreed.revisions, *identity(link.agreed.result))

    @property
    def watching(self) -> bool:
        """Tell whether anything is subscribed to."""
        return bool(self._watched)

    async def watch(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Ask for updates of a resource, or no more of them; see Upstream."""
        return self._watched.note(request, await self.call(request))

    async def notify(self, method: str, params: Json | None = None) -> None:
        """Send a notification, if the stream is open."""
        link = self._link
        if link is not None and link.agreed is not None:
            await self._post(link, notification_body(method, params))

    async def listen(self) -> None:
        """Keep the stream open until closed; announcements come on it."""
        self._listening = True
        backoff = Backoff()
        try:
            while not self._calls.closed:
                self._changed.clear()
                with suppress(UpstreamError, AddressRefused):
                    link = await self._ready()
                    if link.channel.ended is None:
                        await self._changed.wait()
                    if asyncio.get_running_loop().time() - link.opened > 30.0:
                        backoff.reset()
                if not self._calls.closed:
                    self._changed.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(backoff.pause()):
                            await self._changed.wait()
        finally:
            self._listening = False

    def _plan_reaping(self) -> None:
        """See to it that an idle stream is closed after the server's idle time."""
        if self._reaper is None and self._link is not None and not self._calls.closed:
            self._reaper = asyncio.get_running_loop().call_later(self._server.idle_seconds, self._reap)

    def _reap(self) -> None:
        """Close the stream if it has been idle long enough; else look again later."""
        self._reaper = None
        loop = asyncio.get_running_loop()
        left = self._server.idle_seconds - (loop.time() - self._calls.last_end)
        link = self._link
        if link is None or self._calls.closed:
            return
        if self._calls.in_flight or self._listening or left > 0:
            self._reaper = loop.call_later(max(left, 0.1), self._reap)
            return
        self._drop(link, UpstreamDied("The idle stream was closed."))
        self._lost = False

    async def aclose(self, reason: str = "stopped") -> None:
        """Close the stream; what is in flight ends."""
        self._calls.close()
        if self._reaper is not None:
            self._reaper.cancel()
        await self._calls.drained()
        opening, link = self._opening, self._link
        if opening is not None:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        if link is not None:
            self._drop(link, UpstreamDied("The connection to the server was closed."))
            if link.reader is not None:
                await asyncio.gather(link.reader, return_exceptions=True)
        self._changed.set()
        await self._wire.aclose()
        if self._owns_http:
            await self._http.aclose()

    def stats(self) -> Json:
        """Return `in_flight` and `calls`."""
        return {"in_flight": self._calls.in_flight, "calls": self._calls.total}
