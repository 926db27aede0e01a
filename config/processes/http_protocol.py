"""HTTP/1.1 with an end to a client's patience: uvicorn's protocol bounds neither what it reads itself nor how long it waits.

Bounded here are a request's head, a body that does not come, a body that goes on after its request was answered, and a client
that does not read its answer. A body that is being read is bounded by who reads it.
"""

import fcntl
import sys
import termios
from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 20.0
"""Time for a whole head, from the connection or from the head's first byte; and for the rest of an answered request."""
HEAD_BYTES = 96 * 1024
LEFT_BYTES = 1024 * 1024
"""Bytes of an answered request's body that are thrown away, so that its sender can read the answer."""
BODY_SECONDS = 20.0
"""Time between two pieces of a body."""
READ_SECONDS = 20.0
READ_BYTES = 4096
"""What a client must take of a waiting answer in READ_SECONDS; else it is cut off."""
_LATE = b'{"type":"about:blank","title":"Request timeout","status":408,"detail":"The body of the request did not arrive."}'
_LATE_BODY = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    % len(_LATE)
    + _LATE
)
_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\ncontent-length: 27\r\nconnection: close\r\n\r\n"
    b"The request's head is long."
)


class JoiningTransport:
    """A transport that writes an answer's head together with the first of its body: uvicorn writes them apart.

    One system call instead of two, and the peer is woken once. A head that is alone when the event loop comes round goes alone.
    """

    __slots__ = ("_held", "_left", "_loop", "real")

    def __init__(self, real: Transport, loop: AbstractEventLoop, left: Callable[[], None]) -> None:
        self.real = real
        self._loop = loop
        self._left = left
        """Is called when it is closed with something still to write: that waits for its reader without end."""
        self._held = b""

    def write(self, data: bytes) -> None:
        """Keep a head for a moment; write anything else, after what was kept."""
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(b"HTTP/1.1 "):
            self._held = data
            self._loop.call_soon(self._flush)
            return
        self.real.write(data)

    def close(self) -> None:
        """Write what was kept, and close."""
        self._flush()
        self.real.close()
        if self.real.get_write_buffer_size():
            self._left()

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return self.real.is_closing()

    def _flush(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            self.real.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits; on a request that arrives whole they cost two comparisons."""

    _timer: TimerHandle | None = None
    _reader_timer: TimerHandle | None = None
    _waiting = 0
    _head = 0
    _left = 0
    _upgraded = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self.transport = JoiningTransport(transport, self.loop, self._watch_reader)  # type: ignore[assignment]
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Parse, then look whether the head is whole."""
        super().data_received(data)
        cycle: Any = self.cycle
        if self._upgraded:
            return
        if cycle is None or cycle.scope is not self.scope:  # a head has begun, and is not whole
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self._refuse()
            elif self._timer is None:
                self._arm()
        elif cycle.response_complete:  # more of the body of a request that is answered
            self._left += len(data)
            if self._left > LEFT_BYTES:
                self.transport.close()
            elif self._timer is None:
                self._arm()
        elif cycle.more_body:  # a body is on its way
            self._disarm()
            self._timer = self.loop.call_later(BODY_SECONDS, self._miss_body)
        elif self._timer is not None:
            self._disarm()
        else:
            self._head = self._left = 0

    def pause_writing(self) -> None:
        """Begin to watch a client that does not take what it asked for."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client reads."""
        if not self.transport.is_closing():
            self._forget_reader()
        super().resume_writing()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to the WebSocket protocol, which has limits of its own."""
        self._upgraded = True
        self._disarm()
        self.transport = self.transport.real  # type: ignore[attr-defined]
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clocks."""
        self._disarm()
        self._forget_reader()
        super().connection_lost(exc)

    def _arm(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._head = self._left = 0

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_TOO_LONG)
            self.transport.close()

    def _miss_body(self) -> None:
        self._timer = None
        if self.flow.read_paused:  # it is this side that does not read
            self._timer = self.loop.call_later(BODY_SECONDS, self._miss_body)
        elif not self.transport.is_closing():
            if not self.cycle.response_started:
                self.transport.write(_LATE_BODY)
            self.transport.close()

    def _watch_reader(self) -> None:
        if self._reader_timer is None:
            self._waiting = self._unread()
            self._reader_timer = self.loop.call_later(READ_SECONDS, self._miss_reader)

    def _miss_reader(self) -> None:
        waiting = self._unread()
        if waiting > self._waiting - READ_BYTES:
            self._reader_timer = None
            self.transport.abort()
        else:
            self._waiting = waiting
            self._reader_timer = self.loop.call_later(READ_SECONDS, self._miss_reader)

    def _unread(self) -> int:
        """Return the bytes that the client has not taken: those that wait here, and those in the system's hands."""
        waiting: int = self.transport.get_write_buffer_size()
        try:
            taken = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, AttributeError, ValueError):  # no such count on this system, or no socket any more
            return waiting
        return waiting + int.from_bytes(taken, sys.byteorder)

    def _forget_reader(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _give_up(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()
