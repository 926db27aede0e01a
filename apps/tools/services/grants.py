"""Grants: who may use what. The decision itself stands in `common.policy`."""

import re
from typing import Any, cast

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q

from apps.accounts.selectors import is_member
from apps.common import authorise
from apps.common.context import current_tenant_id
from apps.common.errors import NotFound, ValidationFailed
from apps.common.events import ControlEvent
from apps.common.outbox import audit, changed, unit_of_work
from apps.tools.domain import SEPARATOR
from apps.tools.models import Grant

_PATTERN = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]+")
_SLUG_PART = re.compile(r"[a-z0-9*-]+")


def grant(
    *,
    kind: str,
    effect: str = "allow",
    user: Any = None,
    role: Any = None,
    api_key: Any = None,
    server: Any = None,
    toolset: Any = None,
    pattern: str = "",
) -> Grant:
    """Give one user, role or API key the use of a server, a toolset, or tools by pattern; with `deny`, take it away.

    Rows or ids. The same grant again gives the same row and makes no event. Raises PermissionDenied without `grant.write` (to a
    key, which acts where nobody looks, also without `<kind>.write` on what is granted) and ValidationFailed, also for what
    belongs to another tenant.
    """
    tenant_id = current_tenant_id()
    given = {"user": user, "role": role, "api_key": api_key, "server": server, "toolset": toolset}
    ids = {f"{name}_id": getattr(value, "pk", value) for name, value in given.items() if value not in (None, "")}
    with unit_of_work():
        authorise.require("grant.write", tenant_id=tenant_id, kind="grant", label=f"{kind} {pattern}".strip())
        row = Grant(tenant_id=tenant_id, effect=effect, kind=kind, pattern=pattern, **ids)
        _validate(row)
        if row.api_key_id and row.effect == Grant.Effect.ALLOW:
            authorise.require(f"{row.kind}.write", tenant_id=tenant_id, kind="grant", label=_label(row))
        row, new = _insert(row)
        if new:
            _record(row, "created")
            changed("grants", row.subject, tenant_id=tenant_id)
    return row


def revoke_grant(grant: Grant) -> None:
    """Take a grant back; one that is gone already is no error. Raises NotFound for another tenant's, PermissionDenied."""
    with unit_of_work():
        row = Grant.objects.select_for_update(of=("self",)).filter(pk=grant.pk).first()
        if row is None:
            if Grant.unscoped.filter(pk=grant.pk).exists():
                raise NotFound("There is no such grant.")
            return
        authorise.require("grant.write", tenant_id=row.tenant_id, kind="grant", object_id=row.pk, label=_label(row))
        _record(row, "revoked")
        row.delete()  # the notice to the data planes follows the row, see `dependents`


def revoke_grants_on_server(server: Any) -> None:
    """Take back every grant that goes with a server: on it, on its own toolset, and by patterns that speak of it by its slug, so
    that a later server of that slug inherits none.
    """
    named = Q(kind=Grant.Kind.TOOL, pattern__startswith=f"{server.slug}{SEPARATOR}")
    _revoke_with(
        named | Q(server=server) | Q(toolset__server=server), server.tenant_id, f"the server {server.slug} was deleted"
    )


def revoke_grants_on_toolset(toolset: Any) -> None:
    """Take back the grants on a toolset that is about to be deleted."""
    _revoke_with(Q(toolset=toolset), toolset.tenant_id, f"the toolset {toolset.slug} was deleted")


def _revoke_with(which: Q, tenant_id: Any, reason: str) -> None:
    with unit_of_work():
        rows = Grant.unscoped.filter(which, tenant_id=tenant_id)
        for row in rows.select_related("user", "role", "api_key__owner", "server", "toolset").order_by("created_at", "id"):
            _record(row, "revoked", reason=reason)
            row.delete()


def pattern_problem(pattern: str) -> str:
    """Say what is wrong with a pattern of full names (`server__tool`, `*` for any characters); empty = nothing."""
    if not pattern:
        return "Give a pattern of full names, such as github__* or *__search."
    if len(pattern) > 128:
        return "At most 128 characters."
    if not _PATTERN.fullmatch(pattern):
        return "It contains spaces or control characters."
    slug, border, name = pattern.partition(SEPARATOR)
    if not border and "*" not in pattern:
        return "A full name is server__tool; without * this matches nothing."
    if border and (not name or not _SLUG_PART.fullmatch(slug)):
        return "Before __ stands a server's slug (lower-case letters, digits, hyphens, *), after it a tool's name."
    return ""


def _validate(row: Grant) -> None:
    errors: dict[str, list[str]] = {}
    try:
        row.full_clean(exclude={"tenant"}, validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        errors = error.message_dict
    if sum(bool(id) for id in (row.user_id, row.role_id, row.api_key_id)) != 1:
        errors.setdefault("user", []).append("Give exactly one of user, role and API key.")
    _validate_object(row, errors)
    if not errors:
        _validate_tenant(row, errors)
    if errors:
        words = " ".join(message for messages in errors.values() for message in messages)
        raise ValidationFailed(f"The grant is not valid: {words}", errors=errors)


def _validate_object(row: Grant, errors: dict[str, list[str]]) -> None:
    wanted = {"server": "server_id", "toolset": "toolset_id", "tool": "pattern"}
    if row.kind not in wanted:
        return  # said by full_clean
    for kind, field in wanted.items():
        name = field.removesuffix("_id")
        if kind == row.kind and not getattr(row, field) and name not in errors:
            message = pattern_problem("") if kind == "tool" else f"A grant of the kind {kind} needs a {name}."
            errors.setdefault(name, []).append(message)
        elif kind != row.kind and getattr(row, field):
            errors.setdefault(name, []).append(f"A grant of the kind {row.kind} has no {name}.")
    if row.kind == "tool" and row.pattern and (problem := pattern_problem(row.pattern)):
        errors.setdefault("pattern", []).append(problem)


def _validate_tenant(row: Grant, errors: dict[str, list[str]]) -> None:
    tenant_id = str(row.tenant_id)
    for name in ("role", "api_key", "server", "toolset"):
        target = getattr(row, name)
        if target is not None and str(target.tenant_id) != tenant_id:
            errors[name] = ["There is no such object in this tenant."]
    if row.api_key is not None and row.api_key.revoked_at is not None:
        errors["api_key"] = ["This key has been revoked."]
    if row.user is not None and not row.user.is_superuser and not is_member(row.user.pk, tenant_id):
        errors["user"] = ["This user has no role in this tenant."]


def _insert(row: Grant) -> tuple[Grant, bool]:
    if (known := _known(row)) is not None:
        return known, False
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        known = _known(row)
        if known is None:
            raise
        return known, False
    return row, True


def _known(row: Grant) -> Grant | None:
    fields = ("tenant_id", "effect", "kind", "user_id", "role_id", "api_key_id", "server_id", "toolset_id", "pattern")
    found = Grant.objects.filter(**{field: getattr(row, field) for field in fields if getattr(row, field) is not None}).first()
    return cast("Grant | None", found)


def _label(row: Grant) -> str:
    return str(row)[:200]


def _record(row: Grant, verb: str, **details: Any) -> None:
    audit(
        ControlEvent(
            event_type=f"grant.{verb}",
            action="grant.write",
            object_kind="grant",
            object_id=str(row.pk),
            object_label=_label(row),
            tenant_id=str(row.tenant_id),
            server=row.server.slug if row.server is not None else "",
            details={
                "effect": row.effect,
                "kind": row.kind,
                "subject": row.subject,
                "toolset": row.toolset.slug if row.toolset is not None else "",
                "pattern": row.pattern,
                **details,
            },
        )
    )
