"""What a caller sees: lists with stable pages, and the way from an exposed name to what may be used behind it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from apps.common.clock import now_us
from apps.common.errors import NotFound, PermissionDenied, ValidationFailed
from apps.common.policy import Decision, ToolRef, may_use
from apps.gateway.plane.snapshot import Caller, Item, ServerEntry, Snapshot, ToolsetEntry
from apps.gateway.plane.templates import match_template
from apps.tools.domain.naming import SEPARATOR

PAGE_ITEMS = 250
PAGE_BYTES = 512 * 1024
CACHED = 1_000_000
"""Weight of the answers kept for one picture: an item of a list weighs 1, any other answer 10."""
_WEIGHT = "weight"
_ALL: frozenset[str] = frozenset()
_BY_URI = frozenset(("resource", "template"))


@dataclass(frozen=True, slots=True)
class Target:
    """Where a caller is: `/mcp` (both None), a server's own toolset, or a composed one."""

    tenant_id: str
    slug: str = ""
    server: ServerEntry | None = None
    toolset: ToolsetEntry | None = None
    toolset_id: str = ""
    title: str = ""
    instructions: str = ""
    paused: bool = False
    """An operator has paused this toolset: nothing is used through it."""

    def items(self, snapshot: Snapshot, kind: str) -> Iterator[Item]:
        """Yield everything that is there, by name, whoever asks."""
        if self.server is not None:
            return iter(self.server.own[kind].values())
        if self.toolset is not None:
            return iter(self.toolset.items[kind].values())
        ids = snapshot.server_slugs.get(self.tenant_id, {}).values()
        return chain.from_iterable(snapshot.servers[id].prefixed[kind].values() for id in ids if id in snapshot.servers)

    def servers(self, snapshot: Snapshot) -> Iterator[ServerEntry]:
        """Yield the servers behind it."""
        if self.server is not None:
            yield self.server
        elif self.toolset is not None:
            yield from (snapshot.servers[id] for id in self.toolset.servers if id in snapshot.servers)
        else:
            ids = snapshot.server_slugs.get(self.tenant_id, {}).values()
            yield from (snapshot.servers[id] for id in ids if id in snapshot.servers)


def find_target(snapshot: Snapshot, caller: Caller, slug: str) -> Target:
    """Return where `/mcp/<slug>` leads for a caller. Raises NotFound, the same for unknown and foreign slugs."""
    tenant_id = caller.principal.tenant_id or ""
    cache_key = ("target", tenant_id, slug)
    target: Target | None = snapshot.cache.get(cache_key)
    if target is None:
        target = _find_target(snapshot, tenant_id, slug)
        remember(snapshot, cache_key, target)
    return target


def _find_target(snapshot: Snapshot, tenant_id: str, slug: str) -> Target:
    if not slug:
        return Target(tenant_id, title="Switchyard")
    toolset_id = snapshot.toolset_slugs.get(tenant_id, {}).get(slug)
    toolset = snapshot.toolsets.get(toolset_id or "")
    if toolset is None:
        raise NotFound(f"There is no toolset {slug} here. Ask your operator for the address, or use /mcp.")
    if toolset.facts.server_id is not None:
        server = snapshot.servers.get(toolset.facts.server_id)
        if server is None:
            raise NotFound(f"There is no toolset {slug} here. Ask your operator for the address, or use /mcp.")
        instructions = toolset.facts.instructions or server.facts.instructions
        return Target(
            tenant_id,
            slug,
            server=server,
            toolset_id=toolset.facts.id,
            title=toolset.facts.name,
            instructions=instructions,
            paused=toolset.facts.paused,
        )
    return Target(
        tenant_id,
        slug,
        toolset=toolset,
        toolset_id=toolset.facts.id,
        title=toolset.facts.name,
        instructions=toolset.facts.instructions,
        paused=toolset.facts.paused,
    )


def current_caller(snapshot: Snapshot, caller: Caller) -> Caller | None:
    """Return a caller with the rights of now; None when its key is no longer good, or its person may no longer work here."""
    if caller.key is None:
        principal = caller.principal
        return snapshot.caller_of_user(principal.id, principal.tenant_id or "") if principal.kind == "user" else caller
    found = snapshot.caller_of_key(caller.key.digest)
    expires = found.key.expires_us if found is not None and found.key is not None else None
    return None if expires is not None and expires <= now_us() else found


class NotGranted(PermissionDenied):
    """The policy refuses an item that is there; names the rule."""

    def __init__(self, item: Item, decision: Decision, target: Target) -> None:
        where = f" at /mcp/{target.slug}" if target.slug and decision.rule == "default-deny" else ""
        super().__init__(
            f"You may not use {item.name}: {decision.reason}{where}.",
            rule=decision.rule,
            name=item.name,
            server=item.full_name.partition("__")[0],
        )
        self.item = item


def decide(snapshot: Snapshot, caller: Caller, target: Target, item: Item) -> Decision:
    """Ask the policy whether a caller may see and use an item where it is."""
    through = _through(snapshot, target, item)
    return may_use(caller.access, ToolRef(item.facts.server_id, item.full_name, through, item.facts.kind))


def _through(snapshot: Snapshot, target: Target, item: Item) -> frozenset[str]:
    """Return the toolsets through which an item is reached from where a caller is."""
    if target.toolset_id:
        return item.toolset_ids or frozenset((target.toolset_id,))
    return toolsets_with(snapshot, item)


def toolsets_with(snapshot: Snapshot, item: Item) -> frozenset[str]:
    """Return the toolsets through which an item is used: its server's own, and the composed ones that chose it and are not paused."""
    cache_key = ("toolsets", item.facts.kind, item.full_name, item.facts.server_id)
    found: frozenset[str] | None = snapshot.cache.get(cache_key)
    if found is None:
        server = snapshot.servers.get(item.facts.server_id)
        ids = set()
        if server is not None:
            own = snapshot.toolset_slugs.get(server.facts.tenant_id, {}).get(server.facts.slug)
            if own and not (own in snapshot.toolsets and snapshot.toolsets[own].facts.paused):
                ids.add(own)
        for toolset_id in snapshot.member_toolsets.get(item.facts.server_id, _ALL):
            toolset = snapshot.toolsets[toolset_id]
            if toolset.facts.paused:
                continue
            members = toolset.items[item.facts.kind].values()
            if any(member.facts is item.facts or member.full_name == item.full_name for member in members):
                ids.add(toolset_id)
        found = frozenset(ids)
        remember(snapshot, cache_key, found)
    return found


def visible(snapshot: Snapshot, caller: Caller, target: Target, kind: str) -> tuple[Item, ...]:
    """Return all that a caller sees of a kind, by name."""
    cache_key = (target.tenant_id, caller.principal.id, target.slug, kind)
    found: tuple[Item, ...] | None = snapshot.cache.get(cache_key)
    if found is None:
        items = target.items(snapshot, kind)
        if target.paused:
            found = ()
        else:
            off = frozenset(id for id, server in snapshot.servers.items() if server.facts.paused)
            allowed = (
                item for item in items if item.facts.server_id not in off and decide(snapshot, caller, target, item).allowed
            )
            # a URI that several servers offer is one entry of a list; who reads it is told where to read whose
            found = tuple({item.name: item for item in allowed}.values()) if kind in _BY_URI else tuple(allowed)
        remember(snapshot, cache_key, found, 10 + len(found))
    return found


def remember(snapshot: Snapshot, key: Any, value: Any, weight: int = 10) -> None:
    """Keep something computed from a picture as long as the picture is in force; bounded, whoever asks for what."""
    cache = snapshot.cache
    total = cache.get(_WEIGHT, 0) + weight
    if total > CACHED:
        cache.clear()
        total = weight
    cache[_WEIGHT] = total
    cache[key] = value


Place = tuple[str, int]
"""Where a page ended: the name of the last item given, and its index."""


def page(items: tuple[Item, ...], after: Place | None) -> tuple[tuple[Item, ...], Place | None]:
    """Return a page and where it ends; None at the end of the list.

    A place names the last item given and its index, so that a page neither repeats nor skips what stays when others come or go.
    """
    start = 0 if after is None else _after(items, *after)
    taken: list[Item] = []
    size = 0
    for item in items[start : start + PAGE_ITEMS]:
        size += len(item.listing)
        if taken and size > PAGE_BYTES:
            break
        taken.append(item)
    end = start + len(taken)
    return tuple(taken), ((taken[-1].name, end - 1) if taken and end < len(items) else None)


def _after(items: tuple[Item, ...], last: str, place: int) -> int:
    if place < len(items) and items[place].name == last:
        return place + 1
    return next((index + 1 for index, item in enumerate(items) if item.name == last), min(place, len(items)))


def find_named(snapshot: Snapshot, caller: Caller, target: Target, kind: str, name: str) -> tuple[Item, Decision]:
    """Return the tool or prompt a caller names and the rule that allows it.

    Raises NotFound when there is none of that name, and PermissionDenied, which names the rule, when it is not granted.
    """
    cache_key = (target.tenant_id, caller.principal.id, target.slug, kind, name)
    known: tuple[Item, Decision] | None = snapshot.cache.get(cache_key)
    if known is not None:
        return known
    item: Item | None
    if target.server is not None:
        item = target.server.own[kind].get(name)
    elif target.toolset is not None:
        item = target.toolset.items[kind].get(name)
    else:
        slug, found, _ = name.partition("__")
        server_id = snapshot.server_slugs.get(target.tenant_id, {}).get(slug) if found else None
        server = snapshot.servers.get(server_id or "")
        item = server.prefixed[kind].get(name) if server is not None else None
    if item is None:
        raise NotFound(f"Unknown {kind}: {name}. Ask {kind}s/list for what there is.", name=name)
    answer = (item, _allowed(snapshot, caller, target, item))
    remember(snapshot, cache_key, answer)
    return answer


def _allowed(snapshot: Snapshot, caller: Caller, target: Target, item: Item) -> Decision:
    decision = decide(snapshot, caller, target, item)
    if not decision.allowed:
        raise NotGranted(item, decision, target)
    return decision


def _decide_resource(snapshot: Snapshot, caller: Caller, target: Target, item: Item, server: ServerEntry, uri: str) -> Decision:
    """Ask for the resource, or for the template and then for the very URI below it: a deny grant may speak of either."""
    decision = decide(snapshot, caller, target, item)
    if not decision.allowed or item.facts.kind != "template":
        return decision
    return _decide_uri(caller, server, _through(snapshot, target, item), uri)


def _decide_uri(caller: Caller, server: ServerEntry, through: frozenset[str], uri: str) -> Decision:
    return may_use(caller.access, ToolRef(server.facts.id, f"{server.facts.slug}{SEPARATOR}{uri}", through, "resource"))


def find_resource(snapshot: Snapshot, caller: Caller, target: Target, uri: str) -> tuple[ServerEntry, Item | None, Decision]:
    """Return the server that has a URI, by its resources or else its templates, and the rule that allows it.

    A server's own toolset also reads URIs that no list has, because tools give links to such. A URI that is held for review, or
    below a template that is, is not there. Raises NotFound, PermissionDenied, or ValidationFailed when several servers offer it
    (then their own toolsets tell them apart).
    """
    candidates: list[tuple[ServerEntry, Item]] = []
    for kind in ("resource", "template"):
        for server in target.servers(snapshot):
            source: Mapping[str, Item] = target.toolset.items[kind] if target.toolset is not None else server.own[kind]
            if kind == "resource":
                item = source.get(uri)
                if item is not None and item.facts.server_id == server.facts.id:
                    candidates.append((server, item))
            else:
                fitting = (one for one in source.values() if one.facts.server_id == server.facts.id)
                found = next((one for one in fitting if match_template(one.name, uri)), None)
                if found is not None and not server.withholds(uri):
                    candidates.append((server, found))
        if candidates:
            break
    if not candidates:
        if target.server is not None and not target.server.withholds(uri):
            decision = _decide_uri(caller, target.server, frozenset((target.toolset_id,)), uri)
            if decision.allowed:
                return target.server, None, decision
        raise NotFound(f"Resource not found: {uri}", uri=uri)
    allowed = [(server, item, _decide_resource(snapshot, caller, target, item, server, uri)) for server, item in candidates]
    granted = [one for one in allowed if one[2].allowed]
    if not granted:
        raise PermissionDenied(f"You may not read {uri}: {allowed[0][2].reason}.", rule=allowed[0][2].rule, uri=uri)
    if len(granted) > 1:
        slugs = ", ".join(f"/mcp/{server.facts.slug}" for server, _, _ in granted)
        raise ValidationFailed(f"Several servers offer {uri}. Read it through one of {slugs}.", uri=uri)
    return granted[0]
