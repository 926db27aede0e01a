"""Long-lived streams to clients: the legacy standalone stream and `subscriptions/listen`; both tell of changed lists and resources."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

from apps.common.background import Background
from apps.common.clock import now_us
from apps.common.errors import NotFound, Overloaded, SwitchyardError
from apps.common.jsontext import dumps
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.http import Receive
from apps.gateway.plane.log import log_defect
from apps.gateway.plane.mcp.attendants import client_gone
from apps.gateway.plane.mcp.revisions import META_SUBSCRIPTION
from apps.gateway.plane.reply import Reply
from apps.gateway.plane.snapshot import Caller, Snapshot
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.plane.upstreams import UpstreamPool
from apps.gateway.plane.views import Target, current_caller, find_resource, find_target, visible

CHANGES = {"tools": ("tool",), "resources": ("resource", "template"), "prompts": ("prompt",)}
FOLLOWED = 16
"""Servers behind one toolset whose announcements are followed for its streams; the others are looked at on schedule."""
SHARE = 16
"""One principal may have this part of all streams: 256 of 4,096."""
UPDATES = 1024
"""Resources that a slow client has yet to be told of; a client watches fewer."""
SETTLE = 0.05
"""Seconds in which several changes become one notice."""


class Stream:
    """One client's stream: what it is told of, and what it was last told about."""

    __slots__ = ("caller", "closed", "due", "kinds", "reply", "session", "slug", "state", "subscription", "updates", "wake")

    def __init__(
        self,
        caller: Caller,
        slug: str,
        kinds: tuple[str, ...],
        reply: Reply,
        subscription: Any = None,
        session: str = "",
    ) -> None:
        self.caller = caller
        self.slug = slug
        self.kinds = kinds
        self.reply = reply
        self.subscription = subscription
        self.session = session
        self.closed = asyncio.Event()
        self.wake = asyncio.Event()
        self.due: dict[str, None] = {}
        """The lists that it has to be told of."""
        self.updates: dict[str, None] = {}
        """The resources that it has to be told of, by URI."""
        self.state: dict[str, int] = {}

    @property
    def expires_in(self) -> float:
        """Return the seconds until its key expires."""
        key = self.caller.key
        return inf if key is None or key.expires_us is None else (key.expires_us - now_us()) / 1e6

    @property
    def told(self) -> dict[str, int]:
        """Return what its client was last told of, for `state` of a stream that goes on from there."""
        return {kind: -1 if kind in self.due else number for kind, number in self.state.items()}

    def notice(self, kind: str) -> bytes:
        """Return the notification that a list has changed."""
        return self._message(f"notifications/{kind}/list_changed", {})

    def update(self, uri: str) -> bytes:
        """Return the notification that a resource has changed."""
        return self._message("notifications/resources/updated", {"uri": uri})

    def updated(self, server_id: str, uri: str) -> None:
        """Tell the client that a resource has changed, when its turn comes (a `Watcher`)."""
        if len(self.updates) < UPDATES:
            self.updates[uri] = None
            self.wake.set()

    def _message(self, method: str, params: dict[str, Any]) -> bytes:
        if self.subscription is not None:
            params["_meta"] = {META_SUBSCRIPTION: self.subscription}
        return dumps({"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})})


class Streams:
    """All streams of this process."""

    def __init__(self, config: PlaneConfig, store: SnapshotStore, upstreams: UpstreamPool) -> None:
        self._config = config
        self._store = store
        self._upstreams = upstreams
        self._open: set[Stream] = set()
        self._places = 0
        self._of_owner: Counter[str] = Counter()
        self._closing = False
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._unsubscribe: Callable[[], None] = store.subscribe(self._changed)
        self._task = asyncio.create_task(self._watch(), name="client streams")
        self._following = Background()

    def _changed(self, snapshot: Snapshot) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    @property
    def count(self) -> int:
        """Return how many streams are open."""
        return len(self._open)

    @property
    def closing(self) -> bool:
        """Tell whether this process takes no streams any more."""
        return self._closing

    @contextmanager
    def place(self, caller: Caller) -> Iterator[None]:
        """Keep a place for a stream, which is served in it. Raises Overloaded when there is none left, or none for this caller."""
        owner = caller.principal.id
        if self._closing or self._places >= self._config.max_streams:
            raise Overloaded("Too many streams are open here. Try again shortly.", rule="streams", retry_after=5)
        if self._of_owner[owner] >= self._config.max_streams // SHARE:
            raise Overloaded("This key has as many streams open here as one may have.", rule="streams-per-key", retry_after=5)
        self._places += 1
        self._of_owner[owner] += 1
        try:
            yield
        finally:
            self._places -= 1
            self._of_owner[owner] -= 1
            if not self._of_owner[owner]:
                del self._of_owner[owner]

    async def serve(
        self,
        stream: Stream,
        snapshot: Snapshot,
        target: Target,
        receive: Receive,
        *,
        first: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """Keep a stream, which has a `place`, until its client leaves, its key is revoked or expires, or this process stops.

        `first` writes what comes before all notices and tells whether the stream goes on after it. One that comes with a `state` is
        told of what differs from it.
        """
        if self._closing:
            return
        if stream.state:
            self._look(stream)
        else:
            stream.state = fingerprints(snapshot, stream.caller, target, stream.kinds)
        self._open.add(stream)
        self._follow(snapshot, target)
        tasks = [asyncio.create_task(work) for work in (client_gone(receive), stream.closed.wait(), self._tell(stream, first))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(stream)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, stream: Stream, first: Callable[[], Awaitable[bool]] | None) -> None:
        """Write to one client, at its own pace; return when its right to the stream has ended."""
        if first is not None and not await first():
            return
        while True:
            try:
                async with asyncio.timeout(min(self._config.keepalive, max(stream.expires_in, 0.0) + 0.01)):
                    await stream.wake.wait()
            except TimeoutError:
                self._look(stream)
            stream.wake.clear()
            if stream.closed.is_set():
                return
            if not stream.due and not stream.updates:
                await stream.reply.comment()
            while stream.due:
                await stream.reply.event(stream.notice(stream.due.popitem()[0]))
            while stream.updates:
                uri = next(iter(stream.updates))
                del stream.updates[uri]
                if self._may_read(stream, uri):
                    await stream.reply.event(stream.update(uri))

    def _may_read(self, stream: Stream, uri: str) -> bool:
        """Ask the policy again: a subscription is no right."""
        snapshot = self._store.current
        caller = current_caller(snapshot, stream.caller)
        if caller is None:
            return False
        try:
            target = find_target(snapshot, caller, stream.slug)
            server = find_resource(snapshot, caller, target, uri)[0]
        except SwitchyardError:
            return False
        return not server.facts.paused and not target.paused

    def _follow(self, snapshot: Snapshot, target: Target) -> None:
        for index, server in enumerate(target.servers(snapshot)):
            if index >= FOLLOWED:
                break
            if not server.facts.paused:
                self._following.start(self._upstreams.follow(server.facts))

    async def _watch(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(SETTLE)
            self._wake.clear()
            for stream in tuple(self._open):
                try:
                    self._look(stream)
                except Exception as error:  # noqa: BLE001 - one stream must not cost the others their notices
                    log_defect("streams", error)
                    stream.closed.set()
                await asyncio.sleep(0)

    def _look(self, stream: Stream) -> None:
        """Find out what a stream has to be told, and whether it may go on; waits for nobody."""
        snapshot = self._store.current
        caller = current_caller(snapshot, stream.caller)
        if caller is None or stream.expires_in <= 0:
            stream.closed.set()
            return
        try:
            target = find_target(snapshot, caller, stream.slug)
        except NotFound:
            stream.closed.set()
            return
        now = fingerprints(snapshot, caller, target, stream.kinds)
        for kind in stream.kinds:
            if now[kind] != stream.state.get(kind):
                stream.due[kind] = None
                stream.wake.set()
        stream.state = now

    def end_session(self, sid: str) -> None:
        """End the streams of a session."""
        for stream in tuple(self._open):
            if stream.session == sid:
                stream.closed.set()

    def close_all(self) -> None:
        """End every stream, and take no new ones."""
        self._closing = True
        for stream in tuple(self._open):
            stream.closed.set()

    async def aclose(self) -> None:
        """End every stream and the watch over them."""
        self.close_all()
        self._unsubscribe()
        self._task.cancel()


def fingerprints(snapshot: Snapshot, caller: Caller, target: Target, kinds: tuple[str, ...]) -> dict[str, int]:
    """Return a number per kind of list that differs when the list, as this caller sees it, does."""
    return {
        kind: hash(tuple(hash(item.listing) for part in CHANGES[kind] for item in visible(snapshot, caller, target, part)))
        for kind in kinds
    }
