"""The token of one connection as the transports use it: at hand without asking anybody, fresh when they ask."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from django.db import DatabaseError, close_old_connections

from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant
from apps.common.errors import NotReady, UpstreamError, UpstreamUnauthenticated, UpstreamUnavailable
from apps.servers.models import OAuthConnection
from apps.servers.services.oauth import refreshing, store
from apps.servers.services.oauth.store import Held

EARLY_SECONDS, EARLY_SHARE = 5.0, 0.1
"""A token is not used any more so long before its end, or this part of its life where that is shorter."""


class LiveToken:
    """A `TokenSource` (see `apps.servers.domain`). Belongs to the event loop of its first use; asks the database in threads."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._line = b""
        self._until: float | None = None
        """When it is no longer used without a look for a fresh one; seconds since the epoch."""
        self._ends: float | None = None
        self._flight: asyncio.Task[None] | None = None
        self._flying = ""
        """What the flight is about."""
        self._take(held)

    def __repr__(self) -> str:
        return f"<LiveToken of {self._held.connection_id}>"

    @property
    def line(self) -> bytes:
        """See TokenSource."""
        if self._until is None or now().timestamp() < self._until:
            return self._line
        return b""

    async def ready(self) -> bytes:
        """See TokenSource."""
        if not self.line:
            try:
                await self._once("fresh", self._fresh)
            except UpstreamError as error:
                if isinstance(error, UpstreamUnauthenticated) or self._ends is None or now().timestamp() >= self._ends:
                    raise  # else the one at hand is good for some seconds more
        return self._line

    async def renew(self, used: bytes, status: int, challenge: str) -> bytes:
        """See TokenSource."""
        if used != self._line:
            return await self.ready()
        generation = self._held.generation
        await self._once(
            f"{status} {challenge if status == 403 else ''}",
            lambda: self._ask(refreshing.after_refusal, generation, status, challenge),
        )
        return self._line

    async def look(self) -> None:
        """See TokenSource."""
        await self._once("look", lambda: self._ask(_stored))

    async def _fresh(self) -> None:
        await self._ask(refreshing.refresh, self._held.generation)

    async def _ask(self, question: Callable[..., Held], *arguments: Any) -> None:
        self._take(await asyncio.to_thread(_asked, question, self._held.connection_id, *arguments))

    async def _once(self, about: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do it once for all who ask for the same at the same time; who leaves does not end it for the others."""
        while self._flight is not None and not self._flight.done() and self._flying != about:
            await asyncio.wait({self._flight})
        if self._flight is None or self._flight.done():
            self._flying, self._flight = about, asyncio.get_running_loop().create_task(work())
            self._flight.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._flight)

    def _take(self, held: Held) -> None:
        if held.generation < self._held.generation:
            return
        self._held = held
        self._line = f"Authorization: Bearer {held.access}\r\n".encode("ascii")
        if held.expires_at is None:
            self._until = self._ends = None
            return
        ends = self._ends = held.expires_at.timestamp()
        life = ends - held.refreshed_at.timestamp() if held.refreshed_at is not None else EARLY_SECONDS
        self._until = ends - min(EARLY_SECONDS, life * EARLY_SHARE)


def _stored(connection_id: str) -> Held:
    with every_tenant(actor=SYSTEM):
        row = OAuthConnection.unscoped.select_related("server").filter(pk=connection_id).first()
        if row is None or row.state != OAuthConnection.State.CONNECTED:
            raise UpstreamUnavailable("The connection was ended.")
        return store.held(row)


def _asked(question: Callable[..., Held], *arguments: Any) -> Held:
    """Ask in this thread; what the database cannot answer now is an outage to the transport."""
    try:
        return question(*arguments)
    except NotReady as error:
        raise UpstreamUnavailable(error.detail) from None
    except DatabaseError:
        raise UpstreamUnavailable("The connection's token cannot be read: the database does not answer.") from None
    finally:
        close_old_connections()
