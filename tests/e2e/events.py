"""Event streams as a client reads them, byte by byte, and a wire that can be cut."""

import contextlib
import http.client
import json
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.product import Product


@dataclass
class Event:
    """One event; `message` is its data as JSON."""

    event: str = "message"
    data: str = ""
    id: str = ""
    retry: str = ""

    @property
    def message(self) -> Any:
        return json.loads(self.data)


class EventStream:
    """One answer that is an event stream, or not; a context manager."""

    def __init__(
        self,
        product: Product,
        method: str,
        path: str,
        headers: dict[str, str],
        body: Any = None,
        *,
        receive_buffer: int = 0,
    ) -> None:
        parts = urlsplit(product.base_url)
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        self.connection.connect()
        if receive_buffer:
            self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        self.connection.request(method, path, raw, headers)
        self.socket = self.connection.sock
        self.answer = self.connection.getresponse()
        self.status = self.answer.status
        self.headers = {name.lower(): value for name, value in self.answer.getheaders()}
        self.comments = 0

    def __enter__(self) -> "EventStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.answer.close()
        self.connection.close()

    def cut(self) -> None:
        """Break the connection, as a network does."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.__exit__()
        self.socket.close()

    def next(self, timeout: float = 15.0) -> Event | None:
        """Return the next event; None when the stream has ended. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        event, fields = Event(), 0
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.socket.settimeout(left)
            try:
                line = self.answer.readline().decode()
            except (ConnectionError, http.client.HTTPException):
                return None
            if not line:
                return None
            line = line.rstrip("\r\n")
            if not line:
                if fields:
                    return event
                continue
            name, _, value = line.partition(":")
            if not name:
                self.comments += 1
                continue
            setattr(event, name, value.removeprefix(" "))
            fields += 1

    def message(self, timeout: float = 15.0) -> Any:
        """Return the next message, past events without data. Raises AssertionError when the stream has ended."""
        return self.event(timeout).message

    def event(self, timeout: float = 15.0) -> Event:
        """Return the next event with data. Raises AssertionError when the stream has ended."""
        while True:
            event = self.next(timeout)
            assert event is not None, "the stream has ended"
            if event.data:
                return event

    def rest(self, timeout: float = 15.0) -> list[Any]:
        """Return all messages to the end of the stream."""
        found = []
        while (event := self.next(timeout)) is not None:
            if event.data:
                found.append(event.message)
        return found

    def text(self) -> str:
        """Return a body that is no stream."""
        return self.answer.read().decode()


class Relay:
    """A relay to the product whose connections a test can cut; a context manager. It runs in threads."""

    def __init__(self, product: Product) -> None:
        parts = urlsplit(product.base_url)
        self._to = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0

    def __enter__(self) -> "Relay":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> int:
        """Break every connection there is; return how many."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for side in pair:
                with contextlib.suppress(OSError):
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)
                side.close()
        return len(pairs)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._to)
            except OSError:
                return
            self.connections += 1
            self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
