"""Lists of the catalogue, toolsets and grants for people: filtered, scoped to what is in view."""

from collections.abc import Iterable
from typing import Any, cast
from uuid import UUID

from django.db.models import Count, QuerySet

from apps.common.errors import NotFound
from apps.tools.domain import split_name
from apps.tools.models import CATALOGUE, REVIEWED, Definition, Discovery, Grant, Tool, Toolset
from apps.tools.querysets import DefinitionQuerySet, ToolQuerySet

MODELS: dict[str, type[Definition]] = {model.kind: model for model in REVIEWED}
"""Kind (`tool`, `resource`, `template`, `prompt`, `instructions`) to model."""


def catalogue(
    kind: str = "tool",
    *,
    server: Any = None,
    state: str | None = None,
    effects: str | None = None,
    text: str | None = None,
) -> DefinitionQuerySet:
    """Return the definitions of a kind in view that match every filter given, with their servers.

    `server`: row, id or slug; `state`: active, held, rejected, removed; `effects`: those in force, tools only (nothing else has
    any); `text`: in name, title, description or server. Raises NotFound for an unknown kind.
    """
    model = MODELS.get(kind)
    if model is None:
        raise NotFound(f"There is no kind {kind[:40]} in the catalogue.")
    rows = model.objects.select_related("server")
    if server is not None:
        rows = rows.of_server(server)
    if state:
        rows = rows.filter(state=state)
    if effects:
        rows = cast("ToolQuerySet", rows).in_force(effects) if model is Tool else rows.none()
    if text:
        rows = rows.matching(text)
    return rows


def get_definition(ref: object, kind: str = "tool") -> Definition:
    """Return one definition in view by id or by full name (`server__name`). Raises NotFound."""
    rows = catalogue(kind)
    try:
        found = rows.filter(pk=UUID(str(ref))).first()
    except ValueError:
        slug, name = split_name(str(ref))
        found = rows.filter(server__slug=slug, name=name).order_by("created_at").first()
    if found is None:
        raise NotFound(f"There is no {kind} {str(ref)[:80]}.")
    return cast("Definition", found)


def held_counts(server: Any = None) -> dict[str, int]:
    """Return how many definitions in view wait for review, by kind; every kind is named, also with 0."""
    counts = {}
    for kind in MODELS:
        rows = catalogue(kind, server=server, state="held")
        counts[kind] = rows.count()
    return counts


def definition_counts(server_ids: list[object] | None = None) -> dict[str, dict[str, int]]:
    """Return server id → kind → how many definitions are in force, for servers that have any."""
    counts: dict[str, dict[str, int]] = {}
    for model in CATALOGUE:
        rows = model.objects.filter(state="active").order_by()
        if server_ids is not None:
            rows = rows.filter(server_id__in=server_ids)
        for server_id, count in rows.values_list("server_id").annotate(n=Count("pk")):
            counts.setdefault(str(server_id), {})[model.kind] = count
    return counts


def last_discovery(server: Any) -> Discovery | None:
    """Return what the last discovery of a server (row or id) came to, and whether one runs now; None before the first."""
    found = Discovery.objects.filter(server_id=getattr(server, "pk", server)).first()
    return cast("Discovery | None", found)


def toolsets(*, composed: bool | None = None, text: str | None = None) -> QuerySet[Toolset]:
    """Return the toolsets in view with their servers; `composed` True leaves out those that came with a server."""
    rows = Toolset.objects.select_related("server").prefetch_related("entries__server")
    if composed is not None:
        rows = rows.filter(server__isnull=composed)
    if text:
        rows = rows.filter(slug__icontains=text) | rows.filter(name__icontains=text)
    return cast("QuerySet[Toolset]", rows)


def get_toolset(ref: object) -> Toolset:
    """Return one toolset in view by id or slug. Raises NotFound."""
    rows = toolsets()
    try:
        found = rows.filter(pk=UUID(str(ref))).first()
    except ValueError:
        found = rows.filter(slug=str(ref)).order_by("created_at").first()
    if found is None:
        raise NotFound(f"There is no toolset {str(ref)[:80]}.")
    return found


def grants(
    *, user: Any = None, role: Any = None, api_key: Any = None, server: Any = None, toolset: Any = None
) -> QuerySet[Grant]:
    """Return the grants in view to a subject, or on an object; rows or ids."""
    rows = Grant.objects.select_related("user", "role", "api_key__owner", "server", "toolset")
    given = {"user": user, "role": role, "api_key": api_key, "server": server, "toolset": toolset}
    for name, value in given.items():
        if value is not None:
            rows = rows.filter(**{f"{name}_id": getattr(value, "pk", value)})
    return cast("QuerySet[Grant]", rows)


def grants_in_words(ids: Iterable[str]) -> dict[str, str]:
    """Return `grant:<id>` → what the grant says, of those in view."""
    rows = Grant.objects.select_related("user", "role", "api_key__owner", "server", "toolset").filter(pk__in=list(ids))
    return {f"grant:{row.pk}": str(row) for row in rows}
