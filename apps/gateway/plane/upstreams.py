"""The live ways to servers: opened when first needed, used by all callers, closed when the registry says so.

Whose session a call is made in is the transport's business (`UpstreamRequest.caller`).
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from apps.common.background import Background
from apps.common.errors import NotReady, SwitchyardError, UpstreamUnauthenticated, UpstreamUnavailable
from apps.gateway.plane.ports import Facts, Vault
from apps.gateway.plane.snapshot import Caller, Snapshot
from apps.servers.domain import EndpointFacts, ServerFacts, TokenSource
from apps.servers.transports.base import Upstream, UpstreamEvents, UpstreamFactory

LOOK_SECONDS = 1.0
"""After the announcements of a server were first asked for, its lists are looked at: by then they are heard."""


MOST_PERSONAL = 2_000
"""Upstreams of single users in one process; the one that was used longest ago gives way."""
NOBODY = "-"
"""Stands for the user of a caller that is no user: there is no account to use."""


class _Slot:
    __slots__ = ("calls", "endpoint_id", "facts", "listener", "tokens", "upstream", "used", "user")

    def __init__(
        self, facts: ServerFacts, endpoint_id: str, upstream: Upstream, tokens: TokenSource | None = None, user: str = ""
    ) -> None:
        self.facts = facts
        self.endpoint_id = endpoint_id
        self.upstream = upstream
        self.tokens = tokens
        self.user = user
        """Whose own it is, where each user has an account with the server."""
        self.used = asyncio.get_running_loop().time()
        self.calls = 0
        self.listener: asyncio.Task[None] | None = None


def _key(server_id: str, user: str) -> str:
    return f"{server_id} {user}" if user else server_id


def user_of(caller: Caller) -> str:
    """Return the id of the user behind a caller: the owner of a key, or the person themselves."""
    if caller.key is not None:
        return caller.key.owner_id
    return caller.principal.id if caller.principal.kind == "user" else NOBODY


def user_of_name(snapshot: Snapshot, name: str) -> str:
    """Return the id of the user behind a caller that is known by its name alone (see `snapshot.caller_name`)."""
    kind, _, id = name.partition(":")
    if kind == "user":
        return id
    digests = snapshot.key_digests.get(id) if kind == "api_key" else None
    key = snapshot.keys.get(digests[0]) if digests else None
    return key.owner_id if key is not None else NOBODY


class UpstreamPool:
    """One upstream per server and process; of a server with which each user has an account, one per user beside it."""

    def __init__(self, factory: UpstreamFactory, vault: Vault, events: UpstreamEvents, facts: Facts) -> None:
        self._factory = factory
        self._vault = vault
        self._events = events
        self._facts = facts
        self._slots: dict[str, _Slot] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._background = Background()
        """Closings, and followings that begin."""
        self._closed = False
        self._followed: dict[str, tuple[str, str]] = {}
        """Whose announcements somebody wants: slot → server and user."""
        self.on_opened: Callable[[ServerFacts], None] = lambda facts: None

    async def get(self, facts: ServerFacts, user: str = "") -> Upstream:
        """Return the upstream of a server; with `user` that user's own (see `UpstreamRequest.user`).

        Raises UpstreamUnavailable, NotReady, UpstreamUnauthenticated, ConnectionRequired.
        """
        key = f"{facts.id} {user}" if user else facts.id
        slot = self._slots.get(key)
        if slot is not None and slot.facts is facts:
            return slot.upstream
        if self._closed:
            raise NotReady("Switchyard is stopping.")
        if slot is not None and slot.facts.version == facts.version:
            slot.facts = facts
            return slot.upstream
        async with self._opening.setdefault(key, asyncio.Lock()):
            slot = self._slots.get(key)
            if slot is not None and slot.facts.version == facts.version:
                return slot.upstream
            endpoint = best_endpoint(facts)
            secrets = await self._vault.secrets(facts.id, user)
            if slot is not None:
                self._retire(key)
            events = _OfUser(self._events, user) if user else self._events
            upstream = self._factory(facts, endpoint, secrets, events)
            slot = self._slots[key] = _Slot(facts, endpoint.id, upstream, secrets.tokens, user)
            if user:
                self._make_room(slot)
            if key in self._followed:
                self._start_listening(slot)
            self.on_opened(facts)
            return upstream

    def _make_room(self, newest: _Slot) -> None:
        """Close what users have left idle, and the oldest where there are too many."""
        personal = [(key, slot) for key, slot in self._slots.items() if slot.user and slot is not newest]
        for key, slot in personal:
            stats = slot.upstream.stats()
            if stats.get("in_flight") or key in self._followed or stats.get("calls", 0) != slot.calls:
                slot.calls, slot.used = stats.get("calls", 0), newest.used
            elif newest.used - slot.used > slot.facts.idle_seconds:
                self._retire(key)
        left = sorted(((slot.used, key) for key, slot in personal if key in self._slots), reverse=True)
        for _, key in left[MOST_PERSONAL:]:
            self._retire(key)
        for key in [key for key in self._opening if " " in key and key not in self._slots and not self._opening[key].locked()]:
            del self._opening[key]

    def token_changed(self, server_id: str, user: str, *, ended: bool) -> None:
        """A connection has another token, or (`ended`) another account or none: what is open to the server goes on with it, or ends."""
        key = _key(server_id, user)
        slot = self._slots.get(key)
        if slot is None or slot.tokens is None:
            return
        if ended:
            self._retire(key)
        else:
            self._background.start(_look(slot.tokens))

    def current(self, server_id: str, user: str = "") -> Upstream | None:
        """Return the upstream that is open to a server, if any."""
        slot = self._slots.get(_key(server_id, user))
        return slot.upstream if slot is not None else None

    def opened(self, server_id: str, version: int) -> tuple[str, Upstream] | None:
        """Return the endpoint's id and the upstream that is open to this version of a server, if any."""
        slot = self._slots.get(server_id)
        if slot is None or slot.facts.version != version:
            return None
        return slot.endpoint_id, slot.upstream

    async def follow(self, facts: ServerFacts, user: str = "") -> None:
        """Listen to what a server announces, from now on and through every change of its registration."""
        key = _key(facts.id, user)
        self._followed[key] = (facts.id, user)
        try:
            await self.get(facts, user)
        except (UpstreamUnavailable, UpstreamUnauthenticated, NotReady):
            return
        slot = self._slots.get(key)
        if slot is not None:
            self._start_listening(slot)

    def _start_listening(self, slot: _Slot) -> None:
        if slot.listener is None or slot.listener.done():
            slot.listener = asyncio.create_task(self._listen(slot), name=f"listen {slot.facts.slug}")
            if slot.facts.transport != "stdio":  # a program that does not run yet changes nothing
                # what changed before the server's announcements were followed is found by looking
                asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look, slot)

    def _look(self, slot: _Slot) -> None:
        if self._slots.get(_key(slot.facts.id, slot.user)) is slot:
            self._events.list_changed(slot.facts.id, "all")

    async def _listen(self, slot: _Slot) -> None:
        with contextlib.suppress(Exception):  # the transport reports what is wrong through its events; a listener has no caller
            await slot.upstream.listen()

    def prune(self, snapshot: Snapshot) -> None:
        """Give up the upstreams of servers that are gone, paused or reached differently now."""
        for key, slot in list(self._slots.items()):
            entry = snapshot.servers.get(slot.facts.id)
            if entry is None or entry.facts.paused or entry.facts.version != slot.facts.version:
                self._retire(key)
        for key, (server_id, user) in list(self._followed.items()):
            entry = snapshot.servers.get(server_id)
            if entry is None:
                self._followed.pop(key, None)
            elif not entry.facts.paused and key not in self._slots:
                if user:  # a user's own is opened again when they come back
                    self._followed.pop(key, None)
                else:
                    self._background.start(self.follow(entry.facts))

    def _retire(self, key: str) -> None:
        self._background.start(self._close(self._slots.pop(key)))

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
        return {key: slot.upstream.stats() for key, slot in self._slots.items()}

    async def aclose(self) -> None:
        """Close everything."""
        self._closed = True
        for server_id in list(self._slots):
            self._background.start(self._close(self._slots.pop(server_id), grace=2.0))
        await self._background.finished(6.0)


def best_endpoint(facts: ServerFacts) -> EndpointFacts:
    """Return the endpoint to use. Raises UpstreamUnavailable when the server has none."""
    if not facts.endpoints:
        raise UpstreamUnavailable(f"The server {facts.slug} has no endpoint. Register its address or command again.")
    order = {"healthy": 0, "unknown": 1, "degraded": 2}
    return min(facts.endpoints, key=lambda one: order.get(one.state, 3))


async def _look(tokens: TokenSource) -> None:
    """Take the token that is stored now; where that cannot be, the next request asks for itself."""
    with contextlib.suppress(SwitchyardError):
        await tokens.look()


class _OfUser:
    """The events of a user's own upstream: updates of resources are told at a place of the user's."""

    def __init__(self, events: UpstreamEvents, user: str) -> None:
        self._events = events
        self._user = user
        self.list_changed = events.list_changed
        self.era_found = events.era_found
        self.process_started = events.process_started
        self.process_ended = events.process_ended

    def resource_updated(self, server_id: str, uri: str, place: str = "") -> None:
        """See UpstreamEvents."""
        self._events.resource_updated(server_id, uri, place_of_user(self._user, place))


def place_of_user(user: str, place: str) -> str:
    """Return where updates of a user's own upstream are announced."""
    return f"{user} {place}"
