"""Requests of the OAuth client: to checked addresses, without redirects, bounded in time and size, never with a word of them in a log."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from apps.common.errors import AuthorizationFailed, UpstreamError, UpstreamTimeout
from apps.common.http import HttpClient, HttpResponse, Limits, NetworkPolicy, RequestHeaders
from apps.common.http.check import parse_url
from apps.servers.services.private_loop import run_apart

if TYPE_CHECKING:
    import httpx2

ANSWER_BYTES = 256 * 1024
ANSWER_SECONDS = 10.0
"""For one request, from the first byte to the last of its answer."""
FLOW_SECONDS = 45.0
"""For all requests of one step."""
_LIMITS = Limits(sock_connect=5.0)
_AGENT = "switchyard/0.1.0"

T = TypeVar("T")


class Fetcher:
    """Makes requests under one NetworkPolicy. Use it inside `apart`."""

    def __init__(self, http: HttpClient, *, plain: bool) -> None:
        self._http = http
        self._plain = plain

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> "httpx2.Response":
        """Read a document. Raises AddressRefused, AuthorizationFailed, and the UpstreamError family."""
        return await self._answer("GET", url, {"Accept": "application/json", **(headers or {})}, None)

    async def post_form(self, url: str, data: Mapping[str, str], headers: Mapping[str, str]) -> "httpx2.Response":
        """Send a form, as token endpoints take it."""
        fields = {"Accept": "application/json", **headers, "Content-Type": "application/x-www-form-urlencoded"}
        return await self._answer("POST", url, fields, urlencode(data).encode())

    async def post_json(self, url: str, body: bytes, headers: Mapping[str, str] | None = None) -> "httpx2.Response":
        """Send JSON."""
        fields = {"Accept": "application/json, text/event-stream", **(headers or {}), "Content-Type": "application/json"}
        return await self._answer("POST", url, fields, body)

    async def ask(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        """Send JSON and return the status with the `WWW-Authenticate`; the body is not read."""
        response = await self._send("POST", url, headers, body)
        challenge = response.headers.get("WWW-Authenticate", "")
        response.close()
        return response.status, challenge

    async def _answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> "httpx2.Response":
        import httpx2

        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await self._send(method, url, headers, body)
                raw = await response.read(ANSWER_BYTES)
        except TimeoutError:
            raise UpstreamTimeout(f"{parse_url(url).host} did not answer within {ANSWER_SECONDS:g} s.") from None
        kept = {"Content-Type": response.headers.get("Content-Type", "")}
        return httpx2.Response(response.status, headers=kept, content=raw, request=httpx2.Request(method, url))

    async def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> HttpResponse:
        parsed = parse_url(url)
        if parsed.scheme != "https" and not self._plain:
            raise AuthorizationFailed(
                f"{parsed.host} is named without https, though the server itself is reached by https.", rule="https"
            )
        fields = RequestHeaders({"User-Agent": _AGENT, "Accept-Encoding": "identity", **headers})
        return await self._http.request(method, parsed, headers=fields, body=body, limits=_LIMITS)


def apart(
    work: Callable[[Fetcher], Coroutine[Any, Any, T]], *, policy: NetworkPolicy, server_url: str, limit: float = FLOW_SECONDS
) -> T:
    """Run `work` with a fetcher, in a thread and on a loop of its own; it must not touch the database.

    Plain http is used only where the server itself is reached by it. Raises what `work` raises, UpstreamTimeout after `limit` seconds.
    """

    async def run() -> T:
        http = HttpClient(policy)
        try:
            async with asyncio.timeout(limit):
                return await work(Fetcher(http, plain=server_url.startswith("http://")))
        except TimeoutError:
            raise UpstreamTimeout(f"The authorization took longer than {limit:g} s.") from None
        finally:
            await http.aclose()

    return run_apart(run, limit=limit + 5.0)


def error_words(response: "httpx2.Response") -> str:
    """Return what an authorization server says is wrong, in the words of RFC 6749 alone: its `error`, cut and printable."""
    try:
        body = response.json()
    except ValueError:
        return ""
    code = body.get("error") if isinstance(body, dict) else None
    return printable(code, 60) if isinstance(code, str) else ""


def printable(text: str, most: int) -> str:
    """Return the printable ASCII of somebody else's words, cut."""
    return "".join(mark for mark in text[:most] if " " <= mark <= "~")


def unreachable(error: UpstreamError) -> bool:
    """Tell whether an error says nothing of the credentials: an outage, after which one may ask again."""
    return not isinstance(error, AuthorizationFailed)
