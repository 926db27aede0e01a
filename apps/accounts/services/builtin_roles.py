"""The roles that every tenant has."""

from apps.accounts.domain import BUILTIN_ROLES
from apps.accounts.models import Role, Tenant
from apps.common.events import ControlEvent
from apps.common.outbox import audit, changed, unit_of_work


def ensure_builtin_roles(tenant: Tenant) -> dict[str, Role]:
    """Make or mend a tenant's built-in roles (admin, operator, user, guest, auditor, service); returns them by slug.

    Part of making a tenant and of starting the product: the caller has been authorised.
    """
    roles: dict[str, Role] = {}
    with unit_of_work():
        there = {role.slug: role for role in Role.unscoped.filter(tenant_id=tenant.pk, builtin=True)}
        for spec in BUILTIN_ROLES:
            permissions = list(spec.permissions)
            role = there.get(spec.slug)
            if role is None:
                role = Role(tenant=tenant, slug=spec.slug, name=spec.name, permissions=permissions, builtin=True)
                role.save(force_insert=True)
            elif role.permissions != permissions:
                role.permissions = permissions
                role.save(update_fields=["permissions", "updated_at"])
            else:
                roles[spec.slug] = role
                continue
            roles[spec.slug] = role
            audit(
                ControlEvent(
                    event_type="role.created" if spec.slug not in there else "role.updated",
                    action="role.write",
                    object_kind="role",
                    object_id=str(role.pk),
                    object_label=role.slug,
                    tenant_id=str(tenant.pk),
                    details={"after": {"permissions": permissions, "builtin": True}},
                )
            )
            changed("role", role.pk, tenant_id=tenant.pk)
    return roles
