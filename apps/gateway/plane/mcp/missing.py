"""What a list cannot show or cannot vouch for: servers that are paused, do not answer, or have never said what they offer.

Lists come from the catalogue, so a dead server never empties one; its own answer says which servers it is about.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from apps.common.policy import Access, ToolRef, may_use
from apps.gateway.plane.snapshot import Caller, ServerEntry, Snapshot
from apps.gateway.plane.views import Target, decide, remember
from apps.tools.domain.facts import KINDS
from apps.tools.domain.naming import SEPARATOR

META_MISSING = "switchyard/missing"
"""The member of a list's `_meta`, there only when something is missing."""
MOST = 100
"""Servers named in one answer."""
_OUT = frozenset(("unhealthy", "unauthenticated"))
_SAID = {
    "paused": "An operator has paused it; what it offers is not listed.",
    "unhealthy": "It does not answer.",
    "unauthenticated": "It refuses the credentials it is reached with.",
    "unknown": "It has not said yet what it offers.",
}
_OLD = " What is listed of it is as of its last answer, and calls may fail."


def missing(snapshot: Snapshot, caller: Caller, target: Target) -> list[dict[str, Any]]:
    """Return what is missing from a caller's lists at a target: `{server, state, listed, detail}` each, at most 100.

    `listed` tells whether what the server last said it offers is in the lists all the same. Servers of which the caller may use
    nothing are not named.
    """
    cache_key = ("missing", target.tenant_id, caller.principal.id, target.slug)
    found: list[dict[str, Any]] | None = snapshot.cache.get(cache_key)
    if found is None:
        found = list(_find(snapshot, caller, target))[:MOST]
        remember(snapshot, cache_key, found, 10 + len(found))
    return found


def why_empty(snapshot: Snapshot, caller: Caller, target: Target, *kinds: str) -> str:
    """Say in one sentence why a caller's lists of some kinds have nothing in them: for the log, and for who looks after it."""
    if target.paused:
        return "The toolset is paused."
    items = [item for kind in kinds for item in target.items(snapshot, kind)]
    if not items:
        held = any(server.withheld or server.withheld_templates for server in target.servers(snapshot))
        states = Counter(filter(None, (_state(server) for server in target.servers(snapshot))))
        said = ", ".join(f"{number} {state}" for state, number in states.items())
        more = " Some wait for an operator's approval." if held else ""
        return f"There is nothing here{f' (servers: {said})' if said else ''}.{more}"
    rules = Counter(one.rule for one in (decide(snapshot, caller, target, item) for item in items) if not one.allowed)
    paused = len(items) - rules.total()
    words = [f"{number} refused by {rule}" for rule, number in rules.most_common(5)]
    return f"Of {len(items)}: {', '.join([*words, *([f'{paused} on servers that are paused'] if paused else [])])}."


def _find(snapshot: Snapshot, caller: Caller, target: Target) -> Iterator[dict[str, Any]]:
    if target.paused:
        detail = "An operator has paused this toolset; nothing of it is listed."
        yield {"toolset": target.slug, "state": "paused", "listed": False, "detail": detail}
        return
    for server in target.servers(snapshot):
        state = _state(server)
        if state and _may_use_some(snapshot, caller, target, server):
            listed = state != "paused" and any(server.own.values())
            yield {
                "server": server.facts.slug,
                "state": state,
                "listed": listed,
                "detail": _SAID[state] + (_OLD if listed else ""),
            }


def _state(server: ServerEntry) -> str:
    """Return why a server's part of a list is not to be relied on; empty where it is."""
    facts = server.facts
    if facts.paused:
        return "paused"
    states = [place.state for place in facts.endpoints]
    if states and all(state in _OUT for state in states):
        return states[0]
    described = facts.revisions or facts.capabilities or any(server.own.values())
    return "" if described else "unknown"


def _may_use_some(snapshot: Snapshot, caller: Caller, target: Target, server: ServerEntry) -> bool:
    """Tell whether a caller may use anything that a server has here or, where nothing is known of it, might have."""
    if target.toolset is not None:
        there = [item for kind in KINDS for item in target.toolset.items[kind].values()]
        there = [item for item in there if item.facts.server_id == server.facts.id]
    else:
        there = [item for items in server.own.values() for item in items.values()]
    if there:
        return any(decide(snapshot, caller, target, item).allowed for item in there)
    return _might_use(caller.access, snapshot, target, server)


def _might_use(access: Access, snapshot: Snapshot, target: Target, server: ServerEntry) -> bool:
    prefix = f"{server.facts.slug}{SEPARATOR}"
    own = snapshot.toolset_slugs.get(server.facts.tenant_id, {}).get(server.facts.slug)
    through = frozenset(one for one in (target.toolset_id, own) if one)
    decision = may_use(access, ToolRef(server.facts.id, prefix, through))
    if decision.allowed or decision.rule != "default-deny":
        return decision.allowed
    for pattern, _ in access.allow_tools:
        head, star, _ = pattern.partition("*")
        if head.startswith(prefix) or (star and prefix.startswith(head)):
            return True
    return False
