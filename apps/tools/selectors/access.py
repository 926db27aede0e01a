"""Who may use a tool, and what somebody may use: the policy's own answers, asked for everybody."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from apps.accounts.domain import KeyFacts, UserFacts, key_label
from apps.accounts.selectors import plane_keys, plane_users
from apps.common.clock import now_us
from apps.common.context import every_tenant, tenant_scope
from apps.common.policy import Access, Decision, ToolRef, matches, may_use
from apps.common.policy import Grant as GrantFacts
from apps.tools.domain import full_name
from apps.tools.models import CATALOGUE, Definition, Grant, Toolset, ToolsetEntry
from apps.tools.selectors.plane import plane_grants


@dataclass(frozen=True, slots=True)
class Use:
    """One subject and whether it may use something."""

    kind: str
    """`user`, `role` or `api_key`."""
    id: str
    label: str
    allowed: bool
    rule: str
    """`grant:<id>`, `superuser`, `default-deny` or `scope`."""
    reason: str


@dataclass(frozen=True, slots=True)
class Usable:
    """One thing that a subject may use, and the rule that allows it."""

    kind: str
    server: str
    name: str
    full_name: str
    rule: str
    reason: str


def who_may_use(definition: Definition, *, refused: bool = False, once_approved: bool = False) -> list[Use]:
    """Return the users, roles and API keys of the definition's tenant that may use it, with the rule; with `refused`, also the others
    that a grant concerns or that are members. What is held, rejected or removed nobody may use, whatever the grants say; with
    `once_approved` the answer is who may when it is in force.
    """
    with tenant_scope(definition.tenant_id):
        ref = _ref(definition, _toolsets_with(definition))
        rows = _People(str(definition.tenant_id))
        found = [Use("user", user.id, user.username, *_answer(rows.access_of_user(user), ref)) for user in rows.users.values()]
        found += [
            Use("role", role_id, label, *_answer(Access.of(rows.grants[f"role:{role_id}"]), ref))
            for role_id, label in rows.role_labels.items()
        ]
        found += [Use("api_key", key.id, rows.label_of_key(key), *_answer(rows.access_of_key(key), ref)) for key in rows.keys]
    if definition.state != Definition.State.ACTIVE and not once_approved:
        reason = f"it is {definition.get_state_display().lower()}"
        found = [Use(use.kind, use.id, use.label, False, "review", reason) for use in found]
    return [use for use in found if use.allowed or refused]


def usable_by(
    tenant_id: object, *, user: Any = None, role: Any = None, api_key: Any = None, kind: str | None = None
) -> list[Usable]:
    """Return what one user, role or API key (row or id) may use in a tenant, of one kind or of all, ordered by kind and full name."""
    with tenant_scope(tenant_id):
        people = _People(str(tenant_id))
        access = _access(people, user=user, role=role, api_key=api_key)
        toolsets = _toolset_index()
        found: list[Usable] = []
        for model in CATALOGUE:
            if kind not in (None, model.kind):
                continue
            rows = model.objects.filter(state="active", server__paused_at__isnull=True).order_by("server__slug", "name")
            for server_id, slug, name in rows.values_list("server_id", "server__slug", "name"):
                full = full_name(slug, name)
                ref = ToolRef(str(server_id), full, toolsets.containing(str(server_id), model.kind, name), model.kind)
                decision = may_use(access, ref)
                if decision.allowed:
                    found.append(Usable(model.kind, slug, name, full, decision.rule, decision.reason))
    return found


def _access(people: "_People", *, user: Any, role: Any, api_key: Any) -> Access:
    if user is not None:
        facts = people.users.get(str(getattr(user, "pk", user)))
        return people.access_of_user(facts) if facts else Access()
    if role is not None:
        return Access.of(people.grants[f"role:{getattr(role, 'pk', role)}"])
    wanted = str(getattr(api_key, "pk", api_key))
    key = next((key for key in people.keys if key.id == wanted), None)
    return people.access_of_key(key) if key else Access()


class _People:
    """Everybody in one tenant, with their grants; the scope of the tenant is open."""

    def __init__(self, tenant_id: str) -> None:
        with every_tenant():
            users = plane_users()
        self.tenant_id = tenant_id
        self.users = {user.id: user for user in users if self._belongs(user)}
        self._names = {user.id: user.username for user in users}
        self.keys = [key for key in plane_keys() if key.expires_us is None or key.expires_us > now_us()]
        self.grants: dict[str, list[GrantFacts]] = defaultdict(list)
        for subject, _, grant in plane_grants():
            self.grants[subject].append(grant)
        labels = Grant.objects.filter(role__isnull=False).values_list("role_id", "role__name").distinct().order_by("role__name")
        self.role_labels = {str(role_id): name for role_id, name in labels}

    def label_of_key(self, key: KeyFacts) -> str:
        """Return what a key is called."""
        return key_label(key.name, key.prefix, self._names.get(key.owner_id, "?"))

    def _belongs(self, user: UserFacts) -> bool:
        return user.active and (user.is_superuser or any(tenant == self.tenant_id for tenant, _ in user.roles))

    def of_owner(self, user: UserFacts) -> list[GrantFacts]:
        """Return the grants to a user and to their roles in this tenant."""
        found = list(self.grants[f"user:{user.id}"])
        for tenant_id, role_id in user.roles:
            if tenant_id == self.tenant_id:
                found += self.grants[f"role:{role_id}"]
        return found

    def access_of_user(self, user: UserFacts) -> Access:
        """Return what a user may use."""
        return Access.of(self.of_owner(user), everything=user.is_superuser)

    def access_of_key(self, key: KeyFacts) -> Access:
        """Return what a key may use: its own grants and, where it inherits, its owner's; nothing where its scopes leave out calls."""
        owner = self.users.get(key.owner_id)
        if owner is None or (key.scopes is not None and not any(matches(scope, "tool.call") for scope in key.scopes)):
            return Access()
        own = list(self.grants[f"api_key:{key.id}"])
        if not key.inherits_owner:
            return Access.of(own)
        return Access.of(own + self.of_owner(owner), everything=owner.is_superuser)


class _ToolsetIndex:
    """Which toolsets have what."""

    def __init__(self, own: dict[str, str], entries: dict[str, list[tuple[str, str, str]]]) -> None:
        self._own = own
        self._entries = entries

    def containing(self, server_id: str, kind: str, name: str) -> frozenset[str]:
        """Return the ids of the toolsets with this definition: the server's own, and those that chose it."""
        found = {
            toolset_id
            for toolset_id, entry_kind, pattern in self._entries.get(server_id, ())
            if entry_kind in ("all", kind) and matches(pattern, name)
        }
        if server_id in self._own:
            found.add(self._own[server_id])
        return frozenset(found)


def _toolset_index(server_id: object = None) -> _ToolsetIndex:
    own = Toolset.objects.filter(server__isnull=False)
    chosen = ToolsetEntry.objects.order_by()
    if server_id is not None:
        own, chosen = own.filter(server_id=server_id), chosen.filter(server_id=server_id)
    entries: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for server, toolset, kind, pattern in chosen.values_list("server_id", "toolset_id", "kind", "pattern"):
        entries[str(server)].append((str(toolset), kind, pattern))
    return _ToolsetIndex({str(server): str(id) for server, id in own.values_list("server_id", "id")}, entries)


def _toolsets_with(definition: Definition) -> frozenset[str]:
    index = _toolset_index(definition.server_id)
    return index.containing(str(definition.server_id), definition.kind, definition.name)


def _ref(definition: Definition, toolset_ids: frozenset[str]) -> ToolRef:
    full = full_name(definition.server.slug, definition.name)
    return ToolRef(str(definition.server_id), full, toolset_ids, definition.kind)


def _answer(access: Access, ref: ToolRef) -> tuple[bool, str, str]:
    decision: Decision = may_use(access, ref)
    return decision.allowed, decision.rule, decision.reason
