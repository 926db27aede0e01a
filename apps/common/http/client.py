"""The HTTP client behind every outgoing connection: pooled, bounded, and it dials only addresses it has checked.

Each address that a name resolves to is checked, and the socket is made for the checked address itself, so a name that changes
between check and connect gains nothing. No redirects, no proxies from the environment, no cookies, no decompression, TLS always
verified. A call through it costs a third of what it does through a general client, which is most of a governed call's price.
"""

import asyncio
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from yarl import URL

from apps.common.errors import AddressRefused, UpstreamUnavailable
from apps.common.http.addresses import NetworkPolicy
from apps.common.http.check import admit_url
from apps.common.http.connection import Connection, HttpResponse
from apps.common.http.headers import RequestHeaders


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; None is no limit."""

    sock_connect: float | None = 10.0
    """To make a connection, with resolving the name and TLS."""
    sock_read: float | None = None
    """Between two pieces of an answer."""


DEFAULT_LIMITS = Limits()
"""A connection is made within 10 s; the caller bounds the rest."""
Lookup = Callable[[str, int], Awaitable[list[str]]]
"""Resolves a name: gets host and port, returns addresses; raises OSError."""

KEEP_ALIVE_SECONDS = 4.0
"""Below the 5 s after which most servers close an idle connection, so that we rarely write into a closing one."""
DNS_SECONDS = 10.0
_KEPT = 4096
"""Hosts and names remembered."""
_Key = tuple[str, str, int]


async def _system_lookup(host: str, port: int) -> list[str]:
    """Ask the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class HttpClient:
    """A pool of connections under one NetworkPolicy. Belongs to the event loop of its first request.

    The number of connections is not limited here: callers hold bulkheads per server.
    """

    def __init__(self, policy: NetworkPolicy, *, lookup: Lookup | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.policy = policy
        self._lookup = lookup or _system_lookup
        self._tls = tls
        self._closed = False
        self._idle: dict[_Key, deque[Connection]] = {}
        self._open: set[Connection] = set()
        self._names: dict[tuple[str, int], tuple[float, list[str]]] = {}
        self._places: dict[URL, tuple[_Key, str, str]] = {}
        self._reaper: asyncio.TimerHandle | None = None

    async def request(
        self,
        method: str,
        url: URL,
        *,
        headers: RequestHeaders,
        body: bytes | None = None,
        limits: Limits = DEFAULT_LIMITS,
        extra: bytes = b"",
    ) -> HttpResponse:
        """Send a request and return the answer as soon as its headers are there; `extra` are whole header lines that change often.

        Raises AddressRefused; UpstreamUnavailable, where certainly nothing was sent; UpstreamDied, UpstreamTimeout or
        UpstreamProtocolError, where the request may have arrived.
        """
        if self._closed:
            raise UpstreamUnavailable("The client is closed.")
        place = self._places.get(url) or self._place(url)
        head = headers.head(method, url, place[2])
        if extra:
            head += extra
        message = head + b"\r\n" if body is None else b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
        connection = self._take(place[0])
        if connection is None:
            connection = await self._dial(place[0], place[1], limits.sock_connect)
        return await connection.exchange(message, limits.sock_read)

    async def aclose(self) -> None:
        """Close every connection; the client cannot be used again."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        self._idle.clear()
        for connection in tuple(self._open):
            connection.abort()
        await asyncio.sleep(0)

    def _place(self, url: URL) -> tuple[_Key, str, str]:
        """Check an address's form, and return where it leads: pool key, host, Host header. Raises AddressRefused."""
        address = admit_url(url)
        if address is not None:
            self.policy.check(address)
        host, port = url.raw_host or "", url.port or 80
        shown = f"[{host}]" if ":" in host else host
        default = {"http": 80, "https": 443}[url.scheme]
        if len(self._places) >= _KEPT:
            self._places.clear()
        place = self._places[url] = ((url.scheme, host, port), host, shown if port == default else f"{shown}:{port}")
        return place

    # Connections

    def _take(self, key: _Key) -> Connection | None:
        idle = self._idle.get(key)
        oldest = time.monotonic() - KEEP_ALIVE_SECONDS
        while idle:
            connection = idle.pop()
            if connection.usable and connection.idle_since >= oldest:
                return connection
            connection.abort()
        return None

    def _released(self, connection: Connection) -> None:
        if self._closed:
            connection.abort()
            return
        connection.idle_since = time.monotonic()
        self._idle.setdefault(connection.key, deque()).append(connection)
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(KEEP_ALIVE_SECONDS, self._reap)

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)

    def _reap(self) -> None:
        self._reaper = None
        oldest = time.monotonic() - KEEP_ALIVE_SECONDS
        for key, idle in list(self._idle.items()):
            while idle and (idle[0].idle_since < oldest or not idle[0].usable):
                idle.popleft().abort()
            if not idle:
                del self._idle[key]
        if self._idle:
            self._reaper = asyncio.get_running_loop().call_later(KEEP_ALIVE_SECONDS, self._reap)

    async def _dial(self, key: _Key, host: str, seconds: float | None) -> Connection:
        """Make a connection to a checked address. Raises AddressRefused, UpstreamUnavailable."""
        try:
            async with asyncio.timeout(seconds):
                return await self._dial_any(key, host, seconds)
        except TimeoutError:
            raise UpstreamUnavailable(f"{host} did not accept a connection in time.") from None
        except ssl.SSLCertVerificationError:
            raise UpstreamUnavailable(f"The certificate of {host} is not valid.") from None
        except ssl.SSLError:
            raise UpstreamUnavailable(f"No TLS connection to {host} could be made.") from None
        except OSError as error:
            # the loop's own words for it are a Python tuple
            said = os.strerror(error.errno) if error.errno else error.strerror or "connection failed"
            raise UpstreamUnavailable(f"{host} cannot be reached on port {key[2]}: {said}.") from None

    async def _dial_any(self, key: _Key, host: str, seconds: float | None) -> Connection:
        addresses = await self._addresses(host, key[2])
        failure = OSError(None, "no address")
        for number, address in enumerate(addresses):
            # An address that does not answer must leave time for the others.
            share = None if seconds is None or number == len(addresses) - 1 else seconds / len(addresses)
            try:
                async with asyncio.timeout(share):
                    return await self._dial_one(key, host, address)
            except ssl.SSLError:
                raise
            except TimeoutError:
                failure = OSError(None, "no answer")
            except OSError as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int) -> list[str]:
        known = self._names.get((host, port))
        now = time.monotonic()
        if known is not None and now - known[0] < DNS_SECONDS:
            return known[1]
        try:
            addresses = await self._lookup(host, port)
        except (OSError, UnicodeError):
            raise UpstreamUnavailable(f"The name {host} does not resolve.") from None
        if not addresses:
            raise UpstreamUnavailable(f"The name {host} does not resolve.")
        for address in addresses:
            self.policy.check(address, host)
        if len(self._names) >= _KEPT:
            self._names.clear()
        self._names[host, port] = (now, addresses)
        return addresses

    async def _dial_one(self, key: _Key, host: str, address: str) -> Connection:
        """Connect a socket made for the very address that is checked here, whatever the way it came."""
        self.policy.check(address, host)
        loop = asyncio.get_running_loop()
        dialled = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            dialled.setblocking(False)
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(dialled, (address, key[2]))
            tls = (self._tls or _default_tls()) if key[0] == "https" else None
            _, connection = await loop.create_connection(
                lambda: Connection(key, host, self._released, self._lost),
                sock=dialled,
                ssl=tls,
                server_hostname=host.rstrip(".") if tls is not None else None,
            )
        except BaseException:
            dialled.close()
            raise
        if self._closed:
            connection.abort()
            raise UpstreamUnavailable("The client is closed.")
        self._open.add(connection)
        return connection


_tls: ssl.SSLContext | None = None


def _default_tls() -> ssl.SSLContext:
    """Return the system's trust, read once."""
    global _tls
    if _tls is None:
        _tls = ssl.create_default_context()
        _tls.set_alpn_protocols(["http/1.1"])
    return _tls


__all__ = ("DEFAULT_LIMITS", "AddressRefused", "HttpClient", "HttpResponse", "Limits", "RequestHeaders")
