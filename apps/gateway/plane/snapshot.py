"""The immutable picture of all that a call needs. Built off the loop, swapped in one assignment, never changed in place.

A patch shares everything it does not touch with the picture before it; what is computed on demand (a principal's access, the list
that a principal sees) is cached inside the picture it was computed from and goes with it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from apps.accounts.domain import KeyFacts, TenantFacts, UserFacts, key_label
from apps.common.policy import Access, Grant, Principal
from apps.gateway.plane.limits import LimitSet
from apps.gateway.plane.templates import match_template
from apps.servers.domain import ServerFacts
from apps.tools.domain.composition import compose, shown
from apps.tools.domain.facts import KINDS, DefinitionFacts, ToolsetFacts
from apps.tools.domain.naming import SEPARATOR, name_problem


@dataclass(frozen=True, slots=True)
class Item:
    """One definition as a toolset exposes it: what it is called there, and the JSON that a list gives for it."""

    name: str
    """The exposed name; for resources and templates the URI."""
    facts: DefinitionFacts
    full_name: str
    """`server__name`, what grants speak of."""
    listing: bytes
    toolset_ids: frozenset[str] = frozenset()
    """The toolsets through which it is reached here."""


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """A server with its definitions, under its own names and under full ones, in the order in which lists show them."""

    facts: ServerFacts
    own: Mapping[str, Mapping[str, Item]]
    """kind → the server's own name → item."""
    prefixed: Mapping[str, Mapping[str, Item]]
    """kind → full name (for resources and templates the URI) → item."""
    withheld: frozenset[str] = frozenset()
    """URIs of resources that an operator has not accepted."""
    withheld_templates: tuple[str, ...] = ()

    def withholds(self, uri: str) -> bool:
        """Tell whether a URI, or a template it fits, waits for an operator or was rejected."""
        return uri in self.withheld or any(match_template(template, uri) for template in self.withheld_templates)


@dataclass(frozen=True, slots=True)
class ToolsetEntry:
    """A composed toolset with the items it has now: kind → exposed name → item, in the order in which lists show them."""

    facts: ToolsetFacts
    items: Mapping[str, Mapping[str, Item]]
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated principal with its rights, as of one picture."""

    principal: Principal
    access: Access
    key: KeyFacts | None = None


def caller_name(caller: Caller) -> str:
    """Return what a caller is called towards the transports, which keep what is a caller's own by it."""
    return f"{caller.principal.kind}:{caller.principal.id}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The picture. Dictionaries are never changed after it is made."""

    version: int = 0
    outbox_id: int = 0
    """Everything committed up to this outbox event is in here."""
    tenants: Mapping[str, TenantFacts] = field(default_factory=dict)
    users: Mapping[str, UserFacts] = field(default_factory=dict)
    keys: Mapping[bytes, KeyFacts] = field(default_factory=dict)
    key_digests: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    """key → its digests: of its text, and of the one that a rotation replaced while that is accepted."""
    servers: Mapping[str, ServerEntry] = field(default_factory=dict)
    server_slugs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """tenant → slug → server id, in the order of full names."""
    toolsets: Mapping[str, ToolsetEntry] = field(default_factory=dict)
    toolset_slugs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    grants: Mapping[str, tuple[Grant, ...]] = field(default_factory=dict)
    """`user:<id>`, `role:<id>` or `api_key:<id>` → grants."""
    limits: Mapping[str, LimitSet] = field(default_factory=dict)
    """tenant → its limits; without any, calls are not asked about them."""
    member_toolsets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """server id → composed toolsets with entries of it."""
    cache: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def caller_of_key(self, digest: bytes) -> Caller | None:
        """Return the caller behind a key's digest; None when the key, its owner or its tenant is unknown or switched off."""
        cached = self.cache.get(digest)
        if cached is not None:
            return cached  # type: ignore[no-any-return]
        key = self.keys.get(digest)
        if key is None:
            return None
        owner = self.users.get(key.owner_id)
        tenant = self.tenants.get(key.tenant_id)
        if owner is None or not owner.active or tenant is None or not tenant.active:
            return None
        roles = [role for tenant_id, role in owner.roles if tenant_id == key.tenant_id]
        if not owner.is_superuser and not roles:
            return None
        grants = list(self.grants.get(f"api_key:{key.id}", ()))
        if key.inherits_owner:
            grants += self._owner_grants(owner.id, roles, key.tenant_id)
        narrowed = key.scopes is not None and not any(may_call(scope) for scope in key.scopes)
        access = Access() if narrowed else Access.of(grants, everything=key.inherits_owner and owner.is_superuser)
        principal = Principal(
            kind="api_key",
            id=key.id,
            label=key_label(key.name, key.prefix, owner.username),
            tenant_id=key.tenant_id,
            is_superuser=key.inherits_owner and owner.is_superuser,
            scopes=key.scopes,
        )
        caller = Caller(principal, access, key)
        self.cache[digest] = caller
        return caller

    def caller_of_key_id(self, id: str) -> Caller | None:
        """Return the caller that a key is, by its id; None as in `caller_of_key`."""
        digests = self.key_digests.get(id)
        return self.caller_of_key(digests[0]) if digests else None

    def caller_of_user(self, user_id: str, tenant_id: str) -> Caller | None:
        """Return a person as a caller in a tenant, for the playground and the REST tool call."""
        user = self.users.get(user_id)
        tenant = self.tenants.get(tenant_id)
        if user is None or not user.active or tenant is None or not tenant.active:
            return None
        roles = [role for role_tenant, role in user.roles if role_tenant == tenant_id]
        if not user.is_superuser and not roles:
            return None
        access = Access.of(self._owner_grants(user.id, roles, tenant_id), everything=user.is_superuser)
        principal = Principal(kind="user", id=user.id, label=user.username, tenant_id=tenant_id, is_superuser=user.is_superuser)
        return Caller(principal, access)

    def _owner_grants(self, user_id: str, roles: Iterable[str], tenant_id: str) -> list[Grant]:
        found = [grant for grant in self.grants.get(f"user:{user_id}", ()) if grant.tenant_id in (None, tenant_id)]
        for role in roles:
            found += [grant for grant in self.grants.get(f"role:{role}", ()) if grant.tenant_id in (None, tenant_id)]
        return found


def may_call(scope: str) -> bool:
    """Tell whether a credential's scope includes the use of tools (`tool.call`)."""
    kind, _, verb = scope.partition(".")
    return kind in ("*", "tool") and verb in ("*", "call")


def build_server(
    facts: ServerFacts,
    definitions: Iterable[DefinitionFacts],
    previous: ServerEntry | None = None,
    withheld: Iterable[tuple[str, str]] = (),
) -> ServerEntry:
    """Lay out a server's definitions for lookups and lists, by name; `withheld` are kind and name of those not accepted.

    Where nothing of them has changed since `previous`, its items are used again, so that nobody is told of a change.
    """
    ordered = sorted(definitions, key=lambda row: row.name)
    if previous is not None and previous.facts.slug == facts.slug:
        before = [item.facts for items in previous.own.values() for item in items.values()]
        if _marks(before) == _marks(ordered):
            return ServerEntry(facts, previous.own, previous.prefixed, *_withheld(withheld))
    own: dict[str, dict[str, Item]] = {kind: {} for kind in KINDS}
    prefixed: dict[str, dict[str, Item]] = {kind: {} for kind in KINDS}
    for definition in ordered:
        whole = f"{facts.slug}{SEPARATOR}{definition.name}"
        own[definition.kind][definition.name] = Item(definition.name, definition, whole, orjson.dumps(definition.definition))
        if definition.kind not in ("tool", "prompt"):
            prefixed[definition.kind][definition.name] = own[definition.kind][definition.name]
        elif not name_problem(whole):
            listing = orjson.dumps(shown(definition.definition, definition.kind, whole))
            prefixed[definition.kind][whole] = Item(whole, definition, whole, listing)
    return ServerEntry(facts, own, prefixed, *_withheld(withheld))


def _withheld(definitions: Iterable[tuple[str, str]]) -> tuple[frozenset[str], tuple[str, ...]]:
    rows = tuple(definitions)
    return frozenset(name for kind, name in rows if kind == "resource"), tuple(
        name for kind, name in rows if kind == "template"
    )


def _marks(definitions: Iterable[DefinitionFacts]) -> list[tuple[str, str, str, str]]:
    return sorted((row.kind, row.name, row.digest, row.effects) for row in definitions)


def build_toolset(facts: ToolsetFacts, servers: Mapping[str, ServerEntry]) -> ToolsetEntry:
    """Resolve a composed toolset's entries against the definitions there are now."""
    chosen = tuple(dict.fromkeys(entry.server_id for entry in facts.entries))
    present = {id: servers[id] for id in chosen if id in servers}
    offered = {id: [item.facts for own in entry.own.values() for item in own.values()] for id, entry in present.items()}
    composition = compose(facts.entries, offered, {id: entry.facts.slug for id, entry in present.items()})
    items: dict[str, dict[str, Item]] = {kind: {} for kind in KINDS}
    through = frozenset((facts.id,))
    for member in composition.items:
        original = present[member.server_id].own[member.kind][member.own_name]
        items[member.kind][member.name] = Item(
            member.name, original.facts, original.full_name, orjson.dumps(member.definition), through
        )
    return ToolsetEntry(facts, items, chosen)


def index_slugs(rows: Iterable[tuple[str, str, str]]) -> dict[str, dict[str, str]]:
    """Lay out (tenant, slug, id) as tenant → slug → id, in the order in which full names sort."""
    found: dict[str, dict[str, str]] = {}
    for tenant, slug, id in sorted(rows, key=lambda row: (row[0], row[1] + "__")):
        found.setdefault(tenant, {})[slug] = id
    return found


def membership(toolsets: Mapping[str, ToolsetEntry]) -> dict[str, frozenset[str]]:
    """Return server id → composed toolsets that have entries of it."""
    found: dict[str, set[str]] = {}
    for toolset in toolsets.values():
        for server in toolset.servers:
            found.setdefault(server, set()).add(toolset.facts.id)
    return {server: frozenset(ids) for server, ids in found.items()}


def with_changes(snapshot: Snapshot, **changes: Any) -> Snapshot:
    """Return the next picture: the given parts replaced, the derived caches empty."""
    return replace(snapshot, version=snapshot.version + 1, cache={}, **changes)
