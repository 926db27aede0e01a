"""Discovery: ask a server what it is and what it offers, and bring the catalogue up to date."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from apps.common import authorise
from apps.common.clock import monotonic
from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.errors import Conflict, Paused, SwitchyardError, UpstreamUnauthenticated
from apps.common.events import ControlEvent
from apps.common.outbox import audit, changed, unit_of_work
from apps.servers.domain import Discovered
from apps.servers.selectors import get_server
from apps.servers.services.discovery_facts import store_discovery
from apps.servers.services.endpoints import remember_era, set_endpoint_state
from apps.tools.models import Discovery, Instructions, Prompt, Resource, ResourceTemplate, Tool
from apps.tools.services import claim
from apps.tools.services.asking import Asked, ask
from apps.tools.services.reconcile import Changes, reconcile
from apps.tools.tasks import discover_later

TOTAL_SECONDS = 120.0
"""For one discovery: connecting, starting a process, and all pages of all lists."""
SETTLE_SECONDS = 60.0
"""What is left to write down the result, on top of the time that asking may take."""
_ENDED = {"error": "The process that discovered it ended before it was done.", "error_type": SwitchyardError.slug}
NAMES_LOGGED = 50
HELD_EVENTS = 100
"""Held definitions with an event of their own; of more, 500 share one."""


@dataclass(slots=True)
class DiscoverySummary:
    """What came of a discovery: counts over tools, resources, templates, prompts and instructions."""

    added: int = 0
    changed: int = 0
    held: int = 0
    """Newly held for review."""
    removed: int = 0
    error: str = ""
    """Why the server could not be asked; then nothing in the catalogue was touched."""
    error_type: str = ""
    """The problem type of that error, its last part: `upstream-timeout`."""
    unchanged: int = 0
    waiting: int = 0
    """Held or rejected before, and still so."""
    refused: int = 0
    """Definitions that cannot be served (see `Discovery.refused`)."""
    era: str = ""
    duration_ms: float = 0.0
    names: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """Kind, then `added`, `changed`, `held`, `removed`, to the first 50 names."""

    @property
    def ok(self) -> bool:
        """Tell whether the server answered."""
        return not self.error


def discover_server(server: Any, *, limit: float = TOTAL_SECONDS) -> DiscoverySummary:
    """Discover a server now and wait for the result, at most `limit` seconds (and a little for writing it down).

    `server` is its row, its id or its slug in the tenant in force.

    A server that cannot be asked gives a summary with `error` and leaves the catalogue as it was. Raises NotFound,
    PermissionDenied, Paused, and Conflict when a discovery of this server runs already (it is then repeated).
    """
    row = get_server(getattr(server, "pk", server))
    with tenant_scope(row.tenant_id):
        authorise.require("server.write", tenant_id=row.tenant_id, kind="server", object_id=row.pk, label=row.slug)
        if row.paused_at is not None:
            raise Paused(f"{row.slug} is paused; resume it to discover it.")
        token = _claim(row)
        started = monotonic()
        with claim.kept(row, token, seconds=limit + SETTLE_SECONDS):
            try:
                asked = ask(row, limit=limit)
                summary = _settle(row, token, asked, round((monotonic() - started) * 1000, 1))
            except BaseException as error:
                _give_up(row.pk, token, _words(error))
                raise
    return summary


def end_discoveries() -> int:
    """Let go of every discovery that runs in this process, which is about to end; returns how many there were.

    What they find out after this is not written. One that somebody asked to be repeated is enqueued; a task that runs one is
    delivered again by the queue.
    """
    count = 0
    with every_tenant(SYSTEM):
        for server_id, token in claim.held():
            count += _give_up(server_id, token, _ENDED) is not None
    return count


def take_up_discoveries() -> int:
    """Enqueue again what processes were discovering that are gone; returns how many servers."""
    count = 0
    with every_tenant(SYSTEM):
        for row in Discovery.objects.exclude(token="").order_by("pk"):
            if claim.abandoned(row) and _give_up(row.server_id, row.token, _ENDED, repeat=True) is not None:
                count += 1
    return count


def _claim(row: Any) -> str:
    with unit_of_work():
        token = claim.claim(row)
    if not token:
        raise Conflict(f"{row.slug} is being discovered already; it will be done once more after that.")
    return token


def _settle(row: Any, token: str, asked: Asked, duration_ms: float) -> DiscoverySummary:
    """Write down what came of it, in one unit of work, if the claim still stands and the server is still the one that was asked."""
    with unit_of_work():
        row = get_server(row.pk)
        if not claim.still_mine(row.pk, token):
            raise Conflict(f"The discovery of {row.slug} took too long or was ended, and another one has begun or will.")
        if row.version != asked.version:
            raise Conflict(f"The connection of {row.slug} changed while it was asked; it will be asked again.")
        for endpoint_id, error in asked.failures:
            state = "unauthenticated" if isinstance(error, UpstreamUnauthenticated) else "unhealthy"
            set_endpoint_state(endpoint_id, state, error.detail)
        if asked.discovered is None:
            summary = _failed(row, asked, duration_ms)
            refused: list[dict[str, str]] = []
        else:
            set_endpoint_state(asked.endpoint_id, "healthy", "It answered discovery.")
            remember_era(asked.endpoint_id, asked.discovered.era, asked.discovered.revisions)
            summary, refused = apply_found(row, asked.discovered, duration_ms=duration_ms)
        if claim.release(row.pk, token, summary=asdict(summary), refused=refused):
            discover_later(row.pk)
    return summary


def _give_up(server_id: Any, token: str, summary: dict[str, str], *, repeat: bool = False) -> bool | None:
    """Let go of a claim without a result, so that the next discovery need not wait for the lease; None: it was not held."""
    with unit_of_work():
        again = claim.release(server_id, token, summary=summary)
        if again or (repeat and again is not None):
            discover_later(server_id)
    return again


def _words(error: BaseException) -> dict[str, str]:
    if isinstance(error, SwitchyardError):
        return {"error": error.detail, "error_type": error.slug}
    return {"error": type(error).__name__, "error_type": SwitchyardError.slug}


def _failed(row: Any, asked: Asked, duration_ms: float) -> DiscoverySummary:
    error: SwitchyardError = asked.failures[-1][1] if asked.failures else SwitchyardError("The server has no endpoint.")
    store_discovery(row, error=error.detail)
    _event(row, "server.discovered", outcome="failed", error=error.slug, reason=error.detail, duration_ms=duration_ms)
    return DiscoverySummary(error=error.detail, error_type=error.slug, duration_ms=duration_ms)


def apply_found(row: Any, found: Discovered, *, duration_ms: float = 0.0) -> tuple[DiscoverySummary, list[dict[str, str]]]:
    """Bring the catalogue up to date with what a server said; returns the summary and what was refused, the first 200.

    Needs a unit of work and the tenant's scope; whether somebody may is the caller's to ask.
    """
    summary = DiscoverySummary(era=found.era, duration_ms=duration_ms)
    refused: list[dict[str, str]] = []
    said = [{"name": "instructions", "instructions": found.instructions}] if found.instructions else []
    dirty = False
    offers: tuple[tuple[Any, list[Any]], ...] = (
        (Tool, found.tools),
        (Resource, found.resources),
        (ResourceTemplate, found.templates),
        (Prompt, found.prompts),
        (Instructions, said),
    )
    for model, offered in offers:
        changes = reconcile(model, row, offered, review=row.review)
        _add(summary, model.kind, changes)
        refused += [{"kind": model.kind, "name": name, "reason": reason} for name, reason in changes.refused]
        _held_events(row, model.kind, changes.held)
        dirty = dirty or (changes.any and model is not Instructions)
    spoken = Instructions.objects.filter(server_id=row.pk).first()
    store_discovery(row, discovered=found, instructions=spoken.text if spoken else "")
    if dirty:
        changed("server", row.pk, tenant_id=row.tenant_id)
    counts = {
        name: getattr(summary, name) for name in ("added", "changed", "held", "removed", "unchanged", "waiting", "refused")
    }
    _event(
        row,
        "server.discovered",
        era=found.era,
        duration_ms=duration_ms,
        **counts,
        names=summary.names,
        refusals=refused[:NAMES_LOGGED],
    )
    return summary, refused[:200]


def _add(summary: DiscoverySummary, kind: str, changes: Changes) -> None:
    lists = {"added": changes.added, "changed": changes.changed, "held": changes.held, "removed": changes.removed}
    for name, found in lists.items():
        setattr(summary, name, getattr(summary, name) + len(found))
    summary.unchanged += changes.unchanged
    summary.waiting += changes.waiting
    summary.refused += len(changes.refused)
    lists["unruled"] = changes.unruled
    if shown := {name: found[:NAMES_LOGGED] for name, found in lists.items() if found}:
        summary.names[kind] = shown


def _held_events(row: Any, kind: str, names: list[str]) -> None:
    for name in names[:HELD_EVENTS]:
        _event(row, f"{kind}.held", kind=kind, label=name, tool=name if kind == "tool" else "")
    for batch in _batches(names[HELD_EVENTS:], 500):
        _event(row, f"{kind}.held", kind=kind, label=f"{len(batch)} definitions", names=batch)


def _batches(names: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]


def _event(
    row: Any, event_type: str, *, kind: str = "server", label: str = "", tool: str = "", outcome: str = "ok", **details: Any
) -> None:
    audit(
        ControlEvent(
            event_type=event_type,
            action="server.write",
            object_kind=kind,
            object_id=str(row.pk) if kind == "server" else "",
            object_label=label or row.slug,
            outcome=outcome,
            tenant_id=str(row.tenant_id),
            server=row.slug,
            tool=tool,
            details=details,
        )
    )
