"""Memberships: who has which role in a tenant."""

from typing import Any

from apps.accounts.models import APIKey, Membership, Role, User
from apps.accounts.services.api_keys import revoke_with_owner
from apps.accounts.services.rights import refuse, require_covered
from apps.common.authorise import current_principal, require
from apps.common.errors import Conflict
from apps.common.events import ControlEvent
from apps.common.outbox import audit, changed, unit_of_work


def add_membership(user: User, role: Role) -> Membership:
    """Give a user a role in the role's tenant; one needs the role's permissions oneself. A repeat changes nothing.

    Who is no superuser gives roles to members of the tenant alone: a user of another one is not theirs to know of.
    """
    with unit_of_work():
        about = _about(user, role)
        require("membership.write", **about)
        stranger = not Membership.unscoped.filter(user=user, tenant_id=role.tenant_id).exists()
        if stranger and not current_principal().is_superuser:
            refuse("membership.write", "the user is not a member of this tenant", rule="tenant", **about)
        return give_role(user, role)


def give_role(user: User, role: Role) -> Membership:
    """Do what `add_membership` does for a user whom the caller may manage: one who is just being made."""
    with unit_of_work():
        about = _about(user, role)
        require("membership.write", **about)
        require_covered(role.permissions, "membership.write", **about)
        if not user.is_active:
            raise Conflict("The user is not active.")
        membership, made = Membership.unscoped.get_or_create(tenant_id=role.tenant_id, user=user, role=role)
        if made:
            audit(_event("membership.added", "membership.write", membership))
            changed("user", user.pk, tenant_id=role.tenant_id)
    return membership


def remove_membership(membership: Membership) -> None:
    """Take a role from a user; with the last one, their keys in the tenant are revoked (superusers keep theirs)."""
    with unit_of_work():
        user, role = membership.user, membership.role
        about = _about(user, role)
        require("membership.delete", **about)
        require_covered(role.permissions, "membership.delete", **about)
        audit(_event("membership.removed", "membership.delete", membership))
        changed("user", user.pk, tenant_id=membership.tenant_id)
        Membership.unscoped.filter(pk=membership.pk).delete()
        left = Membership.unscoped.filter(user=user, tenant_id=membership.tenant_id).exists()
        if not left and not user.is_superuser:
            revoke_with_owner(APIKey.unscoped.filter(owner=user, tenant_id=membership.tenant_id))


def _about(user: User, role: Role) -> dict[str, Any]:
    return {
        "tenant_id": role.tenant_id,
        "kind": "membership",
        "object_id": user.pk,
        "label": f"{user.username}: {role.slug}",
    }


def _event(event_type: str, action: str, membership: Membership) -> ControlEvent:
    return ControlEvent(
        event_type=event_type,
        action=action,
        object_kind="membership",
        object_id=str(membership.user_id),  # about the user, whose history it is part of
        object_label=f"{membership.user.username}: {membership.role.slug}",
        tenant_id=str(membership.tenant_id),
        details={"membership": str(membership.pk), "user": membership.user.username, "role": membership.role.slug},
    )
