"""One answer to one POST: JSON, unless something has to be said before the result; then a stream of events."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from apps.gateway.plane.http import SECURITY_HEADERS, Header, Send, send_empty, send_json

if TYPE_CHECKING:
    from apps.gateway.plane.mcp.visit import Visit

_STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream"),
    (b"x-accel-buffering", b"no"),
    *(pair for pair in SECURITY_HEADERS if pair[0] != b"cache-control"),
    (b"cache-control", b"no-cache, no-transform"),
)


LAST_WORD_SECONDS = 1.0
"""Time for a client to take the end of a stream; one that reads nothing any more is cut off without it."""


class Keeper(Protocol):
    """Keeps what is said on a stream, for a client that comes back for it on another connection."""

    name: str
    """The stream's, once there is one that is kept."""

    async def begin(self, taken: Callable[[], dict[str, int]]) -> bytes:
        """Begin; return what the client gets first. `taken` is called when it comes back elsewhere."""
        ...

    async def add(self, data: bytes) -> bytes:
        """Keep a message; return it as an event."""
        ...

    async def end(self) -> None:
        """Nothing follows."""
        ...


class Reply:
    """Decides late between JSON and Server-Sent Events, and keeps a long stream alive."""

    door = "/mcp"
    """Where the client knocked."""
    _sending: asyncio.Timeout | None
    _ending: "asyncio.Task[None]"
    __slots__ = (
        "__weakref__",
        "_complete",
        "_done",
        "_ending",
        "_head_sent",
        "_lock",
        "_send",
        "_sending",
        "accepts_stream",
        "cut_off",
        "headers",
        "keeper",
        "streaming",
        "visit",
    )

    def __init__(self, send: Send, *, accepts_stream: bool, headers: tuple[Header, ...] = ()) -> None:
        self._send = send
        self.accepts_stream = accepts_stream
        self.headers = headers
        self.streaming = False
        self.visit: Visit | None = None
        """Whose answer it is, until it has been given."""
        self.keeper: Keeper | None = None
        self.cut_off = False
        """The client reads on elsewhere: here nothing more is written."""
        self._done = False
        self._head_sent = False
        self._complete = False
        self._lock: asyncio.Lock | None = None

    async def comment(self) -> None:
        """Open the stream if it is not open, and send a comment: clients ignore it, intermediaries count it as life."""
        if self.accepts_stream and not self._done:
            await self._write(b": keep-alive\n\n", None, more=True)

    async def event(self, body: bytes) -> bool:
        """Send a message before the result; False when the client cannot take one (it asked for JSON alone)."""
        if self._done or not self.accepts_stream:
            return False
        self._tell(body)
        await self._write(b"", body, more=True)
        return True

    async def chunk(self, chunk: bytes) -> None:
        """Send a part of a stream as it is."""
        if not self._done:
            await self._write(chunk, None, more=True)

    async def finish(self, status: int, body: bytes, headers: tuple[Header, ...] = ()) -> None:
        """Send the response and end."""
        if self._done:
            return
        self._done = True
        self._tell(body)
        self.visit = None
        if self.streaming:
            await self._write(b"", body, more=False)
        else:
            await send_json(self._send, status, body, (*self.headers, *headers))

    async def accept(self) -> None:
        """Answer a notification or a response: 202, nothing more."""
        self._done, self.visit = True, None
        await send_empty(self._send, 202, self.headers)

    async def finish_stream(self, body: bytes) -> None:
        """Send the response that ends a long stream, or end it without one (empty), if the client takes it."""
        if not self.streaming or self._done:
            return
        self._done = True
        self._tell(body)
        self.visit = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self._write(b"", body or None, more=False)

    def _tell(self, body: bytes) -> None:
        """Let a recording see what is sent, where there is one."""
        visit = self.visit
        if visit is not None and visit.plane.tap is not None and body:
            visit.plane.tap.sent(visit, body)

    def taken(self) -> dict[str, int]:
        """See `Keeper.begin`."""
        self.cut()
        return {}

    def cut(self) -> None:
        """End the connection, also where a write to it waits: the client reads on elsewhere. What is kept is kept on."""
        if self.cut_off:
            return
        self.cut_off = True
        sending = getattr(self, "_sending", None)
        if sending is not None:
            sending.reschedule(0.0)
        self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _write(self, chunk: bytes, body: bytes | None, *, more: bool) -> None:
        # A writer may be cancelled while the head waits for the socket; whoever writes next sends it.
        self.streaming = True
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if self.keeper is not None:
                await self._write_kept(self.keeper, chunk, body, more=more)
            elif not self.cut_off:
                await self._put(chunk if body is None else event_chunk(body), more=more)

    async def _write_kept(self, keeper: Keeper, chunk: bytes, body: bytes | None, *, more: bool) -> None:
        first = b"" if self._head_sent else await keeper.begin(self.taken)
        if body is not None:
            chunk = await keeper.add(body)
            if not more:
                await keeper.end()
        if self.cut_off:
            return
        try:
            async with asyncio.timeout(None) as self._sending:
                await self._put(first + chunk, more=more)
        except TimeoutError:
            if not self.cut_off:
                raise
        finally:
            self._sending = None

    async def _put(self, chunk: bytes, *, more: bool) -> None:
        if not self._head_sent:
            await self._send({"type": "http.response.start", "status": 200, "headers": [*_STREAM, *self.headers]})
            self._head_sent = True
        await self._send({"type": "http.response.body", "body": chunk, "more_body": more})
        self._complete = not more

    async def _end(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                if self._head_sent and not self._complete:
                    self._complete = True
                    await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def event_chunk(body: bytes, id: str = "") -> bytes:
    """Return a message as an event of a stream."""
    head = b"id: " + id.encode() + b"\n" if id else b""
    return head + b"event: message\ndata: " + body + b"\n\n"
