"""Streamable HTTP with the initialize handshake (2025-03-26 to 2025-11-25): one session, shared by all callers."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from apps.common.errors import UpstreamDied, UpstreamError, UpstreamProtocolError, UpstreamUnavailable
from apps.common.http import HttpResponse, RequestHeaders
from apps.servers.domain import LEGACY_REVISIONS
from apps.servers.transports.announcements import Announcements
from apps.servers.transports.base import Json, UpstreamAnswer, UpstreamRequest
from apps.servers.transports.floods import Flooded
from apps.servers.transports.http_modern import LISTEN_BYTES, LISTEN_LIMITS
from apps.servers.transports.http_wire import (
    FINISH_SECONDS,
    HttpWire,
    MessageStream,
    is_stream,
    read_json,
    read_refusal,
    refuse_status,
)
from apps.servers.transports.memory import Hold
from apps.servers.transports.wire import (
    CLIENT_INFO,
    LATEST_LEGACY,
    UNSUPPORTED_VERSION,
    answer_of,
    error_in,
    legacy_params,
    notification_body,
    own_progress,
    refuse_request,
    reply_body,
    request_body,
)

_OF_A_CALL = frozenset(("notifications/progress", "notifications/message", "notifications/elicitation/complete"))
INITIALIZE_BYTES = 1024 * 1024
RESUMES = 100
"""How often one answer's broken stream is taken up again."""


class ModernOnly(Exception):
    """The server answered the handshake with "unsupported protocol version": it speaks the modern era alone."""


class SessionLost(Exception):
    """The server does not know the session (any more); the request was not run. `message` is its JSON, if any."""

    def __init__(self, status: int, message: Any) -> None:
        super().__init__(status)
        self.status = status
        self.message = message


@dataclass(slots=True, eq=False)
class LegacySession:
    """One initialized session; `id` is None with servers that keep none."""

    id: str | None
    revision: str
    result: Json
    headers: RequestHeaders = field(repr=False)
    log_level: str = ""


class LegacyHttp:
    """Speaks the initialize era to one endpoint."""

    def __init__(self, wire: HttpWire, announcements: Announcements, capabilities: Json) -> None:
        self._wire = wire
        self._announcements = announcements
        self._capabilities = capabilities
        self._session: LegacySession | None = None
        self._lock = asyncio.Lock()
        self._lost = False

    async def session(self) -> LegacySession:
        """Return the session, initializing it first where there is none; callers at the same time share the handshake."""
        session = self._session
        if session is None:
            async with self._lock:
                session = self._session
                if session is None:
                    session = self._session = await self.initialize(LATEST_LEGACY)
                    if self._lost:
                        self._lost = False
                        self._announcements.everything()
        return session

    async def initialize(self, revision: str) -> LegacySession:
        """Do the handshake, offering `revision`, and return the new session without keeping it.

        Raises ModernOnly, and the UpstreamError family.
        """
        wire = self._wire
        id = wire.next_id()
        params: Json = {"protocolVersion": revision, "capabilities": self._capabilities, "clientInfo": CLIENT_INFO}
        response = await wire.post(wire.headers, request_body(id, "initialize", params))
        refuse_status(response)
        if response.status >= 300:
            message = await read_refusal(response)
            error = error_in(message)
            if error is not None and error["code"] == UNSUPPORTED_VERSION:
                raise ModernOnly
            said = f": {error['message'][:200]}" if error is not None else ""
            raise UpstreamProtocolError(f"The server refused the handshake (HTTP {response.status}){said}")
        message = await self._first_answer(response, id)
        answer = answer_of(message, id, revision, 0)
        if answer.result is None:
            if answer.error is not None and answer.error["code"] == UNSUPPORTED_VERSION:
                raise ModernOnly
            raise UpstreamProtocolError(f"The server refused the handshake: {(answer.error or {}).get('message', '')[:200]}")
        spoken = answer.result.get("protocolVersion")
        if spoken not in LEGACY_REVISIONS:
            raise UpstreamProtocolError(f"The server speaks MCP revision {str(spoken)[:20]}, which Switchyard does not.")
        session_id = response.headers.get("Mcp-Session-Id")
        fields = {"MCP-Protocol-Version": spoken}
        if session_id is not None:
            fields["Mcp-Session-Id"] = session_id
        session = LegacySession(session_id, spoken, answer.result, wire.headers.changed(fields))
        await self._send(session, notification_body("notifications/initialized"))
        return session

    async def _first_answer(self, response: HttpResponse, id: int) -> Any:
        """Return the response to `initialize`, out of JSON or an event stream."""
        if not is_stream(response):
            return (await read_json(response, INITIALIZE_BYTES, self._wire))[0]
        stream = MessageStream(INITIALIZE_BYTES, self._wire)
        try:
            while (messages := await stream.messages(response)) is not None:
                for message, _, _ in messages:
                    if type(message) is dict and message.get("id") == id and "method" not in message:
                        response.finish_soon(FINISH_SECONDS)
                        return message
        except BaseException:
            response.close()
            raise
        raise UpstreamDied("The server ended the stream of the handshake before its answer.")

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Send a request in the session and return its answer.

        When the server has forgotten the session, a new one is made and the request sent once more: it was not run.
        Raises ModernOnly, and the UpstreamError family.
        """
        session = await self.session()
        await self._set_level(session, request)
        try:
            return await self._exchange(session, request)
        except SessionLost:
            self.forget(session)
        session = await self.session()
        try:
            return await self._exchange(session, request)
        except SessionLost as lost:
            error = error_in(lost.message)
            if error is not None:
                return UpstreamAnswer(None, error, session.revision, 0)
            raise UpstreamProtocolError(f"The server answered HTTP {lost.status}, also with a new session.") from None

    def forget(self, session: LegacySession) -> None:
        """Drop the session that the server has lost, unless a newer one has taken its place."""
        if self._session is session:
            self._session, self._lost = None, True

    async def _exchange(self, session: LegacySession, request: UpstreamRequest) -> UpstreamAnswer:
        """One request and its answer."""
        wire = self._wire
        id = wire.next_id()
        body = request_body(id, request.method, legacy_params(request, id))
        try:
            response = await wire.post(session.headers, body, request)
            if response.status != 200:
                return await self._refused(response, session, id)
            if is_stream(response):
                return await _LegacyStream(self, wire, session, request, id).read(response)
            message, raw, hold = await read_json(response, request.max_bytes, wire)
            return answer_of(message, id, session.revision, len(raw), raw, hold)
        except asyncio.CancelledError:
            # Here a closed stream does not cancel: the server has to be told.
            params = {"requestId": id, "reason": "The caller cancelled or its time is over."}
            notice = notification_body("notifications/cancelled", params)
            wire.notice(lambda: self._send(session, notice), len(notice))
            raise

    async def _refused(self, response: HttpResponse, session: LegacySession, id: int) -> UpstreamAnswer:
        """Return the JSON-RPC error of a 4xx; raise SessionLost for 404 and for a 400 that is not about this request."""
        refuse_status(response)
        status = response.status
        if status < 300:
            response.close()
            raise UpstreamProtocolError(f"The server answered HTTP {status} and no result.")
        message = await read_refusal(response)
        error = error_in(message)
        if status in {400, 404} and not (error is not None and message.get("id") == id):
            raise SessionLost(status, message)
        if error is None:
            raise UpstreamProtocolError(f"The server answered HTTP {status}.")
        return UpstreamAnswer(None, error, session.revision, 0)

    async def _set_level(self, session: LegacySession, request: UpstreamRequest) -> None:
        """Ask for log messages once a caller wants them; the level belongs to the session, so the first wish counts."""
        if request.log_level is None or session.log_level or "logging" not in (session.result.get("capabilities") or {}):
            return
        session.log_level = request.log_level
        await self._exchange(session, UpstreamRequest("logging/setLevel", {"level": request.log_level}))

    async def _send(self, session: LegacySession, body: bytes) -> None:
        """POST a notification or a reply; what the server answers is of no consequence."""
        response = await self._wire.post(session.headers, body)
        try:
            await response.read(65_536)
        except UpstreamError:
            response.close()

    def answer_request(self, session: LegacySession, message: Json, outcome: Json) -> None:
        """Send the outcome of a server's request back, in its turn; Flooded when too many wait for theirs."""
        body = reply_body(message.get("id"), outcome)
        self._wire.reply(lambda: self._send(session, body), len(body))

    async def notify(self, method: str, params: Json | None) -> None:
        """Send a notification, if a session is open."""
        session = self._session
        if session is not None:
            await self._send(session, notification_body(method, params))

    def take(self, session: LegacySession, message: Any) -> None:
        """Deal with a message that belongs to no call."""
        if type(message) is not dict or "method" not in message:
            return
        if "id" in message:
            self.answer_request(session, message, refuse_request(message))
        else:
            self._announcements.take(message)

    async def resume(self, session: LegacySession, last_id: str) -> HttpResponse:
        """Take up a broken stream after the event `last_id`; UpstreamDied when the server cannot."""
        headers = session.headers.changed({"Accept": "text/event-stream", "Last-Event-ID": last_id}, without=("Content-Type",))
        try:
            response = await self._wire.http.request("GET", self._wire.url, headers=headers)
        except UpstreamUnavailable:
            raise UpstreamDied("The server's stream broke before its answer and the server is gone.") from None
        if response.status != 200 or not is_stream(response):
            response.close()
            raise UpstreamDied("The server's stream broke before its answer and cannot be resumed.")
        return response

    async def listen(self, opened: Callable[[], None]) -> bool:
        """Follow the session's standalone stream until it ends, False when the server has none (405).

        `opened` tells that it stands.
        """
        session = await self.session()
        headers = session.headers.changed({"Accept": "text/event-stream"}, without=("Content-Type",))
        response = await self._wire.http.request("GET", self._wire.url, headers=headers, limits=LISTEN_LIMITS)
        try:
            if response.status == 404 or (response.status == 400 and session.id is not None):
                self.forget(session)
                raise UpstreamUnavailable("The server has forgotten the session.")
            refuse_status(response)
            if response.status != 200 or not is_stream(response):
                return False
            opened()
            stream = MessageStream(LISTEN_BYTES, self._wire, endless=True)
            while (messages := await stream.messages(response)) is not None:
                for message, _, _ in messages:
                    self.take(session, message)
            return True
        except Flooded as flooded:
            raise flooded.plain() from None
        finally:
            response.close()

    async def end(self, session: LegacySession | None = None) -> None:
        """DELETE a session (the kept one by default); errors are of no consequence."""
        if session is None:
            session, self._session = self._session, None
        if session is None or session.id is None:
            return
        try:
            async with asyncio.timeout(2.0):
                response = await self._wire.http.request("DELETE", self._wire.url, headers=session.headers)
                response.close()
        except (UpstreamError, TimeoutError):
            return


class _LegacyStream:
    """The event stream of one request: notifications, the server's own requests, the answer; resumed when it breaks."""

    def __init__(self, http: LegacyHttp, wire: HttpWire, session: LegacySession, request: UpstreamRequest, id: int) -> None:
        self._http = http
        self._session = session
        self._request = request
        self._id = id
        self._stream = MessageStream(request.max_bytes, wire)
        self._asked: dict[Any, asyncio.Task[None]] = {}

    async def read(self, response: HttpResponse) -> UpstreamAnswer:
        """Return the answer. Raises UpstreamDied when the stream breaks and cannot be resumed."""
        stream = self._stream
        try:
            for _ in range(RESUMES):
                try:
                    while (messages := await stream.messages(response)) is not None:
                        for message, raw, hold in messages:
                            answer = await self._take(message, raw, hold)
                            if answer is not None:
                                response.finish_soon(FINISH_SECONDS)
                                return answer
                except UpstreamDied:
                    if stream.last_id is None:
                        raise
                if stream.last_id is None:
                    break
                await asyncio.sleep(min(stream.retry if stream.retry is not None else 500, 30_000) / 1000)
                response = await self._http.resume(self._session, stream.last_id)
            raise UpstreamDied("The server ended the stream before its answer.")
        except BaseException as error:
            response.close()
            if isinstance(error, Flooded):
                raise error.plain() from None
            raise
        finally:
            for task in self._asked.values():
                task.cancel()

    async def _take(self, message: Any, raw: bytes, hold: Hold | None) -> UpstreamAnswer | None:
        """Deal with one message; return the answer when it is that."""
        if type(message) is not dict or "method" not in message:
            return answer_of(message, self._id, self._session.revision, self._stream.size, raw, hold)
        if "id" in message:
            self._ask(message)
        elif message["method"] == "notifications/cancelled":
            params = message.get("params")
            key = params.get("requestId") if type(params) is dict else None
            asked = self._asked.pop(key, None) if isinstance(key, str | int) else None
            if asked is not None:
                asked.cancel()
        elif self._request.on_message is not None and message["method"] in _OF_A_CALL:
            await self._request.on_message(own_progress(message))
        else:
            self._http.take(self._session, message)
        return None

    def _ask(self, message: Json) -> None:
        """Answer a server's request beside the stream, so that a slow answer does not hold up what comes after it."""
        ask = self._request.on_request
        if ask is None or message["method"] == "ping" or len(self._asked) >= 100:
            self._http.answer_request(self._session, message, refuse_request(message))
            return

        async def work() -> None:
            with suppress(Flooded):
                self._http.answer_request(self._session, message, await ask(message))

        key = message["id"] if isinstance(message["id"], str | int) else str(message["id"])
        task = asyncio.get_running_loop().create_task(work())
        self._asked[key] = task
        task.add_done_callback(lambda _: self._asked.pop(key, None))
