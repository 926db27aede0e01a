"""A bare socket to the product, for requests that no client library would send."""

import contextlib
import socket
import time
from urllib.parse import urlsplit

from tests.e2e.support import Answer
from tests.product import Product


class Wire:
    """One connection; a context manager."""

    def __init__(self, product: Product, timeout: float = 30.0) -> None:
        parts = urlsplit(product.base_url)
        self.host = parts.netloc
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout)
        self._buffer = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def head(self, method: str, path: str, headers: dict[str, str] | list[tuple[str, str]]) -> bytes:
        """Return a request's head; Host is added where it is missing."""
        pairs = list(headers.items()) if isinstance(headers, dict) else headers
        if not any(name.lower() == "host" for name, _ in pairs):
            pairs = [("Host", self.host), *pairs]
        return (f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in pairs) + "\r\n").encode()

    def send(self, data: bytes) -> bool:
        """Send; False when the product has closed the connection."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def answer(self, timeout: float = 30.0) -> Answer:
        """Read one answer with a Content-Length. Raises AssertionError when the connection ends before it is whole."""
        started = time.monotonic()
        self.socket.settimeout(timeout)
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        need = int(headers.get("content-length", "0"))
        self._buffer = rest
        while len(self._buffer) < need:
            self._more()
        body, self._buffer = self._buffer[:need], self._buffer[need:]
        return Answer(int(lines[0].split()[1]), headers, body, time.monotonic() - started)

    def _more(self) -> None:
        try:
            piece = self.socket.recv(65536)
        except OSError as error:
            raise AssertionError(f"no whole answer: {error}; so far {self._buffer[:300]!r}") from error
        assert piece, f"the connection ended before the answer was whole: {self._buffer[:300]!r}"
        self._buffer += piece

    def closed_within(self, seconds: float) -> bool:
        """Tell whether the product closes the connection within this time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            with contextlib.suppress(TimeoutError):
                try:
                    if not self.socket.recv(65536):
                        return True
                except ConnectionError:
                    return True
        return False
