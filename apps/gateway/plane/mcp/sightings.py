"""Who speaks to the gateway: each client's name, revision and declared capabilities, gathered and handed on every few seconds."""

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

from apps.gateway.plane.mcp.compat import declared, printable
from apps.gateway.plane.ports import ClientSighting, Facts

if TYPE_CHECKING:
    from apps.gateway.plane.mcp.visit import Visit

SECONDS = 5.0
"""One client is handed on at most so often."""
MOST, MOST_OF_KEY = 2_000, 32
"""Different clients gathered in that time: in all, and of one key, whose requests may bear any name."""
DECLARED_BYTES = 64 * 1024
"""Of a larger request the declared capabilities are not looked at."""


class Sightings:
    """The clients of this process since they were last handed on. A request costs one look into a dictionary."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._seen: dict[tuple[str, ...], ClientSighting] = {}
        self._of_key: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def note(self, visit: "Visit", calls: int) -> None:
        """A client has made a request, `calls` of which are calls; nothing is kept of one without a key."""
        key = visit.caller.key
        if key is None:
            return
        seen = self._seen.get((key.id, visit.target.slug, visit.reply.door, visit.client, visit.revision))
        if seen is None:
            seen = self._begin(visit, key.id, key.tenant_id)
            if seen is None:
                return
        seen.calls += calls
        seen.last = time.time()

    def _begin(self, visit: "Visit", key_id: str, tenant_id: str) -> ClientSighting | None:
        if not visit.revision or len(self._seen) >= MOST or self._of_key[key_id] >= MOST_OF_KEY:
            return None
        info = visit.client_info or {}
        seen = ClientSighting(
            key_id=key_id,
            tenant_id=tenant_id,
            toolset=visit.target.slug,
            door=visit.reply.door,
            name=printable(info.get("name"), 120),
            version=printable(info.get("version"), 60),
            revision=visit.revision,
            declared=None if visit.capabilities is None or visit.size > DECLARED_BYTES else declared(visit.capabilities),
            streams=visit.reply.accepts_stream,
            address=visit.address,
            session=visit.session or "",
        )
        self._seen[key_id, visit.target.slug, visit.reply.door, visit.client, visit.revision] = seen
        self._of_key[key_id] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SECONDS, self.hand_on)
        return seen

    def hand_on(self) -> None:
        """Give what was gathered to the control plane."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        seen, self._seen = self._seen, {}
        self._of_key.clear()
        if seen:
            self._facts.clients_seen(list(seen.values()))
