"""What both eras share over Streamable HTTP: sending a POST, judging the status, reading JSON or an event stream."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from yarl import URL

from apps.common.errors import (
    AddressRefused,
    UpstreamDied,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTooLarge,
    UpstreamUnauthenticated,
    UpstreamUnavailable,
)
from apps.common.http import HttpClient, HttpResponse, RequestHeaders
from apps.common.http.check import parse_url
from apps.servers.domain import Secrets
from apps.servers.transports.base import UpstreamRequest
from apps.servers.transports.event_stream import EventStream
from apps.servers.transports.wire import SAFE_METHODS, base_headers, parse

FINISH_SECONDS = 1.0
"""How long the end of an answered stream may take before its connection is dropped."""
_ERROR_BODY = 1024 * 1024


class HttpWire:
    """One endpoint's URL, headers and client; makes request ids and holds short background work."""

    def __init__(self, url: str, secrets: Secrets, http: HttpClient) -> None:
        self.url: URL = parse_url(url)
        self.http = http
        self.headers = base_headers(secrets.headers)
        self._id = 0
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def next_id(self) -> int:
        """Return an id never used before with this endpoint."""
        self._id += 1
        return self._id

    async def post(self, headers: RequestHeaders, body: bytes, request: UpstreamRequest | None = None) -> HttpResponse:
        """POST `body`; keep `request.sent` true to what may have left.

        A request without effect is sent a second time when a kept connection was closed under it.
        """
        if request is None:
            return await self.http.request("POST", self.url, headers=headers, body=body)
        request.sent = True
        try:
            return await self.http.request("POST", self.url, headers=headers, body=body)
        except (UpstreamUnavailable, AddressRefused):
            request.sent = False
            raise
        except UpstreamDied:
            if request.method not in SAFE_METHODS:
                raise
            return await self.http.request("POST", self.url, headers=headers, body=body)

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside everything else; its errors of the upstream family are of no consequence."""
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(_quiet(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """End what runs in the background, and start nothing more."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _quiet(work: Coroutine[Any, Any, None]) -> None:
    """Await `work` for at most 5 s and drop its upstream errors."""
    try:
        async with asyncio.timeout(5.0):
            await work
    except (UpstreamError, AddressRefused, TimeoutError):
        pass


def is_stream(response: HttpResponse) -> bool:
    """Return whether the body is an event stream."""
    return response.headers.get("Content-Type", "").lower().startswith("text/event-stream")


def is_json(response: HttpResponse) -> bool:
    """Return whether the body says it is JSON."""
    return response.headers.get("Content-Type", "").lower().startswith("application/json")


def refuse_status(response: HttpResponse) -> None:
    """Raise for a status which is no answer to the request: credentials refused, redirect, overload, outage.

    Does nothing for 2xx and for the 4xx that carry JSON-RPC errors.
    """
    status = response.status
    if status < 300:
        return
    if status in {401, 403}:
        challenge = response.headers.get("WWW-Authenticate", "")[:2000]
        response.close()
        error = UpstreamUnauthenticated(f"The server answered HTTP {status}: it does not accept the credential stored for it.")
        error.challenge = challenge
        raise error
    if status < 400:
        response.close()
        raise UpstreamProtocolError(f"The server redirects (HTTP {status}), which is not followed; register the final URL.")
    if status in {408, 425, 429}:
        response.close()
        raise UpstreamUnavailable(f"The server refuses requests for now (HTTP {status}).")
    if status >= 500 and not is_json(response):
        response.close()
        raise UpstreamUnavailable(f"The server failed (HTTP {status}).")


async def read_refusal(response: HttpResponse) -> Any:
    """Return the JSON body of a 4xx or 5xx, or None when it has none that can be read."""
    if not is_json(response):
        response.close()
        return None
    try:
        return parse(await response.read(_ERROR_BODY))
    except (UpstreamProtocolError, UpstreamTooLarge):
        return None


async def read_json(response: HttpResponse, limit: int) -> tuple[Any, int]:
    """Return the one JSON message of a 2xx and its size in bytes; anything but JSON is UpstreamProtocolError."""
    if not is_json(response):
        kind = response.headers.get("Content-Type", "nothing").split(";")[0][:60]
        response.close()
        raise UpstreamProtocolError(
            f"The server answered HTTP {response.status} with {kind}, not with JSON or an event stream."
        )
    raw = await response.read(limit)
    return parse(raw), len(raw)


class MessageStream:
    """The JSON-RPC messages on an event stream, in order, over as many responses as it takes.

    `limit` bounds one event in bytes and, unless `endless`, everything that comes.
    """

    __slots__ = ("_endless", "_limit", "_parser", "_response", "last_id", "retry", "size")

    def __init__(self, limit: int, *, endless: bool = False) -> None:
        self._limit = limit
        self._endless = endless
        self._response: HttpResponse | None = None
        self._parser = EventStream(limit)
        self.size = 0
        self.last_id: str | None = None
        self.retry: int | None = None

    async def messages(self, response: HttpResponse) -> list[Any] | None:
        """Return the next messages, one or more; None at the end of the stream.

        Raises UpstreamTooLarge, UpstreamDied, UpstreamProtocolError; the response is closed then.
        """
        if self._response is not response:
            self._response, self._parser = response, EventStream(self._limit)
        parser = self._parser
        while True:
            chunk = await response.chunk()
            if not chunk:
                return None
            self.size += len(chunk)
            found: list[Any] = []
            try:
                if self.size > self._limit and not self._endless:
                    raise UpstreamTooLarge(f"The answer has more than {self._limit} bytes.")
                for event in parser.feed(chunk):
                    if event.data and event.name == "message":
                        value = parse(event.data)
                        if type(value) is list:
                            found.extend(value)
                        else:
                            found.append(value)
            except UpstreamError:
                response.close()
                raise
            if parser.last_id is not None:
                self.last_id = parser.last_id
            if parser.retry is not None:
                self.retry = parser.retry
            if found:
                return found
