"""Toolsets: virtual servers at `/mcp/<slug>`, made of chosen parts of one or more servers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from apps.common import authorise
from apps.common.clock import now
from apps.common.context import current_tenant_id, tenant_scope
from apps.common.errors import Conflict, NotFound, ValidationFailed
from apps.common.events import ControlEvent
from apps.common.outbox import audit, changed, unit_of_work
from apps.servers.rules import check_slug
from apps.tools.domain import Composition, NameCollision
from apps.tools.models import Toolset, ToolsetEntry
from apps.tools.selectors.contents import contents, contents_of
from apps.tools.services.entries import read_entries
from apps.tools.services.grants import revoke_grants_on_toolset

FIELDS = ("slug", "name", "description", "instructions")
Entries = Sequence[Mapping[str, Any]]
"""Each: server (row, id or slug), kind (default `tool`), pattern (default `*`), rename, description."""


def create_toolset(
    *, slug: str, name: str = "", description: str = "", instructions: str = "", entries: Entries = ()
) -> Toolset:
    """Create a composed toolset in the tenant in force.

    Raises PermissionDenied, ValidationFailed (all messages by field; `entries` as `entries.<number>.<field>`), Conflict for a taken
    slug, and NameCollision when two of its things would have one name.
    """
    tenant_id = current_tenant_id()
    with unit_of_work():
        authorise.require("toolset.write", tenant_id=tenant_id, kind="toolset", label=slug)
        toolset = Toolset(tenant_id=tenant_id, slug=slug, name=name or slug, description=description, instructions=instructions)
        _validate(toolset)
        rows = read_entries(toolset, entries)
        _require_names(rows)
        _insert(toolset)
        ToolsetEntry.objects.bulk_create(rows)
        _record(toolset, "created", {"after": _state(toolset), "entries": _describe(rows)})
        changed("toolset", toolset.pk, tenant_id=tenant_id)
    return toolset


def update_toolset(toolset: Toolset, *, entries: Entries | None = None, **fields: Any) -> Toolset:
    """Change a toolset: slug, name, description, instructions, and, where given, the whole list of entries.

    The toolset that came with a server keeps its slug and has no entries. Nothing is written where nothing changes. Raises NotFound,
    and what `create_toolset` raises.
    """
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ValidationFailed("There is no such field.", errors={field: ["There is no such field."] for field in unknown})
    with unit_of_work():
        row = _lock(toolset, "toolset.write")
        before = _state(row)
        for field, value in fields.items():
            setattr(row, field, value)
        row.name = row.name or row.slug
        after = _state(row)
        touched = [field for field in FIELDS if after[field] != before[field]]
        if row.server_id and ("slug" in touched or entries):
            raise Conflict(f"{before['slug']} came with the server of that name: it has that slug and all of that server.")
        if touched:
            _validate(row)
            _save_fields(row, touched)
        details: dict[str, Any] = {
            "before": {field: before[field] for field in touched},
            "after": {field: after[field] for field in touched},
        }
        if entries is not None and not row.server_id:
            details |= _replace(row, entries)
        if touched or "entries" in details:
            _record(row, "updated", details)
            changed("toolset", row.pk, tenant_id=row.tenant_id)
    return row


def replace_entries(toolset: Toolset, entries: Entries) -> Toolset:
    """Replace the whole list of entries of a composed toolset. Raises what `update_toolset` raises."""
    return update_toolset(toolset, entries=entries)


def pause_toolset(toolset: Toolset) -> Toolset:
    """Stop every use of a toolset until it is resumed. Raises NotFound, PermissionDenied."""
    return _set_paused(toolset, paused=True)


def resume_toolset(toolset: Toolset) -> Toolset:
    """Allow the use of a paused toolset again. Raises NotFound, PermissionDenied."""
    return _set_paused(toolset, paused=False)


def delete_toolset(toolset: Toolset) -> None:
    """Delete a composed toolset with its entries and the grants on it. Raises NotFound, PermissionDenied, Conflict for a server's own."""
    with unit_of_work():
        row = _lock(toolset, "toolset.delete")
        if row.server_id:
            raise Conflict(f"{row.slug} came with the server of that name and goes with it.")
        revoke_grants_on_toolset(row)
        _record(row, "deleted", {"before": _state(row), "entries": _describe(row.entries.all())}, action="toolset.delete")
        row.delete()


def preview(toolset: Toolset | None = None, *, entries: Entries | None = None) -> Composition:
    """Return the exact content that a client with every right gets, with its size: of a toolset as it is, or as it would be with
    these entries. What cannot be named stands in `problems`. Raises NotFound, PermissionDenied, ValidationFailed.
    """
    tenant_id = toolset.tenant_id if toolset is not None else current_tenant_id()
    with tenant_scope(tenant_id):
        authorise.require("toolset.read", tenant_id=tenant_id, kind="toolset", label=toolset.slug if toolset else "")
        if toolset is not None and (toolset.server_id or entries is None):
            return contents(toolset)
        return contents_of(read_entries(toolset or Toolset(tenant_id=tenant_id), entries or ()))


def add_own_toolset(server: Any) -> Toolset:
    """Create the toolset that comes with a server, inside the transaction that registers it.

    Raises Conflict when a toolset of the tenant has the slug. Whoever may register the server needs no other right.
    """
    taken = Toolset.unscoped.filter(tenant_id=server.tenant_id, slug=server.slug).first()
    if taken is not None:
        raise Conflict(_taken(taken), errors={"slug": [_taken(taken)]})
    toolset = Toolset(tenant_id=server.tenant_id, slug=server.slug, name=server.name, server_id=server.pk)
    with unit_of_work():
        _insert(toolset)
        _record(toolset, "created", {"after": _state(toolset), "came_with": server.slug})
        changed("toolset", toolset.pk, tenant_id=toolset.tenant_id)
    return toolset


def follow_server_name(server: Any) -> None:
    """Give the toolset that came with a server the server's new name."""
    toolset = Toolset.unscoped.filter(server_id=server.pk).first()
    if toolset is None or toolset.name == server.name:
        return
    with unit_of_work():
        toolset.name = server.name
        toolset.save(update_fields=["name", "updated_at"])
        changed("toolset", toolset.pk, tenant_id=toolset.tenant_id)


def _validate(toolset: Toolset) -> None:
    errors: dict[str, list[str]] = {}
    try:
        toolset.full_clean(exclude={"tenant", "server"}, validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        errors = error.message_dict
    if not toolset.server_id:
        try:
            check_slug(toolset.slug)
        except ValueError as error:
            errors.setdefault("slug", []).append(str(error))
    if errors:
        words = " ".join(message for messages in errors.values() for message in messages)
        raise ValidationFailed(f"The toolset is not valid: {words}", errors=errors)
    taken = Toolset.unscoped.filter(tenant_id=toolset.tenant_id, slug=toolset.slug).exclude(pk=toolset.pk).first()
    if taken is not None:
        raise Conflict(_taken(taken), errors={"slug": [_taken(taken)]})


def _taken(toolset: Toolset) -> str:
    owner = "the server" if toolset.server_id else "the toolset"
    return f"The slug {toolset.slug} is taken by {owner} {toolset.name}: servers and toolsets share one set of slugs."


def _insert(toolset: Toolset) -> None:
    try:
        with transaction.atomic():
            toolset.save(force_insert=True)
    except IntegrityError:
        raise Conflict(f"The slug {toolset.slug} is taken.", errors={"slug": ["This slug is taken."]}) from None


def _save_fields(row: Toolset, touched: list[str]) -> None:
    try:
        with transaction.atomic():
            row.save(update_fields=[*touched, "updated_at"])
    except IntegrityError:
        raise Conflict(f"The slug {row.slug} is taken.", errors={"slug": ["This slug is taken."]}) from None


def _require_names(rows: Iterable[ToolsetEntry]) -> None:
    """Refuse entries under which something could not be named now; what a server adds later is left out instead."""
    problems = contents_of(rows).problems
    if not problems:
        return
    details = [problem.detail for problem in problems[:10]]
    kind = NameCollision if any(problem.code == "name-collision" for problem in problems) else ValidationFailed
    raise kind(" ".join(details[:3]), errors={"entries": details})


def _replace(toolset: Toolset, entries: Entries) -> dict[str, Any]:
    old = list(toolset.entries.select_related("server"))
    rows = read_entries(toolset, entries)
    before, after = _describe(old), _describe(rows)
    if before == after:
        return {}
    _require_names(rows)
    ToolsetEntry.objects.filter(toolset=toolset).delete()
    ToolsetEntry.objects.bulk_create(rows)
    return {"entries": {"before": before, "after": after}}


def _set_paused(toolset: Toolset, *, paused: bool) -> Toolset:
    with unit_of_work():
        row = _lock(toolset, "toolset.write")
        if (row.paused_at is not None) is paused:
            return row
        row.paused_at = now() if paused else None
        row.save(update_fields=["paused_at", "updated_at"])
        _record(row, "paused" if paused else "resumed", {})
        changed("toolset", row.pk, tenant_id=row.tenant_id)
    return row


def _lock(toolset: Toolset, action: str) -> Toolset:
    row = Toolset.objects.select_for_update().filter(pk=toolset.pk).first()
    if row is None:
        raise NotFound("There is no such toolset.")
    authorise.require(action, tenant_id=row.tenant_id, kind="toolset", object_id=row.pk, label=row.slug)
    return cast("Toolset", row)


def _state(toolset: Toolset) -> dict[str, Any]:
    return {field: getattr(toolset, field) for field in FIELDS}


def _describe(rows: Iterable[ToolsetEntry]) -> list[dict[str, str]]:
    fields = ("kind", "pattern", "rename", "description")
    return [{"server": str(row.server_id)} | {field: getattr(row, field) for field in fields} for row in rows]


def _record(toolset: Toolset, verb: str, details: dict[str, Any], *, action: str = "toolset.write") -> None:
    audit(
        ControlEvent(
            event_type=f"toolset.{verb}",
            action=action,
            object_kind="toolset",
            object_id=str(toolset.pk),
            object_label=toolset.slug,
            tenant_id=str(toolset.tenant_id),
            details=details,
        )
    )
