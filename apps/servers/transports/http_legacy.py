"""Streamable HTTP with the initialize handshake (2025-03-26 to 2025-11-25): one session, shared by all callers."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from apps.common.errors import AddressRefused, UpstreamDied, UpstreamError, UpstreamProtocolError, UpstreamUnavailable
from apps.common.http import HttpResponse, RequestHeaders
from apps.servers.domain import LEGACY_REVISIONS
from apps.servers.transports.announcements import Announcements, reconnect
from apps.servers.transports.base import Json, UpstreamAnswer, UpstreamRequest
from apps.servers.transports.floods import Flooded
from apps.servers.transports.http_call_stream import CallStream
from apps.servers.transports.http_modern import LISTEN_BYTES, LISTEN_LIMITS
from apps.servers.transports.http_standing import OwnStream
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
    CLIENT_INFO,
    LATEST_LEGACY,
    META_CAPABILITIES,
    META_CLIENT_INFO,
    META_VERSION,
    UNSUPPORTED_VERSION,
    answer_of,
    error_in,
    legacy_params,
    notification_body,
    refuse_request,
    reply_body,
    request_body,
    says_more,
)

INITIALIZE_BYTES = 1024 * 1024
PLAIN_ERRORS, PLAIN_SECONDS = 100, 30.0
"""Errors with HTTP 404 that a new session did not help with: no further one is made for these for so long."""


class ModernOnly(Exception):
    """The server answered the handshake with "unsupported protocol version": it speaks the modern era alone."""


class SessionLost(Exception):
    """The server does not know the session (any more); the request was not run. `message` is its JSON, if any.

    `own`: it is an error about this very request, which some servers also give for a method or a name that they do not know.
    """

    def __init__(self, status: int, message: Any, *, own: bool = False) -> None:
        super().__init__(status)
        self.status = status
        self.message = message
        self.own = own


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

    def __init__(
        self, wire: HttpWire, announcements: Announcements, capabilities: Json, watched: Watched | None = None
    ) -> None:
        self._wire = wire
        self._announcements = announcements
        self._watched = watched if watched is not None else Watched(announcements)
        self._own_stream = OwnStream(self) if watched is None else None
        """Of a caller's session; ours is followed by `listen`."""
        self._capabilities = capabilities
        self._session: LegacySession | None = None
        self._lock = asyncio.Lock()
        self._lost = False
        self._plain: dict[tuple[int, str], float] = {}

    async def session(self) -> LegacySession:
        """Return the session, initializing it first where there is none; callers at the same time share the handshake."""
        session = self._session
        if session is None:
            async with self._lock:
                session = self._session
                if session is None:
                    session = self._session = await self.initialize(LATEST_LEGACY)
                    if self._watched:
                        self._wire.background(self._watched.again(partial(self._exchange, session)))
                    if self._lost:
                        self._lost = False
                        self._announcements.everything()
        return session

    async def initialize(
        self, revision: str, *, beside_modern: bool = False, capabilities: Json | None = None
    ) -> LegacySession:
        """Do the handshake, offering `revision`, and return the new session without keeping it.

        A server that speaks 2026-07-28 as well (`beside_modern`) gets with it what that revision wants of every request.
        `capabilities` are declared instead of this way's own.
        Raises ModernOnly, and the UpstreamError family.
        """
        wire = self._wire
        id = wire.next_id()
        declared = self._capabilities if capabilities is None else capabilities
        params: Json = {"protocolVersion": revision, "capabilities": declared, "clientInfo": CLIENT_INFO}
        headers = wire.headers
        if beside_modern:
            headers = headers.changed({"MCP-Protocol-Version": revision, "Mcp-Method": "initialize"})
            params["_meta"] = {META_VERSION: revision, META_CLIENT_INFO: CLIENT_INFO, META_CAPABILITIES: declared}
        response = await wire.post(headers, request_body(id, "initialize", params))
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
        try:
            await self._set_level(session, request)
            return await self._exchange(session, request)
        except SessionLost as lost:
            error = error_in(lost.message) if lost.own else None
            if error is not None and self._plain.get(_words(error), 0.0) > asyncio.get_running_loop().time():
                return UpstreamAnswer(None, error, session.revision, 0)
            doubtful = error is not None
            self.forget(session, certain=not doubtful)
        session = await self.session()
        try:
            await self._set_level(session, request)
            answer = await self._exchange(session, request)
        except SessionLost as again:
            error = error_in(again.message)
            if error is not None:
                if again.own:
                    self._note_plain(error)
                return UpstreamAnswer(None, error, session.revision, 0)
            raise UpstreamProtocolError(f"The server answered HTTP {again.status}, also with a new session.") from None
        if doubtful:
            self._announcements.everything()
        return answer

    @property
    def watching(self) -> bool:
        """Tell whether anything is subscribed to."""
        return bool(self._watched)

    async def watch(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Subscribe to a resource in the session, or unsubscribe."""
        return self._watched.note(request, await self.call(request))

    async def follow(self) -> None:
        """Follow the session's standalone stream, reconnecting with growing pauses; return when the server has none."""
        missed = False

        def opened() -> None:
            nonlocal missed
            if missed:
                missed = False
                self._watched.missed()

        async def attempt() -> bool:
            nonlocal missed
            with suppress(UpstreamError, AddressRefused, ModernOnly):
                if not await self.listen(opened):
                    return False
            missed = True
            return True

        await reconnect(attempt)

    def forget(self, session: LegacySession, *, certain: bool = True) -> None:
        """Drop the session that the server has lost, unless a newer one has taken its place; a `certain` loss is announced."""
        if self._session is session:
            self._session, self._lost = None, self._lost or certain
            self._leave_stream()

    def _note_plain(self, error: Json) -> None:
        """Remember an error that comes with 404 in a new session as well: for a while it says nothing about sessions."""
        if len(self._plain) >= PLAIN_ERRORS:
            self._plain.clear()
        self._plain[_words(error)] = asyncio.get_running_loop().time() + PLAIN_SECONDS

    def _leave_stream(self) -> None:
        if self._own_stream is not None:
            self._own_stream.close()

    async def _exchange(self, session: LegacySession, request: UpstreamRequest) -> UpstreamAnswer:
        """One request and its answer."""
        id = self._wire.next_id()
        if self._own_stream is None:
            return await self._converse(session, request, id)
        await self._own_stream.have(session, request)
        if not self._own_stream.takes_turns(request):
            with self._own_stream.running(id, request):
                return await self._converse(session, request, id)
        async with self._own_stream.turns.turn(request) as turn:
            with self._own_stream.running(id, request):
                try:
                    return turn.over(await self._converse(session, request, id))
                except SessionLost:
                    request.sent = False  # it was not run
                    raise

    async def _converse(self, session: LegacySession, request: UpstreamRequest, id: int) -> UpstreamAnswer:
        wire = self._wire
        body = request_body(id, request.method, legacy_params(request, id))
        try:
            response = await wire.post(session.headers, body, request)
            if response.status != 200:
                return await self._refused(response, session, id)
            if is_stream(response):
                return await CallStream(self, wire, session, request, id).read(response)
            message, raw, hold = await read_json(response, request.max_bytes, wire)
            return answer_of(message, id, session.revision, len(raw), raw, hold)
        except asyncio.CancelledError:
            # Here a closed stream does not cancel: the server has to be told.
            params = {"requestId": id, "reason": "The caller cancelled or its time is over."}
            notice = notification_body("notifications/cancelled", params)
            wire.notice(lambda: self._send(session, notice), len(notice))
            raise

    async def _refused(self, response: HttpResponse, session: LegacySession, id: int) -> UpstreamAnswer:
        """Return the JSON-RPC error of a 4xx; raise SessionLost for a 404 in a session, and a 400 that is not about this request."""
        refuse_status(response)
        status = response.status
        if status < 300:
            response.close()
            raise UpstreamProtocolError(f"The server answered HTTP {status} and no result.")
        message = await read_refusal(response)
        error = error_in(message)
        own = error is not None and message.get("id") == id
        if (status in {400, 404} and not own) or (status == 404 and session.id is not None):
            raise SessionLost(status, message, own=own)
        if error is None:
            raise UpstreamProtocolError(f"The server answered HTTP {status}.")
        return UpstreamAnswer(None, error, session.revision, 0)

    async def _set_level(self, session: LegacySession, request: UpstreamRequest) -> None:
        """Ask for log messages as a caller wants them; the level belongs to the session, which others use as well."""
        level = request.log_level
        offered = session.result.get("capabilities") or {}
        if level is None or not says_more(level, session.log_level) or "logging" not in offered:
            return
        session.log_level = level
        await self._exchange(session, UpstreamRequest("logging/setLevel", {"level": level}))

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
        if self._own_stream is not None:
            return await self._own_stream.read(session, opened)

        async def take(session: LegacySession, message: Any) -> None:
            self.take(session, message)

        return await self.read_stream(session, opened, take, judge=True)

    async def read_stream(
        self,
        session: LegacySession,
        opened: Callable[[], None],
        take: Callable[[LegacySession, Any], Awaitable[None]],
        *,
        judge: bool = False,
    ) -> bool:
        """Read a session's standalone stream to its end, False when the server has none.

        With `judge`, a refusal that servers have for sessions they have forgotten counts as that; many have it for the stream too.
        """
        headers = session.headers.changed({"Accept": "text/event-stream"}, without=("Content-Type",))
        response = await self._wire.http.request("GET", self._wire.url, headers=headers, limits=LISTEN_LIMITS)
        try:
            if judge:
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
                    await take(session, message)
            return True
        except Flooded as flooded:
            raise flooded.plain() from None
        finally:
            response.close()

    async def end(self, session: LegacySession | None = None) -> None:
        """DELETE a session (the kept one by default); errors are of no consequence."""
        if session is None:
            session, self._session = self._session, None
            self._leave_stream()
        if session is None or session.id is None:
            return
        try:
            async with asyncio.timeout(2.0):
                response = await self._wire.http.request("DELETE", self._wire.url, headers=session.headers)
                response.close()
        except (UpstreamError, TimeoutError):
            return


def _words(error: Json) -> tuple[int, str]:
    return error["code"], error["message"][:200]
