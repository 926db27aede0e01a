"""HTTP to a server that is reached by OAuth: every request carries the token in force, and a refused one asks for another.

A 401, and a 403 for want of scope, say that the server did not run the request: it is sent again with the next token, as there is one.
Servers without OAuth are reached by the plain client and never pass here.
"""

from typing import Protocol

from yarl import URL

from apps.common.http import HttpResponse, Limits, RequestHeaders
from apps.common.http.client import DEFAULT_LIMITS
from apps.servers.domain import TokenSource

RENEWALS = 2
"""Tokens that one request may ask for: a fresh one, and one that reaches further."""
MAX_CHALLENGE = 2000
"""Characters of a `WWW-Authenticate` that are looked at."""


class Http(Protocol):
    """What the transports need of an HTTP client (see `apps.common.http.HttpClient`)."""

    async def request(
        self, method: str, url: URL, *, headers: RequestHeaders, body: bytes | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> HttpResponse:
        """Send a request and return the answer as soon as its headers are there."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


class Sender(Http, Protocol):
    """An HTTP client that takes whole header lines beside the headers."""

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
        """Send a request and return the answer as soon as its headers are there."""
        ...


class AuthorizedHttp:
    """Requests to one server with the token of one connection. The token goes to the origin that it was made for and to no other."""

    def __init__(self, http: Sender, tokens: TokenSource, url: URL) -> None:
        self._http = http
        self._tokens = tokens
        self._url = url

    async def request(
        self, method: str, url: URL, *, headers: RequestHeaders, body: bytes | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> HttpResponse:
        """Send a request with the token in force; see `HttpClient.request`.

        Raises also UpstreamUnauthenticated (and ScopeNeeded, ConnectionRequired): then nothing was run.
        """
        if url != self._url and url.origin() != self._url.origin():
            return await self._http.request(method, url, headers=headers, body=body, limits=limits)
        line = self._tokens.line or await self._tokens.ready()
        for _ in range(RENEWALS):
            response = await self._http.request(method, url, headers=headers, body=body, limits=limits, extra=line)
            if response.status not in (401, 403):
                return response
            challenge = response.headers.get("WWW-Authenticate", "")[:MAX_CHALLENGE]
            if response.status == 403 and "insufficient_scope" not in challenge:
                return response
            response.close()
            line = await self._tokens.renew(line, response.status, challenge)
        return await self._http.request(method, url, headers=headers, body=body, limits=limits, extra=line)

    async def aclose(self) -> None:
        """Close the client behind it."""
        await self._http.aclose()
