"""Users: made, changed, shut out. A superuser may do everything; others manage those who have no more rights than they."""

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError

from apps.accounts.models import APIKey, Membership, Role, User
from apps.accounts.services.api_keys import revoke_with_owner
from apps.accounts.services.memberships import give_role
from apps.accounts.services.rights import acting_user_id, apply_fields, locked, refuse, require_covered, validated
from apps.common.authorise import current_principal, has_everything, require, require_superuser
from apps.common.context import current_actor, current_scope
from apps.common.errors import Conflict, ValidationFailed
from apps.common.events import ControlEvent
from apps.common.outbox import audit, changed, unit_of_work

CHANGEABLE = ("username", "email", "first_name", "last_name", "is_active", "is_staff", "is_superuser")
"""What `update_user` takes."""


def create_user(
    *,
    username: str,
    password: str | None = None,
    email: str = "",
    first_name: str = "",
    last_name: str = "",
    is_staff: bool = True,
    is_superuser: bool = False,
    roles: Iterable[Role] = (),
) -> User:
    """Make a user, with roles. Without a password they cannot sign in (a service account).

    One who is no superuser makes users of the tenant in force only: at least one role of it is needed.
    Raises PermissionDenied, ValidationFailed (the name, the password, no role).
    """
    with unit_of_work():
        given = list(roles)
        tenant_id = _tenant_id()
        if is_superuser:
            require_superuser(
                "user.admin", tenant_id=None, kind="user", label=username, why="Only a superuser makes superusers."
            )
        require("user.write", tenant_id=tenant_id, kind="user", label=username)
        if not current_principal().is_superuser and not any(str(role.tenant_id) == tenant_id for role in given):
            raise ValidationFailed("The user needs a role here.", errors={"roles": ["Choose at least one role."]})
        user = User(
            username=username,
            email=email,
            first_name=first_name,
            last_name=last_name,
            is_staff=is_staff,
            is_superuser=is_superuser,
        )
        _set_password(user, password)
        validated(user, exclude={"password"})
        user.save(force_insert=True)
        details = {"after": {"username": username, "is_staff": is_staff, "is_superuser": is_superuser}}
        audit(_event("user.created", "user.write", user, details))
        changed("user", user.pk)
        for role in given:
            give_role(user, role)
    return user


def update_user(user: User, **fields: Any) -> User:
    """Change a user. Never the last active superuser into something less (Conflict)."""
    with unit_of_work():
        if {"is_active", "is_superuser"} & fields.keys():
            _lock_superusers()
        original, user = user, locked(user)
        _require_over(user, "user.write")
        if fields.get("is_superuser", user.is_superuser) != user.is_superuser:
            require_superuser(
                "user.admin", tenant_id=None, kind="user", object_id=user.pk, label=user.username,
                why="Only a superuser makes or unmakes superusers.",
            )  # fmt: skip
        if user.is_superuser and not (fields.get("is_superuser", True) and fields.get("is_active", True)):
            _not_the_last(user)
        before, after = apply_fields(user, fields, CHANGEABLE)
        if not after:
            return user
        validated(user, exclude={"password"})
        user.save(update_fields=list(after))
        for name in after:
            setattr(original, name, getattr(user, name))
        audit(_event(_past(after), "user.write", user, {"before": before, "after": after}))
        changed("user", user.pk)
    return user


def deactivate_user(user: User) -> User:
    """Shut a user out: no sign-in, their keys are refused; nothing is deleted. Never the last superuser (Conflict)."""
    return update_user(user, is_active=False)


def activate_user(user: User) -> User:
    """Let a user in again."""
    return update_user(user, is_active=True)


def set_password(user: User, password: str | None, *, current: str | None = None) -> User:
    """Set a password (None: no sign-in). Sessions of the user end.

    One's own is changed in person, by giving the `current` one, and by no key; another's with `user.admin`, where they have no
    more rights than oneself. Raises PermissionDenied, ValidationFailed (a weak password, a wrong or needless `current`).
    """
    with unit_of_work():
        user = locked(user)
        if acting_user_id() == str(user.pk):
            _require_in_person(user, current)
        else:
            _require_over(user, "user.admin")
            if current is not None:
                raise ValidationFailed(
                    "The present password is asked for one's own change alone.",
                    errors={"current_password": ["Leave it out: this is another user."]},
                )
        _set_password(user, password)
        user.save(update_fields=["password"])
        if password is None:  # a new one is recorded where Django tells of it
            audit(_event("user.password_removed", "user.admin", user, {}))
    return user


def delete_user(user: User) -> None:
    """Delete a user, their roles, keys and grants. Never oneself, never the last superuser (Conflict)."""
    with unit_of_work():
        _lock_superusers()
        user = locked(user)
        _require_over(user, "user.delete")
        if acting_user_id() == str(user.pk):
            raise Conflict("You cannot delete yourself.")
        if user.is_superuser:
            _not_the_last(user)
        revoke_with_owner(APIKey.unscoped.filter(owner=user))
        before = {
            "username": user.username,
            "email": user.email,
            "is_staff": user.is_staff,
            "is_superuser": user.is_superuser,
            "roles": sorted(Membership.unscoped.filter(user=user).values_list("role__slug", flat=True)),
        }
        audit(_event("user.deleted", "user.delete", user, {"before": before}))
        changed("user", user.pk)
        user.delete()


def _tenant_id() -> str | None:
    scope = current_scope()
    return scope.tenant_id if scope else None


def _about(user: User) -> dict[str, Any]:
    return {"tenant_id": _tenant_id(), "kind": "user", "object_id": user.pk, "label": user.username}


def _set_password(user: User, password: str | None) -> None:
    if password is None:
        user.set_unusable_password()
        return
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise ValidationFailed("The password is too weak.", errors={"password": list(error.messages)}) from error
    user.set_password(password)


def _require_in_person(user: User, current: str | None) -> None:
    """Refuse a key of the user's, however wide, and whoever does not know the present password."""
    if current_actor().kind != "user":
        refuse(
            "user.write",
            "no key changes the password of its owner; sign in to the console",
            rule="own-password",
            **_about(user),
        )
    if not user.check_password(current or ""):
        raise ValidationFailed(
            "The present password is needed to change it.",
            errors={"current_password": ["This is not your present password." if current else "Give your present password."]},
        )


def _require_over(user: User, action: str) -> None:
    """Ask the policy about a user. Who is no superuser manages users of their own tenant alone; nobody one with more rights."""
    about = _about(user)
    tenant_id = about["tenant_id"]
    require(action, **about)
    if has_everything():
        return
    if user.is_superuser:
        refuse(action, "the user is a superuser", rule="superuser-only", **about)
    memberships = list(Membership.unscoped.filter(user=user).values_list("tenant_id", "role__permissions"))
    elsewhere = not memberships or any(str(home) != tenant_id for home, _ in memberships)
    if elsewhere and not current_principal().is_superuser:
        refuse(action, "the user is not of this tenant alone", rule="tenant", **about)
    require_covered({text for _, permissions in memberships for text in permissions}, action, **about)


def _lock_superusers() -> list[object]:
    """Lock all active superusers in one order, so that two who shut each other out at the same time cannot both succeed."""
    active = User.objects.select_for_update().filter(is_superuser=True, is_active=True).order_by("pk")
    return [user.pk for user in active]


def _not_the_last(user: User) -> None:
    if _lock_superusers() == [user.pk]:
        raise Conflict("This is the last active superuser; make another one first.")


def _past(after: dict[str, Any]) -> str:
    if set(after) == {"is_active"}:
        return "user.activated" if after["is_active"] else "user.deactivated"
    return "user.updated"


def _event(event_type: str, action: str, user: User, details: dict[str, Any]) -> ControlEvent:
    return ControlEvent(
        event_type=event_type,
        action=action,
        object_kind="user",
        object_id=str(user.pk),
        object_label=user.username,
        details=details,
    )
