"""Recordings of what passes: each message on both sides of the gateway. Nothing of this runs, and nothing is asked beyond one attribute,
while nobody records.

The client's side is seen where messages are read and written (`front`, `Reply`), the server's side around each request of a call. Only
JSON-RPC is looked at: no header and no credential ever comes here.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from apps.common.errors import SwitchyardError
from apps.gateway.plane.call import Call, Json
from apps.gateway.plane.http import Headers
from apps.gateway.plane.mcp.session import SessionGone
from apps.gateway.plane.mcp.tapped import CUT, Tapped, message_of
from apps.gateway.plane.ports import Facts, RecordedMessage, RecordingFacts
from apps.servers.domain import ServerFacts
from apps.servers.transports.base import OnMessage, OnRequest, UpstreamAnswer, UpstreamRequest

if TYPE_CHECKING:
    from apps.gateway.plane.mcp.visit import Visit

REMEMBERED = 2_000
"""Requests whose answers are looked for."""
OPEN, OPEN_BYTES = 256, 32 * 1024 * 1024
"""Requests that have yet to become calls."""
_SESSION = b"mcp-session-id"
Send = Callable[[ServerFacts, UpstreamRequest], Awaitable[UpstreamAnswer]]


_NONE = msgspec.Raw()


class _Head(msgspec.Struct):
    id: msgspec.Raw = _NONE
    method: str | None = None
    error: msgspec.Raw = _NONE


_head_of = msgspec.json.Decoder(_Head).decode


@dataclass(slots=True, eq=False)
class _Heard:
    """A request of a client's: the recordings that have it, and those that will once it is known which server it goes to."""

    message: RecordedMessage
    recordings: set[str]
    session: str | None
    call_id: str = ""


class Tap:
    """Sees what passes in this process, for the recordings that are on. Belongs to one event loop."""

    def __init__(self, recordings: Iterable[RecordingFacts], facts: Facts, on_full: Callable[[], None] | None = None) -> None:
        self._tapped = Tapped(facts)
        self._tapped.on_full = on_full
        self.flush = self._tapped.flush
        self._open: OrderedDict[int, tuple[Any, int, _Heard]] = OrderedDict()
        """Address of the params of a request → these, the bytes they came in, and it; until its call begins."""
        self._open_bytes = 0
        self._asked: OrderedDict[Any, _Heard] = OrderedDict()
        """(Session or caller and place, JSON-RPC id or progress token) → the request that an answer or a notification belongs to."""
        self._calls: OrderedDict[Any, _Heard] = OrderedDict()
        """Call → the request that it began with."""
        self.update(recordings)

    def update(self, recordings: Iterable[RecordingFacts]) -> None:
        """Put other recordings in force; what goes on keeps its count."""
        self._tapped.update(recordings)

    def _by_server(self) -> bool:
        """Tell whether a server is recorded, which is known only when a request has become a call."""
        return any(one.kind == "server" and self._tapped.takes(one.id) for one in self._tapped.recordings.values())

    @property
    def seconds_left(self) -> float:
        """Return when the first of them ends."""
        return min((one.until_us for one in self._tapped.recordings.values()), default=0) / 1e6 - time.time()

    # The client's side

    def received(self, visit: "Visit", message: Any, headers: Headers, session: str | None) -> None:
        """A client has sent something; `session` is the one of its stream, which its headers do not name."""
        token = headers.get(_SESSION)
        if session is None and token is not None:
            owner = visit.caller.principal.id
            try:
                session = visit.plane.sessions.open(token, principal=owner, toolset=visit.target.slug).sid
            except SessionGone:
                session = None
        if isinstance(message, dict):
            visit.heard = self._receive(visit, message, session, visit.size)
        elif isinstance(message, list):
            for one in message:
                if isinstance(one, dict):
                    self._receive(visit, one, session, 0)

    def _receive(self, visit: "Visit", message: Json, session: str | None, size: int) -> _Heard | None:
        chosen = self._tapped.wanting(self._of_client(visit, session))
        if not chosen and not self._by_server():
            return None
        owner, id, method, params = _owner(visit, session), message.get("id"), message.get("method"), message.get("params")
        kind = ("notification" if "id" not in message else "request") if method is not None else _answered(message)
        record = message_of("client", "in", kind, message, method=method, id=id, size=size)
        heard = _Heard(record, chosen, session)
        if method is None:
            known = self._asked.get((owner, _key(id)))
            if known is not None:
                record.call_id, record.server, record.method = known.call_id, known.message.server, known.message.method
                chosen |= known.recordings
        else:
            if id is not None:
                self._remember(self._asked, (owner, _key(id)), heard)
            if isinstance(params, dict):
                meta = params.get("_meta")
                if isinstance(meta, dict) and "progressToken" in meta:
                    self._remember(self._asked, (owner, _token(meta["progressToken"])), heard)
                self._hold(params, size, heard)
        self._tapped.keep(record, chosen)
        return heard

    def began(self, visit: "Visit", call: Call) -> None:
        """A request has become a call, or has taken one up."""
        held = self._open.pop(address_of(call.params), None)
        heard: _Heard | None = visit.heard
        if held is not None:
            self._open_bytes -= held[1]
            heard = held[2]
        if heard is not None:
            visit.heard = heard
            heard.call_id = heard.message.call_id = call.call_id
            heard.message.revision, heard.message.client = visit.revision, visit.client
            self._remember(self._calls, call.call_id, heard)

    def sent(self, visit: "Visit", body: bytes) -> None:
        """A client is sent something: an answer, a notification, a request of a server's."""
        session = visit.heard.session if visit.heard is not None else None
        chosen, owner = self._of_client(visit, session), _owner(visit, session)
        for one in _entries(body) if body[:1] == b"[" else (body,):
            self._say(visit, one, owner, chosen)

    def _say(self, visit: "Visit", body: bytes, owner: str, chosen: set[str]) -> None:
        try:
            head = _head_of(body)
        except msgspec.MsgspecError:
            return
        id = msgspec.json.decode(head.id) if bytes(head.id) else None
        # on a request's own stream all belongs to it; elsewhere an answer is known by its id
        heard: _Heard | None = visit.heard
        if heard is None:
            heard = self._asked.get((owner, _key(id))) if head.method is None else self._told_of(owner, head.method, body)
        wanted = self._tapped.wanting(chosen | heard.recordings if heard is not None else chosen)
        if not wanted:
            return
        kind = "error" if bytes(head.error) else "result"
        if head.method is not None:
            kind = "notification" if id is None else "request"
        record = message_of(
            "client", "out", kind, body, method=head.method, id=id, size=len(body), revision=visit.revision, client=visit.client
        )
        if heard is not None:
            record.call_id, record.server = heard.call_id, heard.message.server
            record.method = record.method or heard.message.method
            if kind == "request":  # a server's; its answer belongs to the same call
                self._remember(self._asked, (owner, _key(id)), replace(heard, message=record))
        self._tapped.keep(record, wanted)

    def _told_of(self, owner: str, method: str, body: bytes) -> _Heard | None:
        """Return the request that a notification on a shared stream belongs to: the one with its progress token."""
        if method != "notifications/progress" or len(body) > CUT:
            return None
        params = msgspec.json.decode(body).get("params")
        token = params.get("progressToken") if isinstance(params, dict) else None
        return self._asked.get((owner, _token(token)))

    # The server's side

    def through(self, call: Call, send: Send) -> Send:
        """Return `send`, watched where somebody records this call."""
        chosen = self._of_call(call)
        return self._watched(call, send, chosen) if chosen else send

    def _watched(self, call: Call, send: Send, chosen: set[str]) -> Send:
        async def watched(facts: ServerFacts, request: UpstreamRequest) -> UpstreamAnswer:
            side = _ServerSide(self._tapped, call.call_id, facts.slug, chosen)
            side.note("out", "request", {"method": request.method, "params": request.params}, request.method)
            if request.on_message is not None and not isinstance(request.on_message, _Hearing):
                request.on_message = _Hearing(side, request.on_message)
            if request.on_request is not None and not isinstance(request.on_request, _Answering):
                request.on_request = _Answering(side, request.on_request)
            try:
                answer = await send(facts, request)
            except SwitchyardError as error:
                side.note("in", "error", {"gateway": {"type": error.slug, "message": error.detail}}, request.method)
                raise
            if answer.error is not None:
                side.note("in", "error", {"error": answer.error}, request.method, size=answer.size, revision=answer.revision)
            else:
                body: Any = answer.raw or {"result": answer.result}
                side.note("in", "result", body, request.method, size=answer.size, revision=answer.revision)
            return answer

        return watched

    def announced(self, server_id: str, method: str, params: Json) -> None:
        """A server has announced something beside any call."""
        chosen = {one.id for one in self._tapped.recordings.values() if (one.kind, one.object_id) == ("server", server_id)}
        if chosen:
            slug = next(self._tapped.recordings[id].label for id in chosen)
            message = {"method": method, "params": params}
            _ServerSide(self._tapped, "", slug, chosen).note("in", "notification", message, method)

    # Which recordings

    def _of_client(self, visit: "Visit", session: str | None) -> set[str]:
        """Return the recordings of the key, the toolset or the session, and those of the server whose own toolset this is."""
        key, target = visit.caller.key, visit.target
        objects = {
            ("api_key", key.id if key is not None else ""),
            ("toolset", target.toolset_id),
            ("session", visit.session or session or ""),
            ("server", target.server.facts.id if target.server is not None else ""),
        }
        return self._about(target.tenant_id, objects)

    def _of_call(self, call: Call) -> set[str]:
        assert call.server is not None
        key, target = call.caller.key, call.target
        objects = {
            ("api_key", key.id if key is not None else ""),
            ("toolset", target.toolset_id),
            ("session", call.session or ""),
            ("server", call.server.facts.id),
        }
        chosen = self._about(target.tenant_id, objects)
        heard = self._calls.get(call.call_id)
        if heard is not None:
            heard.message.server = call.server.facts.slug
            late = chosen - heard.recordings
            heard.recordings |= chosen
            if late:  # what the client asked was heard before it was known which server it was for
                self._tapped.keep(replace(heard.message, recordings=[]), late)
        return chosen

    def _about(self, tenant_id: str, objects: set[tuple[str, str]]) -> set[str]:
        return {
            one.id
            for one in self._tapped.recordings.values()
            if one.tenant_id == tenant_id and one.object_id and (one.kind, one.object_id) in objects
        }

    # What belongs together

    def _remember(self, place: OrderedDict[Any, _Heard], key: Any, heard: _Heard) -> None:
        place[key] = heard
        if len(place) > REMEMBERED:
            place.popitem(last=False)

    def _hold(self, params: Json, size: int, heard: _Heard) -> None:
        """Know a request by its params, which its call has as well, until that begins."""
        self._open[address_of(params)] = (params, size, heard)
        self._open_bytes += size
        while len(self._open) > OPEN or self._open_bytes > OPEN_BYTES:
            self._open_bytes -= self._open.popitem(last=False)[1][1]


@dataclass(frozen=True, slots=True)
class _ServerSide:
    """Notes what passes between the gateway and a server for one call."""

    tapped: Tapped
    call_id: str
    server: str
    chosen: set[str]

    def note(
        self, direction: str, kind: str, body: Any, method: Any, *, id: Any = None, size: int = 0, revision: str = ""
    ) -> None:
        """Keep one message."""
        chosen = self.tapped.wanting(self.chosen)
        if not chosen:
            return
        record = message_of(
            "server",
            direction,
            kind,
            body,
            method=method,
            id=id,
            size=size,
            revision=revision,
            call_id=self.call_id,
            server=self.server,
        )
        self.tapped.keep(record, chosen)


@dataclass(frozen=True, slots=True)
class _Hearing:
    side: _ServerSide
    inner: OnMessage

    async def __call__(self, message: Json) -> None:
        self.side.note("in", "notification", message, message.get("method"))
        await self.inner(message)


@dataclass(frozen=True, slots=True)
class _Answering:
    side: _ServerSide
    inner: OnRequest

    async def __call__(self, message: Json) -> Json:
        method, id = message.get("method"), message.get("id")
        self.side.note("in", "request", message, method, id=id)
        outcome = await self.inner(message)
        self.side.note("out", _answered(outcome), outcome, method, id=id)
        return outcome


def address_of(params: object) -> int:
    """Return what a request's params are known by while they are held."""
    return id(params)


def _owner(visit: "Visit", session: str | None) -> str:
    """Return whose ids these are: a session's, else a caller's at its place."""
    return visit.session or session or f"{visit.caller.principal.id} {visit.target.slug}"


def _answered(message: Json) -> str:
    return "error" if "error" in message else "result"


def _key(id: Any) -> tuple[str, Any] | None:
    return (type(id).__name__, id) if isinstance(id, str | int) else None


def _token(token: Any) -> tuple[str, Any]:
    return ("token", token if isinstance(token, str | int) else None)


def _entries(body: bytes) -> list[bytes]:
    try:
        return [bytes(one) for one in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except msgspec.MsgspecError:
        return []
