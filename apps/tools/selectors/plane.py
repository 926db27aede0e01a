"""What the data plane's snapshot is built from. The caller opens the scope (`every_tenant()`).

Each takes the ids of what has changed, or None for all. An id that is not in the answer is gone: its holder drops it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from apps.common.policy import Grant as GrantFacts
from apps.tools.domain import DefinitionFacts, EntryFacts, ToolsetFacts, in_force_order
from apps.tools.models import CATALOGUE, Grant, Resource, ResourceTemplate, Tool, Toolset, ToolsetEntry

_CHUNK = 5000
"""Ids per query: below the 32,766 variables of a SQLite statement."""


def plane_definitions(server_ids: Iterable[object] | None = None) -> list[DefinitionFacts]:
    """Return the definitions in force of these servers: four queries, one for each kind."""
    wanted = None if server_ids is None else list(server_ids)
    facts: list[DefinitionFacts] = []
    for model in CATALOGUE:
        rows = model.objects.filter(state="active").order_by("server_id", "position")
        fields = ["server_id", "name", "definition", "digest", "position"]
        if model is Tool:
            fields += ["effects", "claimed", "server__trust_annotations"]
        for server_id, name, definition, digest, position, *said in values(rows, "server_id", wanted, fields):
            facts.append(
                DefinitionFacts(model.kind, str(server_id), name, definition, digest, _effects(*said) if said else "", position)
            )
    return facts


def plane_withheld(server_ids: Iterable[object] | None = None) -> dict[str, list[tuple[str, str]]]:
    """Return kind and URI of the resources and templates that are held or rejected, by server: two queries.

    Names need no such list, because a tool or prompt that is not in force cannot be called; a URI can be read unlisted. So what
    was held or rejected stays withheld when its server takes it off its list.
    """
    wanted = None if server_ids is None else list(server_ids)
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for model in (Resource, ResourceTemplate):
        refused = ~Q(pending_digest="") | ~Q(rejected_digest="")
        rows = model.objects.filter(Q(state__in=("held", "rejected")) | Q(state="removed") & refused).order_by(
            "server_id", "position"
        )
        for server_id, name in values(rows, "server_id", wanted, ("server_id", "name")):
            found[str(server_id)].append((model.kind, name))
    return found


def _effects(ruled: str, claimed: str, trusted: bool) -> str:
    """The short form of `domain.effective_effects`."""
    return ruled if ruled != "unknown" else claimed if trusted else "unknown"


def plane_toolsets(ids: Iterable[object] | None = None) -> list[ToolsetFacts]:
    """Return toolsets with their entries: two queries. Entries that name one thing come first (see `domain.compose`)."""
    wanted = None if ids is None else list(ids)
    entries: dict[UUID, list[EntryFacts]] = defaultdict(list)
    entry_fields = ("toolset_id", "server_id", "kind", "pattern", "rename", "description")
    for toolset_id, server_id, *rest in values(
        ToolsetEntry.objects.order_by("toolset_id", "position", "id"), "toolset_id", wanted, entry_fields
    ):
        entries[toolset_id].append(EntryFacts(str(server_id), *rest))
    fields = ("id", "tenant_id", "slug", "name", "description", "instructions", "server_id", "paused_at")
    return [
        ToolsetFacts(
            id=str(id),
            tenant_id=str(tenant_id),
            slug=slug,
            name=name,
            description=description,
            instructions=instructions,
            server_id=None if server_id is None else str(server_id),
            paused=paused_at is not None,
            entries=in_force_order(entries.get(id, ())),
        )
        for id, tenant_id, slug, name, description, instructions, server_id, paused_at in values(
            Toolset.objects.order_by(), "id", wanted, fields
        )
    ]


def plane_grants(subjects: Iterable[str] | None = None) -> list[tuple[str, str, GrantFacts]]:
    """Return (subject, tenant id, grant) of these subjects, `user:<id>`, `role:<id>` or `api_key:<id>`, or of all."""
    fields = ("id", "tenant_id", "kind", "effect", "user_id", "role_id", "api_key_id", "server_id", "toolset_id", "pattern")
    rows = Grant.objects.order_by("created_at", "id")
    found: list[tuple[Any, ...]] = []
    if subjects is None:
        found.extend(values(rows, "id", None, fields))
    else:
        wanted: dict[str, list[str]] = defaultdict(list)
        for subject in subjects:
            kind, _, id = subject.partition(":")
            wanted[kind].append(id)
        for kind in ("user", "role", "api_key"):
            if wanted[kind]:
                found.extend(values(rows, f"{kind}_id", list(wanted[kind]), fields))
    return [
        (
            subject_of(user_id, role_id, api_key_id),
            str(tenant_id),
            GrantFacts(
                id=str(id),
                kind=kind,
                effect=effect,
                server_id=None if server_id is None else str(server_id),
                toolset_id=None if toolset_id is None else str(toolset_id),
                pattern=pattern,
                tenant_id=str(tenant_id),
            ),
        )
        for id, tenant_id, kind, effect, user_id, role_id, api_key_id, server_id, toolset_id, pattern in found
    ]


def subject_of(user_id: object, role_id: object, api_key_id: object) -> str:
    """Return how the data plane names the one of the three that is set."""
    if user_id:
        return f"user:{user_id}"
    return f"role:{role_id}" if role_id else f"api_key:{api_key_id}"


def values(rows: QuerySet[Any], column: str, ids: list[Any] | None, fields: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    """Give columns of the rows whose `column` is among `ids`, or of all, without holding them all twice."""
    if ids is None:
        yield from rows.values_list(*fields).iterator(chunk_size=_CHUNK)
        return
    for start in range(0, len(ids), _CHUNK):
        yield from rows.filter(**{f"{column}__in": ids[start : start + _CHUNK]}).values_list(*fields)
