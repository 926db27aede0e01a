"""What works between the clients that were seen and the servers they reach: the facts, and the verdicts over them."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import UUID

from apps.accounts.selectors import as_uuid
from apps.common.errors import ValidationFailed
from apps.gateway.models import ClientSeen
from apps.gateway.plane.mcp import compat
from apps.gateway.selectors.clients import clients
from apps.servers.domain import ServerFacts
from apps.servers.selectors import plane_servers, servers
from apps.tools.selectors import definition_counts, plane_toolsets, special_tools

Reach = Mapping[tuple[str, str], frozenset[str]]
"""(Tenant id, slug of a toolset) → the servers behind it."""
Place = tuple[str, str, str]
"""Where a page ends: a client's id, a server's slug and id."""


@dataclass(frozen=True, slots=True)
class ServerSide:
    """A server with what is known of its side."""

    facts: ServerFacts
    measured: compat.Server
    counts: Mapping[str, int]
    """In force: `tool`, `resource`, `template`, `prompt`; of the tools `structured` and `app`."""
    key: str
    """The same for servers whose verdicts are the same."""

    @property
    def id(self) -> str:
        """Return the server's id."""
        return self.facts.id

    @property
    def slug(self) -> str:
        """Return the server's slug."""
        return self.facts.slug

    @property
    def era(self) -> str:
        """Return `modern`, `legacy`, `dual` or nothing."""
        return "dual" if len(self.measured.eras) > 1 else next(iter(self.measured.eras), "")

    @property
    def declares(self) -> tuple[str, ...]:
        """Return the names of its capabilities and extensions."""
        extensions = self.facts.capabilities.get("extensions")
        names = [name for name in self.facts.capabilities if name not in ("extensions", "experimental")]
        return tuple(sorted([*names, *(extensions if isinstance(extensions, dict) else ())]))


@dataclass(frozen=True, slots=True)
class Pair:
    """A client and a server, and what works between them."""

    client: ClientSeen
    server: ServerSide
    verdicts: tuple[compat.Verdict, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Return how many features are in each state; every state is named."""
        found = Counter(one.state for one in self.verdicts)
        return {state: found[state] for state in compat.STATES}

    def in_state(self, *states: str) -> tuple[compat.Verdict, ...]:
        """Return the features in one of these states."""
        return tuple(one for one in self.verdicts if one.state in states)


class Verdicts:
    """Computes verdicts, once for all servers that are alike."""

    def __init__(self) -> None:
        self._known: dict[tuple[compat.Client, str], tuple[compat.Verdict, ...]] = {}

    def pair(self, row: ClientSeen, side: ServerSide) -> Pair:
        """Return what works between a client and a server."""
        client = client_side(row)
        found = self._known.get((client, side.key))
        if found is None:
            found = self._known[client, side.key] = compat.verdicts(client, side.measured)
        return Pair(row, side, found)


def client_side(row: ClientSeen) -> compat.Client:
    """Return the measured facts of a client."""
    return compat.Client(
        revision=row.revision, declared=frozenset(row.declared), streams=row.streams, over_sse=row.door == "/sse"
    )


def server_sides(ids: Iterable[object]) -> dict[str, ServerSide]:
    """Return server id → its side, of those of the servers that are in view, by slug: seven queries whatever their number."""
    found = sorted(plane_servers(ids), key=lambda facts: (facts.slug, facts.tenant_id))
    wanted: list[object] = [facts.id for facts in found]
    counts, special = definition_counts(wanted), special_tools(wanted)
    return {facts.id: _side(facts, {**counts.get(facts.id, {}), **special.get(facts.id, {})}) for facts in found}


def _side(facts: ServerFacts, counts: Mapping[str, int]) -> ServerSide:
    eras: set[str] = set()
    for place in facts.endpoints:
        eras |= compat.eras_of(place.era, facts.revisions)
    has = frozenset(name for name, number in counts.items() if number)
    if not (facts.server_info or facts.capabilities or has):
        eras = set()  # which era it speaks is not yet what it can do
    measured = compat.Server(facts.transport, frozenset(eras), facts.revisions, facts.capabilities, has)
    key = json.dumps([facts.transport, sorted(eras), facts.revisions, facts.capabilities, sorted(has)], sort_keys=True)
    return ServerSide(facts, measured, counts, key)


def reach() -> Reach:
    """Return which servers stand behind each toolset in view: two queries."""
    return {
        (facts.tenant_id, facts.slug): frozenset((facts.server_id,))
        if facts.server_id
        else frozenset(entry.server_id for entry in facts.entries)
        for facts in plane_toolsets()
    }


def reaches(row: ClientSeen, server_id: str, tenant_id: str, within: Reach) -> bool:
    """Tell whether a server stands behind the address at which a client speaks; behind `/mcp` all of the tenant do."""
    mine = str(row.tenant_id)
    return tenant_id == mine and (not row.toolset or server_id in within.get((mine, row.toolset), ()))


def pairs_of(rows: Sequence[ClientSeen], sides: Mapping[str, ServerSide], within: Reach) -> list[Pair]:
    """Return each client with each server that it reaches where it speaks, in the order of both."""
    verdicts = Verdicts()
    return [
        verdicts.pair(row, side) for row in rows for id, side in sides.items() if reaches(row, id, side.facts.tenant_id, within)
    ]


def page_of_pairs(
    *, client: object = None, server: object = None, after: Place | None = None, limit: int = 50, **filters: Any
) -> tuple[list[Pair], Place | None]:
    """Return pairs in view by client, then by the server's slug and id, and the place after which the next page begins.

    `client` is an id, `server` an id or slug; `filters` are those of `clients`. The number of queries does not grow with what there
    is; a page may be shorter than `limit` where clients reach nothing. Raises ValidationFailed for a place that is none.
    """
    rows = clients(**filters).order_by("id")
    if client is not None:
        rows = rows.filter(pk=str(client))
    if after is not None:
        rows = rows.filter(pk__gte=_uuid(after[0]))
    chosen = list(rows[: limit + 1])
    known = sorted(
        (slug, str(id), str(tenant_id))
        for slug, id, tenant_id in servers().order_by().values_list("slug", "id", "tenant_id")
        if server is None or str(server) in (slug, str(id))
    )
    within = reach()
    wanted = list(islice(_reached(chosen[:limit], known, within, after), limit + 1))
    page = wanted[:limit]
    sides = server_sides({id for _, _, id in page})
    verdicts = Verdicts()
    found = [verdicts.pair(row, sides[id]) for row, _, id in page if id in sides]
    if len(wanted) > limit:
        row, slug, id = page[-1]
        return found, (str(row.pk), slug, id)
    return found, (str(chosen[limit].pk), "", "") if len(chosen) > limit else None


def _reached(
    rows: Sequence[ClientSeen], known: Sequence[tuple[str, str, str]], within: Reach, after: Place | None
) -> Iterator[tuple[ClientSeen, str, str]]:
    for row in rows:
        for slug, id, tenant_id in known:
            if after is not None and str(row.pk) == after[0] and (slug, id) <= after[1:]:
                continue
            if reaches(row, id, tenant_id, within):
                yield row, slug, id


def _uuid(text: str) -> UUID:
    key = as_uuid(text)
    if key is None:
        raise ValidationFailed("The cursor is not one of ours.", errors={"cursor": ["Not a cursor."]})
    return key
