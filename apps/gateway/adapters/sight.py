"""Looks at the live picture as one caller: the lists by the very code that answers them, and what is missing from them."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from apps.common.errors import NotFound
from apps.common.policy import ToolRef, matches, may_use
from apps.gateway.plane.mcp.missing import missing, why_empty
from apps.gateway.plane.snapshot import Caller, Item, Snapshot
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.plane.views import Target, decide, find_target, page, visible
from apps.gateway.services.sight import (
    HELD,
    MISSING_SHOWN,
    NAME,
    PAUSED,
    REFUSED_SHOWN,
    TOOLSET_PAUSED,
    Listed,
    Missing,
    Refused,
    Sight,
    Trouble,
    Waiter,
)
from apps.servers.domain import ServerFacts
from apps.tools.domain.facts import KINDS
from apps.tools.domain.naming import SEPARATOR, name_problem
from apps.tools.selectors import Waiting

LISTED_SHOWN = 2_000
TROUBLED = frozenset(("unhealthy", "unauthenticated", "degraded"))


def look(store: SnapshotStore, who: str, tenant_id: str, slug: str, held_of: Waiter) -> Sight:
    """Return what a key or a person sees at `/mcp/<slug>` (a `Viewer`). Raises NotFound.

    In a thread of its own: the picture never changes, and what is computed from it is kept apart from what the loop keeps.
    """
    snapshot = replace(store.current, cache={})
    kind, _, id = who.partition(":")
    caller = snapshot.caller_of_key_id(id) if kind == "api_key" else snapshot.caller_of_user(id, tenant_id)
    expires = caller.key.expires_us if caller is not None and caller.key is not None else None
    if caller is None or caller.principal.tenant_id != tenant_id or (expires is not None and expires <= time.time() * 1e6):
        lost = (
            "key: it is revoked or expired, or its owner or tenant is"
            if kind == "api_key"
            else "user with a role here: they, or the tenant, are"
        )
        raise NotFound(f"The data plane knows no such {lost} switched off.")
    target = find_target(snapshot, caller, slug)
    servers = {server.facts.id: server.facts for server in target.servers(snapshot)}
    sight = Sight(
        principal=caller.principal.label, path=f"/mcp/{slug}" if slug else "/mcp", title=target.title, version=snapshot.version
    )
    behind: set[str] = set()
    for kind in KINDS:
        items = visible(snapshot, caller, target, kind)
        behind |= {item.facts.server_id for item in items}
        _list(sight, snapshot, caller, target, items, kind)
    found = [*_stopped(sight, snapshot, caller, target), *_unnamed(snapshot, caller, target)]
    found += _held(snapshot, caller, target, held_of(list(servers)))
    found.sort(key=lambda one: (one.server, KINDS.index(one.kind), one.name))
    sight.empty = why_empty(snapshot, caller, target, *KINDS) if not behind else ""
    sight.missing, sight.missing_left_out = found[:MISSING_SHOWN], max(0, len(found) - MISSING_SHOWN)
    troubled = {facts.slug: facts for facts in servers.values() if facts.id in behind and _all_troubled(facts)}
    sight.trouble = [Trouble(slug, facts.endpoints[0].state) for slug, facts in troubled.items()]
    for one in missing(snapshot, caller, target):
        if one.get("server") not in (None, *troubled) and one["state"] != "paused":
            sight.trouble.append(Trouble(one["server"], one["state"]))
    return sight


def _all_troubled(facts: ServerFacts) -> bool:
    return bool(facts.endpoints) and all(place.state in TROUBLED for place in facts.endpoints)


def _list(sight: Sight, snapshot: Snapshot, caller: Caller, target: Target, items: tuple[Item, ...], kind: str) -> None:
    sight.counts[kind] = len(items)
    sight.pages[kind] = _pages(items)
    sight.bytes += sum(len(item.listing) for item in items)
    for item in items[: max(0, LISTED_SHOWN - len(sight.listed))]:
        said = item.facts.definition
        server = snapshot.servers.get(item.facts.server_id)
        sight.listed.append(
            Listed(
                kind=kind,
                name=item.name,
                server=server.facts.slug if server is not None else "",
                title=_text(said.get("title")),
                description=_text(said.get("description")),
                size=len(item.listing),
                rule=decide(snapshot, caller, target, item).rule,
            )
        )


def _pages(items: tuple[Item, ...]) -> int:
    number, place = 1, None
    while True:
        _, place = page(items, place)
        if place is None:
            return number
        number += 1


def _stopped(sight: Sight, snapshot: Snapshot, caller: Caller, target: Target) -> Iterator[Missing]:
    """Give what a pause keeps from the caller, and count what no grant gives it."""
    whole = target.paused
    refused: Counter[str] = Counter()
    for kind in KINDS:
        for item in target.items(snapshot, kind):
            server = snapshot.servers[item.facts.server_id].facts
            decision = decide(snapshot, caller, target, item)
            if not decision.allowed:
                refused[kind] += 1
                if len(sight.refused) < REFUSED_SHOWN:
                    sight.refused.append(Refused(kind, item.name, server.slug, decision.rule, decision.reason))
                else:
                    sight.refused_left_out += 1
            elif server.paused or whole:
                yield Missing(kind, item.name, server.slug, PAUSED if server.paused else TOOLSET_PAUSED)
    sight.not_granted = dict(refused)


def _unnamed(snapshot: Snapshot, caller: Caller, target: Target) -> Iterator[Missing]:
    """Give what has no name at `/mcp`, where names are `server__name` with at most 64 characters."""
    if target.server is not None or target.toolset is not None:
        return
    for server in target.servers(snapshot):
        for kind in ("tool", "prompt"):
            for item in server.own[kind].values():
                if name_problem(item.full_name) and decide(snapshot, caller, target, item).allowed:
                    yield Missing(kind, item.full_name, server.facts.slug, NAME)


def _held(snapshot: Snapshot, caller: Caller, target: Target, waiting: Mapping[str, Iterable[Waiting]]) -> Iterator[Missing]:
    """Give what the caller may use once an operator has approved it."""
    for server_id, rows in waiting.items():
        entry = snapshot.servers.get(server_id)
        if entry is None:
            continue
        for row in rows:
            if target.toolset is not None and not _chosen(target.toolset.facts.entries, row):
                continue
            full = f"{entry.facts.slug}{SEPARATOR}{row.name}"
            ref = ToolRef(server_id, full, _through(snapshot, target, row, entry.facts.slug), row.kind)
            if may_use(caller.access, ref).allowed:
                plain = target.server is not None or row.kind not in ("tool", "prompt")
                yield Missing(row.kind, row.name if plain else full, entry.facts.slug, HELD)


def _through(snapshot: Snapshot, target: Target, row: Waiting, slug: str) -> frozenset[str]:
    if target.toolset_id:
        return frozenset((target.toolset_id,))
    own = snapshot.toolset_slugs.get(target.tenant_id, {}).get(slug)
    composed = {
        id
        for id in snapshot.member_toolsets.get(row.server_id, ())
        if not snapshot.toolsets[id].facts.paused and _chosen(snapshot.toolsets[id].facts.entries, row)
    }
    return frozenset(composed | ({own} if own else set()))


def _chosen(entries: Iterable[Any], row: Waiting) -> bool:
    return any(
        entry.server_id == row.server_id and entry.kind in ("all", row.kind) and matches(entry.pattern, row.name)
        for entry in entries
    )


def _text(value: object) -> str:
    return value[:300] if isinstance(value, str) else ""
