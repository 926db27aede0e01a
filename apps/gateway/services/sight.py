"""What a key or a person sees at one place of the gateway now: the lists they would get by which rules, and what is missing and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.common import authorise
from apps.common.context import current_scope, current_tenant_id
from apps.common.errors import NotFound, NotReady
from apps.tools.selectors import Waiting, grants_in_words, waiting

PAUSED, HELD, TOOLSET_PAUSED, NAME = "paused", "held", "toolset-paused", "name"
"""Why something is missing."""
MISSING_SHOWN = 500
REFUSED_SHOWN = 500


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a list, as the client gets it."""

    kind: str
    """`tool`, `resource`, `template` or `prompt`."""
    name: str
    """The exposed name; for resources and templates the URI."""
    server: str
    """Slug."""
    title: str
    description: str
    size: int
    """Bytes of its JSON."""
    rule: str = ""
    """What allows it: `grant:<id>` or `superuser`."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that the client would get if it were not for `why`."""

    kind: str
    name: str
    server: str
    why: str
    """`paused`, `held`, `toolset-paused` or `name` (it cannot be named here)."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that is there and that the policy keeps from the caller."""

    kind: str
    name: str
    server: str
    rule: str
    """`grant:<id>` of a deny grant, or `default-deny`."""
    reason: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """A server behind the lists that does not answer well: its entries are listed, calls may fail."""

    server: str
    state: str


@dataclass(slots=True)
class Sight:
    """The lists of one caller at one place."""

    principal: str
    path: str
    """`/mcp` or `/mcp/<slug>`."""
    title: str
    version: int
    """Of the picture it was taken from; grows with every change."""
    listed: list[Listed] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """Kind → how many there are, also those that `listed` leaves out."""
    pages: dict[str, int] = field(default_factory=dict)
    """Kind → how many requests it takes to read the list."""
    bytes: int = 0
    """Of all lists together, as JSON."""
    missing: list[Missing] = field(default_factory=list)
    missing_left_out: int = 0
    """How many more are missing than `missing` names."""
    trouble: list[Trouble] = field(default_factory=list)
    not_granted: dict[str, int] = field(default_factory=dict)
    """Kind → how many are there that no grant gives this caller, or a deny grant takes."""
    refused: list[Refused] = field(default_factory=list)
    """The first of those, with the rule that refuses each."""
    refused_left_out: int = 0
    rules: dict[str, str] = field(default_factory=dict)
    """`grant:<id>` → the grant in words, of all rules that are named here."""
    empty: str = ""
    """Why nothing at all is listed; empty when something is."""


Waiter = Callable[[list[str]], Mapping[str, list[Waiting]]]
Viewer = Callable[[str, str, str, Waiter], Sight]
"""(`api_key:<id>` or `user:<id>`, tenant, slug of a toolset or nothing, what is held of servers) → what they see there."""
_viewer: Viewer | None = None


def register_viewer(viewer: Viewer | None) -> None:
    """Tell how the picture of the data plane of this process is looked at; the gateway's runtime does when it starts."""
    global _viewer
    _viewer = viewer


def seen_now(*, api_key: Any = None, user: Any = None, toolset: str = "", viewer: Viewer | None = None) -> Sight:
    """Return what a key or a user (row; the user in the tenant in force) sees at `/mcp/<toolset>` now, by the code that answers lists.

    Raises PermissionDenied without `audit.read` and `server.read`; NotFound for a toolset that is not there, for a key that is
    revoked or expired, and for a user who has no role here; NotReady in a process without a data plane.
    """
    scope = current_scope()
    tenant_id = str(api_key.tenant_id) if api_key is not None else current_tenant_id()
    if scope is None or not (scope.every_tenant or scope.tenant_id == tenant_id):
        raise NotFound("There is no such API key.")
    kind, row = ("api_key", api_key) if api_key is not None else ("user", user)
    for action in ("audit.read", "server.read"):
        authorise.require(action, tenant_id=tenant_id, kind=kind, object_id=row.pk, label=str(row))
    if api_key is not None and api_key.state != "active":
        raise NotFound(f"The key {api_key} is {api_key.state}: whoever shows it is refused and sees nothing.")
    look = viewer or _viewer
    if look is None:
        raise NotReady("No data plane runs in this process; start it with `manage.py serve`.")
    sight = look(f"{kind}:{row.pk}", tenant_id, toolset, waiting)
    rules = {one.rule for one in sight.listed} | {one.rule for one in sight.refused}
    named = [rule for rule in rules if rule.startswith("grant:")]
    sight.rules = grants_in_words([rule.partition(":")[2] for rule in named])
    return sight
