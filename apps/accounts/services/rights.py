"""Nobody gives more than they have: the rule, and how models' validation becomes a typed error."""

from collections.abc import Iterable
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import models

from apps.accounts.domain import invalid_permissions, not_covered
from apps.common.authorise import current_principal
from apps.common.context import current_actor
from apps.common.errors import NotFound, PermissionDenied, ValidationFailed
from apps.common.events import ControlEvent
from apps.common.outbox import audit_apart

Row = TypeVar("Row", bound=models.Model)


def refuse(
    action: str, reason: str, *, rule: str, tenant_id: object, kind: str, object_id: object = "", label: str = ""
) -> None:
    """Record a refusal that outlives the unit of work, and raise PermissionDenied."""
    audit_apart(
        ControlEvent(
            event_type="access.refused",
            action=action,
            object_kind=kind,
            object_id=str(object_id),
            object_label=label,
            outcome="refused",
            tenant_id=None if tenant_id is None else str(tenant_id),
            details={"rule": rule},
        )
    )
    raise PermissionDenied(f"You may not do this ({action}): {reason}.", rule=rule)


def require_covered(
    permissions: Iterable[str], action: str, *, tenant_id: object, kind: str, object_id: object = "", label: str = ""
) -> None:
    """Refuse unless the actor in force has every one of `permissions` in this tenant themselves."""
    wanted = list(permissions)
    principal = current_principal()
    missing: list[str] = []
    if principal.scopes is not None:
        missing = not_covered(wanted, principal.scopes)
    if not principal.is_superuser:
        here = principal.tenant_id is not None and tenant_id is not None and principal.tenant_id == str(tenant_id)
        missing += not_covered(wanted, principal.permissions if here else ())
    if missing:
        refuse(
            action,
            f"you do not have {', '.join(sorted(set(missing)))} yourself",
            rule="more-than-own",
            tenant_id=tenant_id,
            kind=kind,
            object_id=object_id,
            label=label,
        )


def checked_permissions(given: object, field: str) -> list[str]:
    """Return a list of permissions without repeats; raises ValidationFailed when one is not a permission."""
    if not isinstance(given, list | tuple | set | frozenset):
        raise ValidationFailed("A list of permissions is needed.", errors={field: ["Give a list such as [“server.read”]."]})
    if wrong := invalid_permissions(given):
        raise ValidationFailed(
            "There are unknown permissions.",
            errors={field: [f"“{text}” is not a permission (<kind>.<verb>)." for text in wrong]},
        )
    return sorted(set(given))


def acting_user_id() -> str | None:
    """Return the id of the user who acts, themselves or by a key of theirs; None for the system."""
    actor = current_actor()
    if actor.kind == "user":
        return actor.id
    if actor.kind == "api_key":
        from apps.accounts.models import APIKey

        owner = APIKey.unscoped.filter(pk=actor.id).values_list("owner_id", flat=True).first()
        return None if owner is None else str(owner)
    return None


def validated(row: models.Model, *, exclude: Iterable[str] = ()) -> None:
    """Run a model's own validation; raises ValidationFailed with the messages by field."""
    try:
        row.full_clean(exclude=set(exclude))
    except ValidationError as error:
        errors = {
            ("non_field_errors" if name == "__all__" else name): list(messages) for name, messages in error.message_dict.items()
        }
        raise ValidationFailed("The input is not valid.", errors=errors) from error


def locked(row: Row) -> Row:
    """Return the row as the database has it, locked until the unit of work ends (a form may have altered the one given).

    Raises NotFound when it is gone.
    """
    found = type(row)._base_manager.select_for_update().filter(pk=row.pk).first()
    if found is None:
        raise NotFound("It has been deleted in the meantime.")
    return found


def apply_fields(row: models.Model, fields: dict[str, Any], allowed: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Set fields on a row and return what differed, before and after; raises ValidationFailed for a field not allowed."""
    unknown = sorted(set(fields) - set(allowed))
    if unknown:
        raise ValidationFailed(
            "There are fields that cannot be changed.", errors={name: ["Cannot be changed."] for name in unknown}
        )
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for name, value in fields.items():
        old = getattr(row, name)
        if old == value:
            continue
        before[name], after[name] = plain(old), plain(value)
        setattr(row, name, value)
    return before, after


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return str(value)
