"""The resources whose updates are wanted of one server: what has to be said again after a reconnect, and who waits for a yes."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

from apps.common.errors import AddressRefused, UpstreamError, UpstreamUnavailable
from apps.servers.transports.announcements import Announcements
from apps.servers.transports.base import Json, UpstreamAnswer, UpstreamRequest
from apps.servers.transports.channel import Channel
from apps.servers.transports.wire import (
    INVALID_PARAMS,
    LATEST_MODERN,
    META_SUBSCRIPTION,
    modern_params,
    notification_body,
    request_body,
)

SUBSCRIBE, UNSUBSCRIBE = "resources/subscribe", "resources/unsubscribe"
CHANGES: Json = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}
AGAIN_SECONDS = 30.0
"""For each subscription that is made again after a reconnect."""


class Watched:
    """URIs with a subscription. Belongs to one event loop."""

    def __init__(self, announcements: Announcements) -> None:
        self._announcements = announcements
        self._uris: dict[str, None] = {}
        self._waiting: dict[str, set[asyncio.Future[bool]]] = {}
        self.changed = asyncio.Event()
        """Set when the filter of a modern stream has become another one."""

    def __bool__(self) -> bool:
        return bool(self._uris)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._uris))

    def note(self, request: UpstreamRequest, answer: UpstreamAnswer) -> UpstreamAnswer:
        """Remember what a server of the initialize era has said yes to."""
        uri = str(request.params.get("uri"))
        if request.method == UNSUBSCRIBE:
            self._uris.pop(uri, None)
        elif answer.error is None:
            self._uris[uri] = None
        return answer

    async def again(self, send: Callable[[UpstreamRequest], Awaitable[UpstreamAnswer]]) -> None:
        """Subscribe to everything in a new session; what the server refuses now is given up. An update may have been missed."""
        for uri in self:
            with suppress(UpstreamError, AddressRefused, TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS):
                    answer = await send(UpstreamRequest(SUBSCRIBE, {"uri": uri}, timeout=AGAIN_SECONDS))
                if answer.error is not None:
                    self._uris.pop(uri, None)
            self._announcements.updated(uri)

    def missed(self) -> None:
        """Announce an update of everything that is watched, as one may have been missed."""
        for uri in self:
            self._announcements.updated(uri)

    # The modern era: one stream's filter

    @property
    def filter(self) -> Json:
        """Return what a `subscriptions/listen` asks for now."""
        return {**CHANGES, "resourceSubscriptions": list(self._uris)} if self._uris else dict(CHANGES)

    async def put(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Change the filter; wait for the server's word on a URI that is added. The caller bounds the time."""
        uri = str(request.params.get("uri"))
        if request.method == UNSUBSCRIBE:
            if uri in self._uris:
                del self._uris[uri]
                self.changed.set()
            return UpstreamAnswer({}, None, LATEST_MODERN, 0)
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(uri, set()).add(answered)
        self._uris[uri] = None
        self.changed.set()
        try:
            honoured = await answered
        except BaseException:
            self._uris.pop(uri, None)
            raise
        finally:
            waiting = self._waiting.get(uri, set())
            waiting.discard(answered)
            if not waiting:
                self._waiting.pop(uri, None)
        if honoured:
            return UpstreamAnswer({}, None, LATEST_MODERN, 0)
        return refusal("The server gives no updates of this resource.")

    def acknowledged(self, asked: Json, message: Json) -> None:
        """Take the first message of a stream that was opened with the filter `asked`: the part of it that the server honours."""
        params = message.get("params")
        said = params.get("notifications") if isinstance(params, dict) else None
        honoured = said.get("resourceSubscriptions") if isinstance(said, dict) else None
        given = frozenset(uri for uri in honoured if isinstance(uri, str)) if isinstance(honoured, list) else frozenset()
        for uri in asked.get("resourceSubscriptions", ()):
            if uri not in given:
                self._uris.pop(uri, None)
            self._settle(uri, uri in given)

    def refused(self) -> None:
        """Say no to everybody who waits: the server has no such stream."""
        for uri in tuple(self._waiting):
            self._uris.pop(uri, None)
            self._settle(uri, False)

    def failed(self, detail: str) -> None:
        """Tell everybody who waits that the stream could not be opened."""
        for waiting in tuple(self._waiting.values()):
            for answered in waiting:
                if not answered.done():
                    answered.set_exception(UpstreamUnavailable(detail))

    def _settle(self, uri: str, honoured: bool) -> None:
        for answered in self._waiting.get(uri, ()):
            if not answered.done():
                answered.set_result(honoured)


class ChannelListening:
    """`subscriptions/listen` on a channel: asked again with another filter, the former taken back once the new one stands."""

    def __init__(self, watched: Watched, announcements: Announcements) -> None:
        self._watched = watched
        self._channel: Channel | None = None
        self._write: Callable[[bytes], None] | None = None
        self._current: tuple[int, Json] | None = None
        self._former: list[int] = []
        announcements.on_acknowledged = self._acknowledged

    def ask(self, channel: Channel, write: Callable[[bytes], None]) -> None:
        """Ask on this channel, with the filter that is wanted now."""
        if channel is not self._channel:
            self._channel, self._write, self._current, self._former = channel, write, None, []
        if self._current is not None:
            self._former.append(self._current[0])
        id, wanted = channel.next_id(), self._watched.filter
        self._current = (id, wanted)
        request = UpstreamRequest("subscriptions/listen", {"notifications": wanted})
        channel.standing[id] = self._ended
        with suppress(UpstreamError):
            write(request_body(id, request.method, modern_params(request, id)))

    def _acknowledged(self, message: Json) -> None:
        if self._current is None or self._channel is None or self._write is None:
            return
        params = message.get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        if not isinstance(meta, dict) or meta.get(META_SUBSCRIPTION) != self._current[0]:
            return
        self._watched.acknowledged(self._current[1], message)
        former, self._former = self._former, []
        for id in former:
            self._channel.standing.pop(id, None)
            with suppress(UpstreamError):
                self._write(notification_body("notifications/cancelled", {"requestId": id}))

    def _ended(self, message: Json) -> None:
        """The server ended or refused the request: then it tells of nothing."""
        if self._current is not None and message.get("id") == self._current[0]:
            self._watched.refused()


def refusal(text: str) -> UpstreamAnswer:
    """Return the answer for a resource that cannot be watched in the modern era, which has no error of its own for it."""
    return UpstreamAnswer(None, {"code": INVALID_PARAMS, "message": text}, LATEST_MODERN, 0)
