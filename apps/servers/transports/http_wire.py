"""What both eras share over Streamable HTTP: sending a POST, judging the status, reading JSON or an event stream."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from yarl import URL

from apps.common.background import Background
from apps.common.errors import (
    AddressRefused,
    UpstreamDied,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTooLarge,
    UpstreamUnauthenticated,
    UpstreamUnavailable,
)
from apps.common.http import HttpResponse, RequestHeaders
from apps.common.http.check import parse_url
from apps.servers.domain import Secrets
from apps.servers.transports.authorized import Http
from apps.servers.transports.base import UpstreamRequest
from apps.servers.transports.event_stream import Event, EventStream
from apps.servers.transports.floods import (
    NOTICE_WIDTH,
    NOTICES,
    REPLIES,
    REPLY_BYTES,
    REPLY_WIDTH,
    Flooded,
    Lane,
    Pace,
    Turns,
)
from apps.servers.transports.memory import FREE, SMALL, Hold, load_large, memory
from apps.servers.transports.wire import SAFE_METHODS, base_headers, batch_of, parse

FINISH_SECONDS = 1.0
"""How long the end of an answered stream may take before its connection is dropped."""
BACKGROUND = 64
"""Pieces of background work of one endpoint at the same time; what comes then is not done."""
LISTEN_PACE = 8 * 1024 * 1024
"""Bytes in 10 s on a stream that has no end of its own: a hundred thousand announcements."""
PIECE = 16 * 1024
"""An event stream is taken apart in pieces of so many bytes, between which others get their turn."""
_ERROR_BODY = 1024 * 1024


class HttpWire:
    """One endpoint's URL, headers and client; makes request ids and holds the little work that nobody waits for.

    Replies to the server's own requests and cancellation notices go through a lane each, a few at a time: a server that
    asks faster than it takes replies is flooding, and never costs a notice its place or more than some connections.
    """

    def __init__(self, url: str, secrets: Secrets, http: Http) -> None:
        self.url: URL = parse_url(url)
        self.http = http
        self.headers = base_headers(secrets.headers)
        self._id = 0
        self._closed = False
        self._background = Background()
        self._replies = Lane(REPLY_WIDTH, REPLIES, REPLY_BYTES)
        self._notices = Lane(NOTICE_WIDTH, NOTICES, REPLY_BYTES)

    def next_id(self) -> int:
        """Return an id never used before with this endpoint."""
        self._id += 1
        return self._id

    async def post(self, headers: RequestHeaders, body: bytes, request: UpstreamRequest | None = None) -> HttpResponse:
        """POST `body`; keep `request.sent` true to what may have left.

        A request without effect is sent a second time when a kept connection was closed under it.
        """
        if request is None:
            return await self.http.request("POST", self.url, headers=headers, body=body)
        request.sent = True
        try:
            return await self.http.request("POST", self.url, headers=headers, body=body)
        except (UpstreamUnavailable, UpstreamUnauthenticated, AddressRefused):
            request.sent = False
            raise
        except UpstreamDied:
            if request.method not in SAFE_METHODS:
                raise
            return await self.http.request("POST", self.url, headers=headers, body=body)

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside everything else; its errors of the upstream family are of no consequence.

        Over 64 pieces at a time, it is dropped.
        """
        if self._closed or len(self._background) >= BACKGROUND:
            work.close()
            return
        self._background.start(_quiet(work))

    def reply(self, errand: Callable[[], Awaitable[None]], size: int) -> None:
        """Send a reply of `size` bytes to the server when its turn comes.

        Raises Flooded when 1,024 replies or 4 MB wait already, which are dropped then.
        """
        if not self._closed and not self._replies.put(errand, size):
            self._replies.clear()
            raise Flooded("The server floods with requests: it makes them faster than it takes the replies.")

    def notice(self, errand: Callable[[], Awaitable[None]], size: int) -> None:
        """Send a cancellation notice of `size` bytes; when 4,096 wait already, the oldest (whose call is long over) is dropped."""
        if self._closed:
            return
        while not self._notices.put(errand, size):
            self._notices.drop_first()

    async def aclose(self) -> None:
        """End what runs in the background, and start nothing more."""
        self._closed = True
        await self._replies.aclose()
        await self._notices.aclose()
        await self._background.aclose()


async def _quiet(work: Coroutine[Any, Any, None]) -> None:
    """Await `work` for at most 5 s and drop its upstream errors."""
    try:
        async with asyncio.timeout(5.0):
            await work
    except (UpstreamError, AddressRefused, TimeoutError):
        pass


def is_stream(response: HttpResponse) -> bool:
    """Return whether the body is an event stream."""
    return response.headers.get("Content-Type", "").lower().startswith("text/event-stream")


def is_json(response: HttpResponse) -> bool:
    """Return whether the body says it is JSON."""
    return response.headers.get("Content-Type", "").lower().startswith("application/json")


def refuse_status(response: HttpResponse) -> None:
    """Raise for a status which is no answer to the request: credentials refused, redirect, overload, outage.

    Does nothing for 2xx and for the 4xx that carry JSON-RPC errors.
    """
    status = response.status
    if status < 300:
        return
    if status in {401, 403}:
        challenge = response.headers.get("WWW-Authenticate", "")[:2000]
        response.close()
        error = UpstreamUnauthenticated(f"The server answered HTTP {status}: it does not accept the credential stored for it.")
        error.challenge = challenge
        raise error
    if status < 400:
        response.close()
        raise UpstreamProtocolError(f"The server redirects (HTTP {status}), which is not followed; register the final URL.")
    if status in {408, 425, 429}:
        response.close()
        raise UpstreamUnavailable(f"The server refuses requests for now (HTTP {status}).")
    if status >= 500 and not is_json(response):
        response.close()
        raise UpstreamUnavailable(f"The server failed (HTTP {status}).")


async def read_refusal(response: HttpResponse) -> Any:
    """Return the JSON body of a 4xx or 5xx, or None when it has none that can be read."""
    if not is_json(response):
        response.close()
        return None
    try:
        return parse(await response.read(_ERROR_BODY))
    except (UpstreamProtocolError, UpstreamTooLarge):
        return None


async def read_json(response: HttpResponse, limit: int, owner: object) -> tuple[Any, bytes, Hold | None]:
    """Return the one JSON message of a 2xx, as it came too, and what a large one holds of the memory for such.

    `owner` is who takes it. Anything but JSON is UpstreamProtocolError; too many bytes or values, or no room, is UpstreamTooLarge.
    """
    if not is_json(response):
        kind = response.headers.get("Content-Type", "nothing").split(";")[0][:60]
        response.close()
        raise UpstreamProtocolError(
            f"The server answered HTTP {response.status} with {kind}, not with JSON or an event stream."
        )
    held: list[Hold] = []

    async def admit(size: int) -> None:
        held.append(await memory().reading.take(owner, size))

    try:
        raw = await response.read(limit, admit)
        if len(raw) <= SMALL:
            return parse(raw), raw, None
        message, hold = await load_large(raw, owner)
        return message, raw, hold
    finally:
        for part in held:
            part.release()


Message = tuple[Any, bytes, Hold | None]
"""A JSON-RPC message, its bytes as they came (none for one of a batch), and a large one's hold on memory."""


class MessageStream:
    """The JSON-RPC messages on an event stream, in order, over as many responses as it takes.

    `limit` bounds one event in bytes and, unless `endless`, everything that comes; an endless stream has a pace to keep.
    However fast it comes, others get their turn every few milliseconds. `owner` is who takes memory for large events.
    """

    __slots__ = (
        "_endless",
        "_events",
        "_hold",
        "_limit",
        "_out",
        "_owner",
        "_pace",
        "_parser",
        "_pieces",
        "_response",
        "_turns",
        "last_id",
        "retry",
        "size",
    )

    def __init__(self, limit: int, owner: object, *, endless: bool = False) -> None:
        self._limit = limit
        self._owner = owner
        self._endless = endless
        self._response: HttpResponse | None = None
        self._parser = EventStream(limit)
        self._pieces: deque[bytes] = deque()
        self._hold: Hold | None = None
        self._out: list[Hold] = []
        self._pace = Pace(LISTEN_PACE, "announcements")
        self._turns = Turns()
        self.size = 0
        self.last_id: str | None = None
        self.retry: int | None = None

    async def messages(self, response: HttpResponse) -> list[Message] | None:
        """Return the next messages, one or more; None at the end of the stream. Those before are done with.

        Raises UpstreamTooLarge, UpstreamDied, UpstreamProtocolError; the response is closed then.
        """
        if self._response is not response:
            self._response, self._parser = response, EventStream(self._limit)
            self._pieces.clear()
        parser = self._parser
        while self._out:
            self._out.pop().release()
        try:
            while True:
                if not self._pieces and not await self._more(response):
                    return None
                await self._turns.give()
                found: list[Message] = []
                for event in parser.feed(self._pieces.popleft()):
                    if event.data and event.name == "message":
                        await self._read(event, found)
                if parser.held <= FREE:
                    self._let_go()
                elif self._hold is None:
                    self._hold = await memory().reading.take(self._owner, self._limit)
                if parser.last_id is not None:
                    self.last_id = parser.last_id
                if parser.retry is not None:
                    self.retry = parser.retry
                if found:
                    return found
        except BaseException as error:
            self._let_go()
            response.close()
            if isinstance(error, Flooded):
                raise error.plain() from None
            raise

    async def _more(self, response: HttpResponse) -> bool:
        """Wait for bytes and cut them into pieces; False at the end."""
        chunk = await response.chunk()
        if not chunk:
            self._let_go()
            return False
        self._turns.begin()
        self.size += len(chunk)
        if self._endless:
            self._pace.spend(len(chunk))
        elif self.size > self._limit:
            raise UpstreamTooLarge(f"The answer has more than {self._limit} bytes.")
        if len(chunk) <= PIECE:
            self._pieces.append(chunk)
        else:
            self._pieces.extend(chunk[start : start + PIECE] for start in range(0, len(chunk), PIECE))
        return True

    async def _read(self, event: Event, found: list[Message]) -> None:
        """Read the message, or the batch of them, that an event holds."""
        raw, hold = event.data, None
        if len(raw) <= SMALL:
            value = parse(raw)
        else:
            value, hold = await load_large(raw, self._owner)
            if hold is not None:
                self._out.append(hold)
        if type(value) is not list:
            found.append((value, raw, hold))
            return
        found.extend((part, b"", hold) for part in batch_of(value))

    def _let_go(self) -> None:
        """Give back what was held for an event that was being read."""
        if self._hold is not None:
            self._hold.release()
            self._hold = None
