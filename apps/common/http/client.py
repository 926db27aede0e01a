"""The HTTP client behind every outgoing connection: pooled, bounded, and it dials only addresses it has checked.

aiohttp does the protocol. What is ours: each address that a name resolves to is checked, and the socket is made for
the checked address itself, so a name that changes between check and connect gains nothing. No redirects, no proxies
from the environment, no cookies, no decompression (`Accept-Encoding: identity` is sent), TLS always verified.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from apps.common.errors import (
    AddressRefused,
    SwitchyardError,
    UpstreamDied,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTooLarge,
    UpstreamUnavailable,
)
from apps.common.http.addresses import NetworkPolicy
from apps.common.http.check import admit_url

Limits = aiohttp.ClientTimeout
"""Seconds: `total`, `sock_connect`, `sock_read`; None is no limit."""
DEFAULT_LIMITS = Limits(total=None, sock_connect=10.0)
"""A connection is made within 10 s; the caller bounds the rest."""
Lookup = Callable[[str, int], Awaitable[list[str]]]
"""Resolves a name: gets host and port, returns addresses; raises OSError."""

KEEP_ALIVE_SECONDS = 4.0
"""Below the 5 s after which most servers close an idle connection, so that we rarely write into a closing one."""
DNS_SECONDS = 10
_KNOWN_HOSTS = 4096
_FAILURES = (SwitchyardError, aiohttp.ClientError, OSError, ValueError)


class _CheckedResolver(AbstractResolver):
    """Resolves names and refuses a name when any of its addresses is refused."""

    def __init__(self, policy: NetworkPolicy, lookup: Lookup) -> None:
        self._policy = policy
        self._lookup = lookup

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Return the addresses of `host`, all of them checked."""
        async with asyncio.timeout(DEFAULT_LIMITS.sock_connect):
            addresses = await self._lookup(host, port)
        if not addresses:
            raise OSError(None, "the name has no address")
        for address in addresses:
            self._policy.check(address, host)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is kept."""


async def _system_lookup(host: str, port: int) -> list[str]:
    """Ask the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class HttpResponse:
    """An answer whose body has not been read. Every way out must end in a full read or `close`."""

    __slots__ = ("_host", "_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, host: str) -> None:
        self._response = response
        self._host = host
        self.status: int = response.status
        self.headers: CIMultiDictProxy[str] = response.headers

    async def read(self, limit: int) -> bytes:
        """Return the whole body; raise UpstreamTooLarge once it is over `limit` bytes, reading no further."""
        response = self._response
        length = response.content_length
        try:
            if length is not None:
                if length > limit:
                    raise UpstreamTooLarge(f"The answer of {self._host} has {length} bytes; at most {limit} are read.")
                return await response.read()
            parts = bytearray()
            async for chunk in response.content.iter_any():
                parts += chunk
                if len(parts) > limit:
                    raise UpstreamTooLarge(f"The answer of {self._host} has more than {limit} bytes.")
            return bytes(parts)
        except _FAILURES as error:
            response.close()
            raise _typed(error, self._host) from None
        except BaseException:
            response.close()
            raise

    async def chunk(self) -> bytes:
        """Return the next bytes of the body as they come (at most about 128 kB); empty at its end."""
        try:
            return await self._response.content.readany()
        except _FAILURES as error:
            self._response.close()
            raise _typed(error, self._host) from None
        except BaseException:
            self._response.close()
            raise

    def close(self) -> None:
        """Drop the connection, unless the body has been read to its end."""
        self._response.close()

    def finish_soon(self, seconds: float) -> None:
        """Let the connection return to the pool if the rest of the body ends within `seconds`; else drop it.

        For streams whose last word has come and whose end is still on the way. What comes until then is not read.
        """
        content = self._response.content
        if content.is_eof():
            return
        timer = asyncio.get_running_loop().call_later(seconds, self._response.close)
        content.on_eof(timer.cancel)


class HttpClient:
    """A pool of connections under one NetworkPolicy. Belongs to the event loop of its first request.

    The number of connections is not limited here: callers hold bulkheads per server.
    """

    def __init__(self, policy: NetworkPolicy, *, lookup: Lookup | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.policy = policy
        self._lookup = lookup or _system_lookup
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._known: set[str] = set()

    def _open(self) -> aiohttp.ClientSession:
        """Make the session, on the running loop."""
        if self._closed:
            raise UpstreamUnavailable("The client is closed.")
        connector = aiohttp.TCPConnector(
            resolver=_CheckedResolver(self.policy, self._lookup),
            socket_factory=self._socket,
            ttl_dns_cache=DNS_SECONDS,
            limit=0,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            ssl=self._tls or True,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=DEFAULT_LIMITS,
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        )
        return self._session

    def _socket(self, info: Any) -> socket.socket:
        """Make the socket for the very address that is dialled next; refuse it here whatever the way it came."""
        family, kind, protocol, _, target = info
        self.policy.check(str(target[0]))
        return socket.socket(family, kind, protocol)

    def _admit(self, url: URL) -> None:
        """Check the URL's form, once per host; an address in it is checked too."""
        address = admit_url(url)
        if address is not None:
            self.policy.check(address)
        if len(self._known) >= _KNOWN_HOSTS:
            self._known.clear()
        self._known.add(f"{url.scheme}://{url.raw_authority}")

    async def request(
        self, method: str, url: URL, *, headers: CIMultiDict[str], body: bytes | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> HttpResponse:
        """Send a request and return the answer as soon as its headers are there.

        Raises AddressRefused; UpstreamUnavailable, where certainly nothing was sent; UpstreamDied, UpstreamTimeout or
        UpstreamProtocolError, where the request may have arrived.
        """
        session = self._session or self._open()
        host = url.raw_host or ""
        if f"{url.scheme}://{url.raw_authority}" not in self._known:
            self._admit(url)
        try:
            response = await session.request(method, url, headers=headers, data=body, allow_redirects=False, timeout=limits)
        except _FAILURES as error:
            raise _typed(error, host) from None
        return HttpResponse(response, host)

    async def aclose(self) -> None:
        """Close every connection; the client cannot be used again."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _typed(error: Exception, host: str) -> SwitchyardError:
    """Return the error of our vocabulary for one of `_FAILURES`."""
    if isinstance(error, SwitchyardError):
        return error
    if isinstance(error, aiohttp.InvalidURL):
        return AddressRefused(f"{host or 'The URL'} cannot be used as an address.")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return UpstreamUnavailable(f"The name {host} does not resolve.")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return UpstreamUnavailable(f"The certificate of {host} is not valid.")
    if isinstance(error, aiohttp.ClientSSLError):
        return UpstreamUnavailable(f"No TLS connection to {host} could be made.")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return UpstreamUnavailable(f"{host} did not accept a connection in time.")
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamUnavailable(f"{host} cannot be reached: {error.os_error.strerror or 'connection failed'}.")
    if isinstance(error, aiohttp.SocketTimeoutError | TimeoutError):
        return UpstreamTimeout(f"{host} did not answer in time.")
    if isinstance(error, aiohttp.ClientResponseError):
        return UpstreamProtocolError(f"{host} does not answer in HTTP.")
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientConnectionError | OSError):
        return UpstreamDied(f"The connection to {host} ended in the middle of the exchange.")
    return UpstreamUnavailable(f"The request to {host} cannot be sent: a header is not valid.")
