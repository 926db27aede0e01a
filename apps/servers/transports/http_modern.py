"""Streamable HTTP in revision 2026-07-28: every request stands alone, its metadata in `_meta` and in headers."""

import asyncio
from collections.abc import Callable
from typing import Any

from apps.common.errors import UpstreamDied, UpstreamError, UpstreamProtocolError
from apps.common.http import HttpResponse, Limits, RequestHeaders
from apps.servers.transports.announcements import Announcements
from apps.servers.transports.base import LISTEN, Json, UpstreamAnswer, UpstreamRequest
from apps.servers.transports.http_wire import (
    FINISH_SECONDS,
    HttpWire,
    MessageStream,
    is_stream,
    read_json,
    read_refusal,
    refuse_status,
)
from apps.servers.transports.watching import Watched
from apps.servers.transports.wire import (
    LATEST_MODERN,
    METHOD_NOT_FOUND,
    NAME_MEMBER,
    UNSUPPORTED_VERSION,
    answer_of,
    error_in,
    header_value,
    modern_params,
    own_progress,
    request_body,
)

LISTEN_LIMITS = Limits(sock_connect=10.0, sock_read=300.0)
"""A standing stream that says nothing for 5 minutes (no keep-alive comment either) counts as dead."""
LISTEN_BYTES = 4 * 1024 * 1024
_KEPT_HEADERS = 512


class NotModern(Exception):
    """The server refused a modern request at its door, in a way that older servers do; nothing was run.

    `message` is what it said, if that was JSON.
    """

    def __init__(self, status: int, message: Any) -> None:
        super().__init__(status)
        self.status = status
        self.message = message


class ModernHttp:
    """Speaks 2026-07-28 to one endpoint."""

    def __init__(self, wire: HttpWire) -> None:
        self._wire = wire
        self._base = wire.headers.changed({"MCP-Protocol-Version": LATEST_MODERN})
        self._headers: dict[tuple[str, str | None], RequestHeaders] = {}

    def _headers_of(self, request: UpstreamRequest) -> RequestHeaders:
        """Return the headers of this request; those without parameters of their own are kept."""
        method, params = request.method, request.params
        member = NAME_MEMBER.get(method)
        name = params.get(member) if member is not None else None
        if type(name) is not str:
            name = None
        headers = self._headers.get((method, name))
        if headers is None:
            fields = {"Mcp-Method": header_value(method)}
            if name is not None:
                fields["Mcp-Name"] = header_value(name)
            headers = self._base.changed(fields)
            if member != "taskId":  # a task's name comes once, or a few times
                if len(self._headers) >= _KEPT_HEADERS:
                    self._headers.clear()
                self._headers[method, name] = headers
        if request.param_headers:
            return headers.changed(request.param_headers)
        return headers

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Send a request and return its answer; cancelling closes the stream, which is how this era cancels.

        Raises NotModern, and the UpstreamError family.
        """
        wire = self._wire
        id = wire.next_id()
        body = request_body(id, request.method, modern_params(request, id))
        response = await wire.post(self._headers_of(request), body, request)
        if response.status != 200:
            return await self._refused(response, id)
        if is_stream(response):
            return await self._stream(response, id, request)
        message, raw, hold = await read_json(response, request.max_bytes, wire)
        return answer_of(message, id, LATEST_MODERN, len(raw), raw, hold)

    async def _refused(self, response: HttpResponse, id: int) -> UpstreamAnswer:
        """Return the JSON-RPC error of a 4xx; raise NotModern when it is not this era's."""
        refuse_status(response)
        status = response.status
        if status < 300:
            response.close()
            raise UpstreamProtocolError(f"The server answered HTTP {status} and no result.")
        message = await read_refusal(response)
        error = error_in(message)
        if error is None or message.get("id") != id or error["code"] == UNSUPPORTED_VERSION:
            if status < 500:
                raise NotModern(status, message)
            if error is None:
                raise UpstreamError(f"The server failed (HTTP {status}).")
        return UpstreamAnswer(None, error, LATEST_MODERN, 0)

    async def _stream(self, response: HttpResponse, id: int, request: UpstreamRequest) -> UpstreamAnswer:
        """Read the event stream of one request up to its answer."""
        stream = MessageStream(request.max_bytes, self._wire, endless=request.method == LISTEN)
        try:
            while (messages := await stream.messages(response)) is not None:
                for message, raw, hold in messages:
                    if type(message) is dict and "method" in message:
                        # A modern server has no requests; a message with an id is none of ours to answer.
                        if request.on_message is not None and "id" not in message:
                            await request.on_message(own_progress(message))
                        continue
                    answer = answer_of(message, id, LATEST_MODERN, stream.size, raw, hold)
                    response.finish_soon(FINISH_SECONDS)
                    return answer
        except BaseException:
            response.close()
            raise
        raise UpstreamDied("The server ended the stream before its answer.")

    async def discover(self, timeout: float, capabilities: Json | None = None) -> tuple[int, Any]:
        """Send `server/discover`, declaring `capabilities`; return the status and the JSON body of a refusal or an answer.

        Raises the UpstreamError family where the server cannot be reached or its answer is no MCP.
        """
        request = UpstreamRequest("server/discover", {}, timeout=timeout, client_capabilities=capabilities or {})
        try:
            answer = await self.call(request)
        except NotModern as refused:
            return refused.status, refused.message
        return 200, {"result": answer.result} if answer.error is None else {"error": answer.error}

    async def listen(self, announcements: Announcements, watched: Watched, opened: Callable[[], None]) -> bool:
        """Follow the server's changes on a `subscriptions/listen` stream until it ends; `opened` tells that it stands.

        When other resources are watched, a stream with the new filter is opened before the old one is closed. Returns False when
        the server has no such stream. Raises the UpstreamError family.
        """
        loop = asyncio.get_running_loop()
        streams: list[asyncio.Task[bool]] = []
        try:
            while True:
                watched.changed.clear()
                stands = asyncio.Event()
                stream = loop.create_task(self._follow(announcements, watched, stands, opened))
                streams.append(stream)
                await _first(stream, stands)
                for old in streams[:-1]:
                    old.cancel()
                await _first(stream, watched.changed)
                if stream.done():
                    return stream.result()
        finally:
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)

    async def _follow(
        self, announcements: Announcements, watched: Watched, stands: asyncio.Event, opened: Callable[[], None]
    ) -> bool:
        """Follow one stream until it ends; False when the server refuses it."""
        wire = self._wire
        id = wire.next_id()
        wanted = watched.filter
        request = UpstreamRequest(LISTEN, {"notifications": wanted})
        body = request_body(id, request.method, modern_params(request, id))
        response = await wire.http.request("POST", wire.url, headers=self._headers_of(request), body=body, limits=LISTEN_LIMITS)
        try:
            if response.status != 200 or not is_stream(response):
                refuse_status(response)
                return False
            opened()
            stream = MessageStream(LISTEN_BYTES, wire, endless=True)
            while (messages := await stream.messages(response)) is not None:
                for message, _, _ in messages:
                    if type(message) is not dict:
                        continue
                    if message.get("method") == "notifications/subscriptions/acknowledged":
                        watched.acknowledged(wanted, message)
                        stands.set()
                    elif "method" in message:
                        announcements.take(message)
                    else:
                        error = error_in(message)
                        return error is None or error["code"] != METHOD_NOT_FOUND
            return True
        finally:
            response.close()


async def _first(stream: asyncio.Task[bool], event: asyncio.Event) -> None:
    """Wait for the end of a stream or for an event."""
    waiting = asyncio.get_running_loop().create_task(event.wait())
    try:
        await asyncio.wait({stream, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
