"""Long-lived streams to clients: the legacy standalone stream and `subscriptions/listen`; both tell of changed lists."""

import asyncio
from collections.abc import Callable
from typing import Any

from apps.common.errors import NotFound, Overloaded
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.http import Receive
from apps.gateway.plane.jsonrpc import dumps
from apps.gateway.plane.log import log_defect
from apps.gateway.plane.mcp.attendants import client_gone
from apps.gateway.plane.mcp.revisions import META_SUBSCRIPTION
from apps.gateway.plane.reply import Reply
from apps.gateway.plane.snapshot import Caller, Snapshot
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.plane.upstreams import UpstreamPool
from apps.gateway.plane.views import Target, find_target, visible

CHANGES = {"tools": ("tool",), "resources": ("resource", "template"), "prompts": ("prompt",)}
FOLLOWED = 16
"""Servers behind one toolset whose announcements are followed for its streams; the others are looked at on schedule."""
SETTLE = 0.05
"""Seconds in which several changes become one notice."""


class Stream:
    """One client's stream: what it is told of, and what it was last told about."""

    __slots__ = ("caller", "closed", "kinds", "reply", "slug", "state", "subscription")

    def __init__(self, caller: Caller, slug: str, kinds: tuple[str, ...], reply: Reply, subscription: Any = None) -> None:
        self.caller = caller
        self.slug = slug
        self.kinds = kinds
        self.reply = reply
        self.subscription = subscription
        self.closed = asyncio.Event()
        self.state: dict[str, int] = {}

    def notice(self, kind: str) -> bytes:
        """Return the notification that a list has changed."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": f"notifications/{kind}/list_changed"}
        if self.subscription is not None:
            message["params"] = {"_meta": {META_SUBSCRIPTION: self.subscription}}
        return dumps(message)


class Streams:
    """All streams of this process."""

    def __init__(self, config: PlaneConfig, store: SnapshotStore, upstreams: UpstreamPool) -> None:
        self._config = config
        self._store = store
        self._upstreams = upstreams
        self._open: set[Stream] = set()
        self._closing = False
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._unsubscribe: Callable[[], None] = store.subscribe(self._changed)
        self._task = asyncio.create_task(self._watch(), name="client streams")
        self._following: set[asyncio.Task[None]] = set()

    def _changed(self, snapshot: Snapshot) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    @property
    def count(self) -> int:
        """Return how many streams are open."""
        return len(self._open)

    async def serve(self, stream: Stream, snapshot: Snapshot, target: Target, receive: Receive) -> None:
        """Keep a stream until its client leaves, its key is revoked, or this process stops. Raises Overloaded."""
        if self._closing or len(self._open) >= self._config.max_streams:
            raise Overloaded("Too many streams are open here. Try again shortly.", retry_after=5)
        stream.state = fingerprints(snapshot, stream.caller, target, stream.kinds)
        self._open.add(stream)
        self._follow(snapshot, target)
        gone = asyncio.create_task(client_gone(receive))
        closed = asyncio.create_task(stream.closed.wait())
        try:
            while True:
                done, _ = await asyncio.wait(
                    {gone, closed}, timeout=self._config.keepalive, return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    break
                await stream.reply.comment()
        finally:
            self._open.discard(stream)
            gone.cancel()
            closed.cancel()

    def _follow(self, snapshot: Snapshot, target: Target) -> None:
        for index, server in enumerate(target.servers(snapshot)):
            if index >= FOLLOWED:
                break
            if not server.facts.paused:
                task = asyncio.create_task(self._upstreams.follow(server.facts))
                self._following.add(task)
                task.add_done_callback(self._following.discard)

    async def _watch(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(SETTLE)
            self._wake.clear()
            for stream in tuple(self._open):
                try:
                    await self._look(stream)
                except Exception as error:  # noqa: BLE001 - one stream must not cost the others their notices
                    log_defect("streams", error)
                    stream.closed.set()

    async def _look(self, stream: Stream) -> None:
        snapshot = self._store.current
        key = stream.caller.key
        caller = snapshot.caller_of_key(key.digest) if key is not None else stream.caller
        if caller is None:
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
                await stream.reply.event(stream.notice(kind))
        stream.state = now
        await asyncio.sleep(0)

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
