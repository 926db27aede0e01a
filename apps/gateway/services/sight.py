"""What a client sees at one place of the gateway now: the lists that it would get, and what is missing from them and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.common import authorise
from apps.common.context import current_scope
from apps.common.errors import NotFound, NotReady
from apps.tools.selectors import Waiting, waiting

PAUSED, HELD, TOOLSET_PAUSED, NAME = "paused", "held", "toolset-paused", "name"
"""Why something is missing."""
MISSING_SHOWN = 500


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


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that the client would get if it were not for `why`."""

    kind: str
    name: str
    server: str
    why: str
    """`paused`, `held`, `toolset-paused` or `name` (it cannot be named here)."""


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
    """Kind → how many are there that no grant gives this caller."""


Waiter = Callable[[list[str]], Mapping[str, list[Waiting]]]
Viewer = Callable[[str, str, str, Waiter], Sight]
"""(API key, its tenant, slug of a toolset or nothing, what is held of servers) → what it sees there."""
_viewer: Viewer | None = None


def register_viewer(viewer: Viewer | None) -> None:
    """Tell how the picture of the data plane of this process is looked at; the gateway's runtime does when it starts."""
    global _viewer
    _viewer = viewer


def seen_now(*, api_key: Any, toolset: str = "") -> Sight:
    """Return what a key (row) sees at `/mcp/<toolset>` now, by the code that answers its lists.

    Raises PermissionDenied without `audit.read` and `server.read`; NotFound for a toolset that is not there, and for a key that is
    revoked or expired; NotReady in a process without a data plane.
    """
    tenant_id, scope = str(api_key.tenant_id), current_scope()
    if scope is None or not (scope.every_tenant or scope.tenant_id == tenant_id):
        raise NotFound("There is no such API key.")
    for action in ("audit.read", "server.read"):
        authorise.require(action, tenant_id=tenant_id, kind="api_key", object_id=api_key.pk, label=str(api_key))
    if api_key.state != "active":
        raise NotFound(f"The key {api_key} is {api_key.state}: whoever shows it is refused and sees nothing.")
    if _viewer is None:
        raise NotReady("No data plane runs in this process; start it with `manage.py serve`.")
    return _viewer(str(api_key.pk), tenant_id, toolset, waiting)
