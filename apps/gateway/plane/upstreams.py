"""The live ways to servers: opened when first needed, used by all callers, closed when the registry says so.

Whose session a call is made in is the transport's business (`UpstreamRequest.caller`).
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from apps.common.errors import NotReady, UpstreamUnavailable
from apps.gateway.plane.ports import Facts, Vault
from apps.gateway.plane.snapshot import Snapshot
from apps.servers.domain import EndpointFacts, ServerFacts
from apps.servers.transports.base import Upstream, UpstreamEvents, UpstreamFactory

LOOK_SECONDS = 1.0
"""After the announcements of a server were first asked for, its lists are looked at: by then they are heard."""


class _Slot:
    __slots__ = ("endpoint_id", "facts", "listener", "upstream")

    def __init__(self, facts: ServerFacts, endpoint_id: str, upstream: Upstream) -> None:
        self.facts = facts
        self.endpoint_id = endpoint_id
        self.upstream = upstream
        self.listener: asyncio.Task[None] | None = None


class UpstreamPool:
    """One upstream per server and process."""

    def __init__(self, factory: UpstreamFactory, vault: Vault, events: UpstreamEvents, facts: Facts) -> None:
        self._factory = factory
        self._vault = vault
        self._events = events
        self._facts = facts
        self._slots: dict[str, _Slot] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        """Closings, and followings that begin."""
        self._closed = False
        self._followed: set[str] = set()
        """Servers whose announcements somebody wants."""
        self.on_opened: Callable[[ServerFacts], None] = lambda facts: None

    async def get(self, facts: ServerFacts) -> Upstream:
        """Return the upstream of a server. Raises UpstreamUnavailable, NotReady."""
        slot = self._slots.get(facts.id)
        if slot is not None and slot.facts is facts:
            return slot.upstream
        if self._closed:
            raise NotReady("Switchyard is stopping.")
        if slot is not None and slot.facts.version == facts.version:
            slot.facts = facts
            return slot.upstream
        async with self._opening.setdefault(facts.id, asyncio.Lock()):
            slot = self._slots.get(facts.id)
            if slot is not None and slot.facts.version == facts.version:
                return slot.upstream
            endpoint = best_endpoint(facts)
            secrets = await self._vault.secrets(facts.id)
            if slot is not None:
                self._retire(facts.id)
            upstream = self._factory(facts, endpoint, secrets, self._events)
            slot = self._slots[facts.id] = _Slot(facts, endpoint.id, upstream)
            if facts.id in self._followed:
                self._start_listening(slot)
            self.on_opened(facts)
            return upstream

    def current(self, server_id: str) -> Upstream | None:
        """Return the upstream that is open to a server, if any."""
        slot = self._slots.get(server_id)
        return slot.upstream if slot is not None else None

    def opened(self, server_id: str, version: int) -> tuple[str, Upstream] | None:
        """Return the endpoint's id and the upstream that is open to this version of a server, if any."""
        slot = self._slots.get(server_id)
        if slot is None or slot.facts.version != version:
            return None
        return slot.endpoint_id, slot.upstream

    async def follow(self, facts: ServerFacts) -> None:
        """Listen to what a server announces, from now on and through every change of its registration."""
        self._followed.add(facts.id)
        try:
            await self.get(facts)
        except (UpstreamUnavailable, NotReady):
            return
        slot = self._slots.get(facts.id)
        if slot is not None:
            self._start_listening(slot)

    def _start_listening(self, slot: _Slot) -> None:
        if slot.listener is None or slot.listener.done():
            slot.listener = asyncio.create_task(self._listen(slot), name=f"listen {slot.facts.slug}")
            if slot.facts.transport != "stdio":  # a program that does not run yet changes nothing
                # what changed before the server's announcements were followed is found by looking
                asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look, slot)

    def _look(self, slot: _Slot) -> None:
        if self._slots.get(slot.facts.id) is slot:
            self._events.list_changed(slot.facts.id, "all")

    async def _listen(self, slot: _Slot) -> None:
        with contextlib.suppress(Exception):  # the transport reports what is wrong through its events; a listener has no caller
            await slot.upstream.listen()

    def prune(self, snapshot: Snapshot) -> None:
        """Give up the upstreams of servers that are gone, paused or reached differently now."""
        for server_id, slot in list(self._slots.items()):
            entry = snapshot.servers.get(server_id)
            if entry is None or entry.facts.paused or entry.facts.version != slot.facts.version:
                self._retire(server_id)
        for server_id in list(self._followed):
            entry = snapshot.servers.get(server_id)
            if entry is None:
                self._followed.discard(server_id)
            elif not entry.facts.paused and server_id not in self._slots:
                self._later(self.follow(entry.facts))

    def _retire(self, server_id: str) -> None:
        self._later(self._close(self._slots.pop(server_id)))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close(self, slot: _Slot, grace: float = 5.0) -> None:
        """Let what is in flight finish, for a while, then close."""
        deadline = asyncio.get_running_loop().time() + grace
        while slot.upstream.stats().get("in_flight") and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        if slot.listener is not None:
            slot.listener.cancel()
        with contextlib.suppress(Exception):  # closing must go on with the next one
            await slot.upstream.aclose()

    async def kill(self, server_id: str) -> None:
        """End a server's process or session now; the next call opens a new one."""
        slot = self._slots.pop(server_id, None)
        if slot is not None:
            if slot.listener is not None:
                slot.listener.cancel()
            await slot.upstream.aclose("killed")

    def stats(self) -> dict[str, dict[str, Any]]:
        """Return each open upstream's figures by server id."""
        return {server_id: slot.upstream.stats() for server_id, slot in self._slots.items()}

    async def aclose(self) -> None:
        """Close everything."""
        self._closed = True
        for server_id in list(self._slots):
            self._later(self._close(self._slots.pop(server_id), grace=2.0))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=6.0)


def best_endpoint(facts: ServerFacts) -> EndpointFacts:
    """Return the endpoint to use. Raises UpstreamUnavailable when the server has none."""
    if not facts.endpoints:
        raise UpstreamUnavailable(f"The server {facts.slug} has no endpoint. Register its address or command again.")
    order = {"healthy": 0, "unknown": 1, "degraded": 2}
    return min(facts.endpoints, key=lambda one: order.get(one.state, 3))
