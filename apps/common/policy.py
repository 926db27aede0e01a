"""The one policy: a pure decision over plain facts.

The control plane feeds it from the database, the data plane from the snapshot; the rules are the same and stand only here.
Default deny; a deny grant wins over every allow grant.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks."""

    kind: str
    """`user`, `api_key` or `system`."""
    id: str
    label: str
    tenant_id: str | None
    is_superuser: bool = False
    permissions: frozenset[str] = frozenset()
    """`<kind>.<verb>` for the control plane, `*` as either part; from the roles in this tenant."""
    scopes: frozenset[str] | None = None
    """What the credential is narrowed to: permissions of the same form, None = not narrowed."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The use of something, given to (or, with `deny`, taken from) somebody."""

    id: str
    kind: str
    """`server`, `toolset` or `tool`."""
    effect: str = "allow"
    server_id: str | None = None
    toolset_id: str | None = None
    pattern: str = ""
    """For `tool`: full names (`server__tool`), `*` matches any run of characters."""
    tenant_id: str | None = None
    """Where it was given. A user may be a member of several tenants: who gathers grants leaves out those of the others,
    because a pattern names servers of its own tenant alone."""


@dataclass(frozen=True, slots=True)
class ToolRef:
    """What is to be used: a tool, resource or prompt of a server, reached through toolsets."""

    server_id: str
    full_name: str
    toolset_ids: frozenset[str] = frozenset()
    kind: str = "tool"


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer and the rule that gave it."""

    allowed: bool
    rule: str
    reason: str


@lru_cache(maxsize=8192)
def _pieces(pattern: str) -> tuple[str, str | None, tuple[str, ...], int]:
    """Take a pattern apart: what a name begins with, what it ends with (None = the pattern has no star and is the whole name), what
    comes between in this order, and the length of beginning and end together."""
    head, *middle = pattern.split("*")
    if not middle:
        return head, None, (), len(head)
    tail = middle.pop()
    return head, tail, tuple(piece for piece in middle if piece), len(head) + len(tail)


def matches(pattern: str, name: str) -> bool:
    """Tell whether `name` matches `pattern`, in which only `*` is special: any run of characters, also none, also line ends.

    Each piece between two stars is taken where it first occurs after the one before, which leaves the most room for those that follow;
    so nothing is ever tried again, and the work grows with the length of the name, not with the number of ways to divide it.
    """
    head, tail, middle, least = _pieces(pattern)
    if tail is None:
        return name == head
    if len(name) < least or not name.startswith(head) or not name.endswith(tail):
        return False
    if not middle:
        return True
    at, end = len(head), len(name) - len(tail)
    for piece in middle:
        at = name.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


@dataclass(frozen=True, slots=True)
class Access:
    """A principal's grants, laid out for constant-time questions."""

    everything: bool = False
    allow_servers: dict[str, str] = field(default_factory=dict)
    allow_toolsets: dict[str, str] = field(default_factory=dict)
    allow_tools: tuple[tuple[str, str], ...] = ()
    deny_servers: dict[str, str] = field(default_factory=dict)
    deny_toolsets: dict[str, str] = field(default_factory=dict)
    deny_tools: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, grants: Iterable[Grant], *, everything: bool = False) -> "Access":
        """Build it from grants; `everything` is what a superuser has."""
        servers: dict[str, dict[str, str]] = {"allow": {}, "deny": {}}
        toolsets: dict[str, dict[str, str]] = {"allow": {}, "deny": {}}
        tools: dict[str, list[tuple[str, str]]] = {"allow": [], "deny": []}
        for grant in grants:
            if grant.kind == "server" and grant.server_id:
                servers[grant.effect][grant.server_id] = grant.id
            elif grant.kind == "toolset" and grant.toolset_id:
                toolsets[grant.effect][grant.toolset_id] = grant.id
            elif grant.kind == "tool":
                tools[grant.effect].append((grant.pattern, grant.id))
        return cls(
            everything=everything,
            allow_servers=servers["allow"],
            allow_toolsets=toolsets["allow"],
            allow_tools=tuple(tools["allow"]),
            deny_servers=servers["deny"],
            deny_toolsets=toolsets["deny"],
            deny_tools=tuple(tools["deny"]),
        )


def may_use(access: Access, ref: ToolRef) -> Decision:
    """Decide whether a tool, resource or prompt may be listed and used."""
    if rule := access.deny_servers.get(ref.server_id):
        return Decision(False, f"grant:{rule}", "a deny grant on the server")
    for toolset_id in ref.toolset_ids & access.deny_toolsets.keys():
        return Decision(False, f"grant:{access.deny_toolsets[toolset_id]}", "a deny grant on the toolset")
    for pattern, rule in access.deny_tools:
        if matches(pattern, ref.full_name):
            return Decision(False, f"grant:{rule}", f"a deny grant on {pattern}")
    if access.everything:
        return Decision(True, "superuser", "a superuser may use everything")
    if rule := access.allow_servers.get(ref.server_id):
        return Decision(True, f"grant:{rule}", "a grant on the server")
    for toolset_id in ref.toolset_ids & access.allow_toolsets.keys():
        return Decision(True, f"grant:{access.allow_toolsets[toolset_id]}", "a grant on the toolset")
    if ref.kind == "tool":
        for pattern, rule in access.allow_tools:
            if matches(pattern, ref.full_name):
                return Decision(True, f"grant:{rule}", f"a grant on {pattern}")
    return Decision(False, "default-deny", f"no grant allows the {ref.kind} {ref.full_name}")


def _covers(permissions: Iterable[str], kind: str, verb: str) -> str | None:
    for permission in permissions:
        have_kind, _, have_verb = permission.partition(".")
        if have_kind in ("*", kind) and have_verb in ("*", verb):
            return permission
    return None


def may_manage(principal: Principal, action: str, *, tenant_id: str | None) -> Decision:
    """Decide a control-plane action, `<kind>.<verb>` (verbs: read, write, delete, admin, call), on an object of a tenant.

    `tenant_id` None means an object above tenants (a tenant itself, the installation): superusers only.
    """
    kind, _, verb = action.partition(".")
    if principal.scopes is not None and _covers(principal.scopes, kind, verb) is None:
        return Decision(False, "scope", f"the credential's scopes do not include {action}")
    if principal.is_superuser:
        return Decision(True, "superuser", "a superuser may do everything")
    if tenant_id is None or principal.tenant_id != tenant_id:
        return Decision(False, "tenant", "the object belongs to another tenant")
    if permission := _covers(principal.permissions, kind, verb):
        return Decision(True, f"permission:{permission}", "a role gives this permission")
    return Decision(False, "default-deny", f"no role gives {action}")
