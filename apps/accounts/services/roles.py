"""Roles: named sets of permissions in a tenant."""

from collections.abc import Iterable
from typing import Any

from apps.accounts.models import Membership, Role
from apps.accounts.services.rights import apply_fields, checked_permissions, locked, require_covered, validated
from apps.common.authorise import require
from apps.common.context import current_tenant_id
from apps.common.errors import Conflict
from apps.common.events import ControlEvent
from apps.common.outbox import audit, changed, unit_of_work

CHANGEABLE = ("slug", "name", "permissions")
"""What `update_role` takes."""


def create_role(*, slug: str, name: str = "", permissions: Iterable[str] = ()) -> Role:
    """Make a role in the tenant in force, of permissions one has oneself. Raises PermissionDenied, ValidationFailed."""
    with unit_of_work():
        tenant_id = current_tenant_id()
        require("role.write", tenant_id=tenant_id, kind="role", label=slug)
        given = checked_permissions(list(permissions), "permissions")
        role = Role(tenant_id=tenant_id, slug=slug, name=name or slug, permissions=given)
        validated(role)
        require_covered(given, "role.write", tenant_id=tenant_id, kind="role", label=slug)
        role.save(force_insert=True)
        audit(_event("role.created", role, {"after": {"slug": slug, "name": role.name, "permissions": given}}))
        changed("role", role.pk, tenant_id=tenant_id)
    return role


def update_role(role: Role, **fields: Any) -> Role:
    """Change a role that is not built in; one needs its old and its new permissions oneself."""
    with unit_of_work():
        role = locked(role)
        about: dict[str, Any] = {"tenant_id": role.tenant_id, "kind": "role", "object_id": role.pk, "label": role.slug}
        require("role.write", **about)
        _not_builtin(role)
        if "permissions" in fields:
            fields["permissions"] = checked_permissions(fields["permissions"], "permissions")
            require_covered({*role.permissions, *fields["permissions"]}, "role.write", **about)
        before, after = apply_fields(role, fields, CHANGEABLE)
        if after:
            validated(role)
            role.save(update_fields=[*after, "updated_at"])
            audit(_event("role.updated", role, {"before": before, "after": after}))
            changed("role", role.pk, tenant_id=role.tenant_id)
    return role


def delete_role(role: Role) -> None:
    """Delete a role that is not built in and that nobody has any more. Raises Conflict."""
    with unit_of_work():
        role = locked(role)
        about: dict[str, Any] = {"tenant_id": role.tenant_id, "kind": "role", "object_id": role.pk, "label": role.slug}
        require("role.delete", **about)
        _not_builtin(role)
        held = Membership.unscoped.filter(role_id=role.pk).count()
        if held:
            raise Conflict(f"{held} {'member has' if held == 1 else 'members have'} this role; take it from them first.")
        audit(_event("role.deleted", role, {"before": {"slug": role.slug, "permissions": role.permissions}}))
        changed("role", role.pk, tenant_id=role.tenant_id)
        Role.unscoped.filter(pk=role.pk).delete()


def _not_builtin(role: Role) -> None:
    if role.builtin:
        raise Conflict("A built-in role cannot be changed; make a role of your own.")


def _event(event_type: str, role: Role, details: dict[str, Any]) -> ControlEvent:
    return ControlEvent(
        event_type=event_type,
        action="role.delete" if event_type.endswith("deleted") else "role.write",
        object_kind="role",
        object_id=str(role.pk),
        object_label=role.slug,
        tenant_id=str(role.tenant_id),
        details=details,
    )
