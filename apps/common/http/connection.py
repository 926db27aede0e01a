"""One HTTP/1.1 connection: an exchange at a time, parsed by httptools (llhttp), with bounded buffers.

A request's head and body leave in one write; an answer is given out as soon as its head is there.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import httptools
from multidict import CIMultiDict

from apps.common.errors import (
    SwitchyardError,
    UpstreamDied,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTooLarge,
)

MAX_HEAD = 64 * 1024
"""Bytes of an answer's status line and headers."""
LEAST = 128
"""Bytes that a header counts for at least, so that their number is bounded too."""
HIGH_WATER = 256 * 1024
"""Bytes of a body that wait to be read; then the connection is read no further."""
ADMITTED = 1024 * 1024
"""Bytes of a body that are read without asking `admit`."""


class HttpResponse:
    """An answer whose body has not been read. Every way out must end in a full read or `close`."""

    __slots__ = (
        "_chunks",
        "_connection",
        "_discard",
        "_error",
        "_headers",
        "_host",
        "_paused",
        "_read_limit",
        "_reader",
        "_size",
        "_timer",
        "complete",
        "raw_headers",
        "status",
    )

    def __init__(self, connection: "Connection", host: str, read_limit: float | None) -> None:
        self._connection = connection
        self._host = host
        self._read_limit = read_limit
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._reader: asyncio.Future[None] | None = None
        self._error: SwitchyardError | None = None
        self._paused = False
        self._discard = False
        self._timer: asyncio.TimerHandle | None = None
        self._headers: CIMultiDict[str] | None = None
        self.raw_headers: list[tuple[bytes, bytes]] = []
        self.status = 0
        self.complete = False

    @property
    def headers(self) -> CIMultiDict[str]:
        """Return the headers, names in any case."""
        if self._headers is None:
            pairs = ((name.decode("latin-1"), value.decode("latin-1").strip()) for name, value in self.raw_headers)
            self._headers = CIMultiDict(pairs)
        return self._headers

    async def read(self, limit: int, admit: Callable[[int], Awaitable[None]] | None = None) -> bytes:
        """Return the whole body; raise UpstreamTooLarge once it is over `limit` bytes, reading no further.

        A body over 1 MB goes on only when `admit` returns, which is told once how many bytes there may be.
        """
        if self.complete and self._error is None and self._size <= limit:
            body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks.clear()
            return body
        length = self.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and int(length) > limit:
            self.close()
            raise UpstreamTooLarge(f"The answer of {self._host} has {length} bytes; at most {limit} are read.")
        expected = int(length) if length.isascii() and length.isdigit() else limit
        parts = bytearray()
        while chunk := await self.chunk():
            parts += chunk
            if len(parts) > limit:
                self.close()
                raise UpstreamTooLarge(f"The answer of {self._host} has more than {limit} bytes.")
            if admit is not None and len(parts) > ADMITTED:
                try:
                    await admit(expected)
                except BaseException:
                    self.close()
                    raise
                admit = None
        return bytes(parts)

    async def chunk(self) -> bytes:
        """Return the next bytes of the body as they come; empty at its end."""
        if not self._chunks and not self.complete and self._error is None:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self._read_limit):
                    await self._reader
            except TimeoutError:
                self.close()
                raise UpstreamTimeout(f"{self._host} did not answer in time.") from None
            except BaseException:
                self.close()
                raise
            finally:
                self._reader = None
        if self._chunks:
            chunk = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks.clear()
            self._size = 0
            if self._paused:
                self._paused = False
                self._connection.resume()
            return chunk
        if self._error is not None:
            raise self._error
        return b""

    def close(self) -> None:
        """Drop the connection, unless the body has been read to its end."""
        if not self.complete:
            self._connection.abort()

    def finish_soon(self, seconds: float) -> None:
        """Let the connection return to the pool if the rest of the body ends within `seconds`; else drop it.

        For streams whose last word has come and whose end is still on the way. What comes until then is not read.
        """
        if self.complete:
            return
        self._discard = True
        if self._paused:
            self._paused = False
            self._connection.resume()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.close)

    # Called by the connection.

    def feed(self, data: bytes) -> None:
        """Take bytes of the body."""
        if self._discard:
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and not self._paused and self._reader is None:
            self._paused = True
            self._connection.pause()
        self._wake()

    def end(self, error: SwitchyardError | None = None) -> None:
        """The body is whole, or will never be."""
        if error is None:
            self.complete = True
        self._error = error
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Connection(asyncio.Protocol):
    """See the module. `released` is called when an exchange has ended and the connection can be used again."""

    __slots__ = (
        "_finished",
        "_head_size",
        "_heads",
        "_interim",
        "_keep",
        "_loop",
        "_lost",
        "_parser",
        "_released",
        "_response",
        "_surplus",
        "_transport",
        "_waiter",
        "host",
        "idle_since",
        "key",
    )

    def __init__(
        self,
        key: tuple[str, str, int],
        host: str,
        released: "Callable[[Connection], None]",
        lost: "Callable[[Connection], None]",
    ) -> None:
        self.key = key
        self.host = host
        self.idle_since = 0.0
        self._released = released
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._response: HttpResponse | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._head_size = 0
        self._heads = 0
        self._interim = False
        self._finished = False
        self._keep = False
        self._surplus = False

    @property
    def usable(self) -> bool:
        """Tell whether another exchange may be tried."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, message: bytes, read_limit: float | None) -> HttpResponse:
        """Send a request and return its answer when the head is there. Raises the UpstreamError family."""
        assert self._transport is not None
        response = self._response = HttpResponse(self, self.host, read_limit)
        waiter = self._waiter = self._loop.create_future()
        self._head_size = self._heads = 0
        self._transport.write(message)
        timer = self._loop.call_later(read_limit, self._late, waiter) if read_limit is not None else None
        try:
            await waiter
        except BaseException:
            # Only as long as the connection is still this exchange's: its answer may have come whole a moment ago.
            if self._response is response:
                self.abort()
            raise
        finally:
            # The answer may have come whole, and the next exchange begun, before this task had its turn.
            if self._waiter is waiter:
                self._waiter = None
            if timer is not None:
                timer.cancel()
        return response

    def _late(self, waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_exception(UpstreamTimeout(f"{self.host} did not answer in time."))

    def abort(self) -> None:
        """Drop the connection now; who waits for its answer hears that it ended."""
        if self._transport is not None:
            self._transport.abort()
        self._fail(UpstreamDied(f"The connection to {self.host} was closed."))

    def pause(self) -> None:
        """Read no further for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is both ways

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        response = self._response
        if response is None:
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(UpstreamProtocolError(f"{self.host} does not answer in HTTP."))
            self.abort()
            return
        if response.status == 0:
            # Before the head is whole the parser tells of headers as it sees them, and of a long one not at all.
            self._heads += len(data)
            if self._heads > MAX_HEAD:
                self._head_size = self._heads
        if self._head_size > MAX_HEAD:
            self._fail(UpstreamProtocolError(f"The head of {self.host}'s answer is larger than {MAX_HEAD} bytes."))
            self.abort()
        elif self._finished:
            self._finished = False
            self._response = None
            response.end()
            if self._keep and not self._surplus and self.usable:
                self._released(self)
            elif self._transport is not None:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        response = self._response
        if response is not None and response.status and exc is None and _until_close(response):
            self._response = None
            response.end()
        self._fail(UpstreamDied(f"The connection to {self.host} ended in the middle of the exchange."))
        self._lost(self)

    def _fail(self, error: SwitchyardError) -> None:
        response, self._response = self._response, None
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        elif response is not None:
            response.end(error)

    # httptools

    def on_message_begin(self) -> None:
        """See httptools."""
        if self._finished:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if self._response is not None and not self._finished:
            self._response.raw_headers.append((name, value))
            self._head_size += max(len(name) + len(value), LEAST)

    def on_headers_complete(self) -> None:
        """See httptools."""
        response = self._response
        if response is None or self._finished:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._interim = True
            response.raw_headers.clear()
            return
        if self._head_size > MAX_HEAD:
            return
        response.status = status
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def on_body(self, data: bytes) -> None:
        """See httptools."""
        if self._response is not None and not self._finished and not self._interim:
            self._response.feed(data)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._interim:
            self._interim = False
        else:
            self._finished = True
            self._keep = self._parser.should_keep_alive()


def _until_close(response: HttpResponse) -> bool:
    """Tell whether the end of the connection is the end of the body (RFC 9112, section 6.3)."""
    headers = response.headers
    return "Content-Length" not in headers and "Transfer-Encoding" not in headers
