"""Subscriptions to resources: one with the server for all who want it, and who is told when it reports an update."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from apps.common.background import Background
from apps.common.errors import SwitchyardError
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.plane.upstreams import UpstreamPool, place_of_user, user_of_name
from apps.servers.domain import OAUTH_USER, ServerFacts
from apps.servers.transports.base import UpstreamAnswer, UpstreamEvents, UpstreamRequest
from apps.servers.transports.watching import UNSUBSCRIBE

if TYPE_CHECKING:
    from apps.gateway.plane.mcp.tap import Tap

RELEASE_SECONDS = 20.0
"""For a server to take a subscription back."""
MOST_LEVELS = 64


class Watcher(Protocol):
    """Somebody who wants to know of a resource."""

    def updated(self, server_id: str, uri: str) -> None:
        """The resource has changed, or may have. Returns at once."""


class _Watch:
    """One resource of one server: who watches it, by the place where its updates are announced (see `UpstreamAnswer.place`)."""

    __slots__ = ("lock", "places")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.places: dict[str, dict[Watcher, UpstreamRequest]] = {}


class Watches:
    """Who watches which resource of which server, in this process. Belongs to one event loop."""

    def __init__(self, store: SnapshotStore, upstreams: UpstreamPool) -> None:
        self._store = store
        self._upstreams = upstreams
        self._of: dict[str, dict[str, _Watch]] = {}
        self._background = Background()
        upstreams.on_opened = self._opened

    def __len__(self) -> int:
        return sum(len(watched) for watched in self._of.values())

    async def add(self, facts: ServerFacts, request: UpstreamRequest, watcher: Watcher) -> UpstreamAnswer:
        """Watch a resource; return the server's answer, which is no error once it is watched. Raises the UpstreamError family."""
        uri = str(request.params["uri"])
        while True:
            watch = self._of.setdefault(facts.id, {}).setdefault(uri, _Watch())
            async with watch.lock:
                if self._get(facts.id, uri) is not watch:
                    continue  # the last watcher left while this one waited
                try:
                    upstream = await self._upstreams.get(facts, request.user)
                    await self._upstreams.follow(facts, request.user)
                    answer = await upstream.watch(request)
                    if request.user:
                        answer = replace(answer, place=place_of_user(request.user, answer.place))
                    if answer.error is None:
                        watch.places.setdefault(answer.place, {})[watcher] = request
                    return answer
                finally:
                    if not watch.places:
                        self._forget(facts.id, uri)

    def restore(self, server_id: str, request: UpstreamRequest, watcher: Watcher) -> None:
        """Watch a resource again that the watcher had watched; it is told of an update, as one may have been missed."""
        server = self._store.current.servers.get(server_id)
        if server is not None and not server.facts.paused:
            if server.facts.auth == OAUTH_USER:
                request.user = user_of_name(self._store.current, request.caller)
            self._background.start(self._again(server.facts, [(request, watcher)]))

    def drop(self, server_id: str, uri: str, watcher: Watcher) -> None:
        """Watch a resource no more; where no watcher is left the server is told."""
        watch = self._get(server_id, uri)
        for place, watchers in tuple(watch.places.items()) if watch is not None else ():
            request = watchers.pop(watcher, None)
            if watch is not None and request is not None and not watchers:
                self._background.start(self._release(server_id, uri, watch, place, request))

    def updated(self, server_id: str, uri: str, place: str = "") -> None:
        """Tell everybody who watches a resource, or one that it is part of, as the revisions before 2026-07-28 allow."""
        watched = self._of.get(server_id)
        if not watched:
            return
        for name in (uri, *_above(uri)):
            watch = watched.get(name)
            if watch is not None:
                for watcher in tuple(watch.places.get(place, ())):
                    watcher.updated(server_id, uri)

    def _get(self, server_id: str, uri: str) -> _Watch | None:
        return self._of.get(server_id, {}).get(uri)

    def _forget(self, server_id: str, uri: str) -> None:
        watched = self._of.get(server_id, {})
        watched.pop(uri, None)
        if not watched:
            self._of.pop(server_id, None)

    async def _release(self, server_id: str, uri: str, watch: _Watch, place: str, request: UpstreamRequest) -> None:
        async with watch.lock:
            if watch.places.get(place) or self._get(server_id, uri) is not watch:
                return
            watch.places.pop(place, None)
            if not watch.places:
                self._forget(server_id, uri)
            upstream = self._upstreams.current(server_id, request.user)
            if upstream is not None:
                with contextlib.suppress(SwitchyardError):
                    await upstream.watch(replace(request, method=UNSUBSCRIBE, timeout=RELEASE_SECONDS, sent=False))

    def _opened(self, facts: ServerFacts) -> None:
        """Another way to a server was opened: subscribe there to all that is watched."""
        wanted = [
            (request, watcher)
            for watch in self._of.get(facts.id, {}).values()
            for watchers in watch.places.values()
            for watcher, request in watchers.items()
        ]
        if wanted:
            self._background.start(self._again(facts, wanted))

    async def _again(self, facts: ServerFacts, wanted: list[tuple[UpstreamRequest, Watcher]]) -> None:
        for request, watcher in wanted:
            with contextlib.suppress(SwitchyardError):
                await self.add(facts, replace(request, sent=False), watcher)
            watcher.updated(facts.id, str(request.params["uri"]))

    async def aclose(self) -> None:
        """Forget everything."""
        self._of.clear()
        self._background.cancel()


def _above(uri: str) -> Iterator[str]:
    """Give what a URI lies below: `file:///a/` and `file:///a` for `file:///a/b`."""
    end = len(uri)
    for _ in range(MOST_LEVELS):
        end = uri.rfind("/", 0, end)
        if end < 1 or uri[end - 1] in ":/":
            return
        yield uri[: end + 1]
        yield uri[:end]


class TellingEvents:
    """The events of the transports, of which updates of resources stay in the data plane."""

    def __init__(self, events: UpstreamEvents) -> None:
        self.updated: Callable[[str, str, str], None] = lambda server_id, uri, place: None
        self.tap: Tap | None = None
        """Recordings, while there are any."""
        self._list_changed = events.list_changed
        self.era_found = events.era_found
        self.process_started = events.process_started
        self.process_ended = events.process_ended

    def list_changed(self, server_id: str, kind: str) -> None:
        """See UpstreamEvents."""
        if self.tap is not None and kind != "all":
            self.tap.announced(server_id, f"notifications/{kind}/list_changed", {})
        self._list_changed(server_id, kind)

    def resource_updated(self, server_id: str, uri: str, place: str = "") -> None:
        """See UpstreamEvents."""
        if self.tap is not None:
            self.tap.announced(server_id, "notifications/resources/updated", {"uri": uri})
        self.updated(server_id, uri, place)
