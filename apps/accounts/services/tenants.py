"""Tenants: made by superusers, with their built-in roles; named and set up by their own administrators."""

from typing import Any

from apps.accounts.models import Tenant
from apps.accounts.services.builtin_roles import ensure_builtin_roles
from apps.accounts.services.rights import apply_fields, locked, validated
from apps.common.authorise import require
from apps.common.events import ControlEvent
from apps.common.outbox import audit, changed, unit_of_work

CHANGEABLE = ("name", "sample_payloads", "slug", "active")
"""What `update_tenant` takes; the last two from superusers only."""


def create_tenant(*, slug: str, name: str = "", sample_payloads: bool = True) -> Tenant:
    """Make a tenant and its built-in roles. Superusers only; raises ValidationFailed (a slug taken or not in form)."""
    with unit_of_work():
        require("tenant.write", tenant_id=None, kind="tenant", label=slug)
        tenant = Tenant(slug=slug, name=name or slug, sample_payloads=sample_payloads)
        validated(tenant)
        tenant.save(force_insert=True)
        after = {"slug": slug, "name": tenant.name, "sample_payloads": sample_payloads}
        audit(_event("tenant.created", tenant, {"after": after}))
        changed("tenant", tenant.pk, tenant_id=tenant.pk)
        ensure_builtin_roles(tenant)
    return tenant


def update_tenant(tenant: Tenant, **fields: Any) -> Tenant:
    """Change a tenant. Its administrators may name it and switch sampling; slug and state need a superuser."""
    with unit_of_work():
        above = bool({"slug", "active"} & fields.keys())
        require("tenant.write", tenant_id=None if above else tenant.pk, kind="tenant", object_id=tenant.pk, label=tenant.slug)
        tenant = locked(tenant)
        before, after = apply_fields(tenant, fields, CHANGEABLE)
        if after:
            validated(tenant)
            tenant.save(update_fields=[*after, "updated_at"])
            audit(_event(_past(after), tenant, {"before": before, "after": after}))
            changed("tenant", tenant.pk, tenant_id=tenant.pk)
    return tenant


def deactivate_tenant(tenant: Tenant) -> Tenant:
    """Shut a tenant: its keys and members are refused, nothing is deleted. Superusers only."""
    return update_tenant(tenant, active=False)


def activate_tenant(tenant: Tenant) -> Tenant:
    """Open a tenant again. Superusers only."""
    return update_tenant(tenant, active=True)


def _past(after: dict[str, Any]) -> str:
    if set(after) == {"active"}:
        return "tenant.activated" if after["active"] else "tenant.deactivated"
    return "tenant.updated"


def _event(event_type: str, tenant: Tenant, details: dict[str, Any]) -> ControlEvent:
    return ControlEvent(
        event_type=event_type,
        action="tenant.write",
        object_kind="tenant",
        object_id=str(tenant.pk),
        object_label=tenant.slug,
        tenant_id=str(tenant.pk),
        details=details,
    )
