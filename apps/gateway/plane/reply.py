"""One answer to one POST: JSON, unless something has to be said before the result; then a stream of events."""

import asyncio
import contextlib

from apps.gateway.plane.http import SECURITY_HEADERS, Header, Send, send_empty, send_json

_STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream"),
    (b"x-accel-buffering", b"no"),
    *(pair for pair in SECURITY_HEADERS if pair[0] != b"cache-control"),
    (b"cache-control", b"no-cache, no-transform"),
)


LAST_WORD_SECONDS = 1.0
"""Time for a client to take the end of a stream; one that reads nothing any more is cut off without it."""


class Reply:
    """Decides late between JSON and Server-Sent Events, and keeps a long stream alive."""

    __slots__ = ("_done", "_head_sent", "_lock", "_send", "accepts_stream", "headers", "streaming")

    def __init__(self, send: Send, *, accepts_stream: bool, headers: tuple[Header, ...] = ()) -> None:
        self._send = send
        self.accepts_stream = accepts_stream
        self.headers = headers
        self.streaming = False
        self._done = False
        self._head_sent = False
        self._lock: asyncio.Lock | None = None

    async def comment(self) -> None:
        """Open the stream if it is not open, and send a comment: clients ignore it, intermediaries count it as life."""
        if self.accepts_stream and not self._done:
            await self._write(b": keep-alive\n\n", more=True)

    async def event(self, body: bytes) -> bool:
        """Send a message before the result; False when the client cannot take one (it asked for JSON alone)."""
        if self._done or not self.accepts_stream:
            return False
        await self._write(_event(body), more=True)
        return True

    async def finish(self, status: int, body: bytes, headers: tuple[Header, ...] = ()) -> None:
        """Send the response and end."""
        if self._done:
            return
        self._done = True
        if self.streaming:
            await self._write(_event(body), more=False)
        else:
            await send_json(self._send, status, body, (*self.headers, *headers))

    async def accept(self) -> None:
        """Answer a notification or a response: 202, nothing more."""
        self._done = True
        await send_empty(self._send, 202, self.headers)

    async def finish_stream(self, body: bytes) -> None:
        """Send the response that ends a long stream, or end it without one (empty), if the client takes it."""
        if not self.streaming or self._done:
            return
        self._done = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self._write(_event(body) if body else b"", more=False)

    async def _write(self, chunk: bytes, *, more: bool) -> None:
        # A writer may be cancelled while the head waits for the socket; whoever writes next sends it.
        self.streaming = True
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if not self._head_sent:
                await self._send({"type": "http.response.start", "status": 200, "headers": [*_STREAM, *self.headers]})
                self._head_sent = True
            await self._send({"type": "http.response.body", "body": chunk, "more_body": more})


def _event(body: bytes) -> bytes:
    return b"event: message\ndata: " + body + b"\n\n"
