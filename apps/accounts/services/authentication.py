"""Who somebody is: keys are checked here, and every sign-in, refusal and new password is recorded."""

from typing import NoReturn

from django.db.models import Q

from apps.accounts.domain import is_within, parse_networks
from apps.accounts.models import APIKey, User
from apps.common.clock import now
from apps.common.context import Actor, current_scope, every_tenant
from apps.common.crypto.tokens import digest_key, parse_prefix
from apps.common.errors import AuthenticationRequired
from apps.common.events import ControlEvent
from apps.common.http_address import is_loopback, normalise
from apps.common.outbox import audit, audit_apart, unit_of_work

_NAME = 64
"""Characters of a name given at a failed sign-in that are kept."""


def authenticate_key(text: str, *, address: str, origin: str = "rest", request_id: str = "") -> tuple[APIKey, Actor]:
    """Return the key that a text is and the actor it makes; `address` is the caller's, after trusted proxies.

    Raises AuthenticationRequired, and records the refusal, when the text is not a key, or the key is unknown, revoked,
    expired, bound to this machine and used from elsewhere, or its owner or tenant is not active. The caller hears one
    and the same for all but expiry and place, which only the holder of the key can reach.
    """
    anonymous = Actor(kind="anonymous", id="", label="", origin=origin, address=address, request_id=request_id)
    if parse_prefix(text) is None:
        _refuse(anonymous, None, "malformed", "This is not an API key of Switchyard (sy_…).")
    digest = digest_key(text)
    key = APIKey.unscoped.select_related("owner", "tenant").filter(Q(digest=digest) | Q(former_digest=digest)).first()
    if key is None:
        _refuse(anonymous, None, "unknown", "The API key is unknown or has been revoked.")
    if key.revoked_at is not None or not key.owner.is_active or not key.tenant.active:
        why = "revoked" if key.revoked_at is not None else "owner-or-tenant-inactive"
        _refuse(anonymous, key, why, "The API key is unknown or has been revoked.")
    if bytes(key.digest) != digest and (key.former_until is None or key.former_until <= now()):
        _refuse(anonymous, key, "rotated", "This text of the API key was replaced by a new one, and is no longer accepted.")
    if key.state == "expired":
        _refuse(anonymous, key, "expired", "The API key has expired.")
    if key.loopback_only and not is_loopback(address):
        _refuse(anonymous, key, "not-loopback", "The API key is accepted only from the machine that Switchyard runs on.")
    if key.allowed_networks and not is_within(address, parse_networks(key.allowed_networks)):
        _refuse(anonymous, key, "network", f"The API key is not accepted from {normalise(address) or 'this address'}.")
    return key, actor_of_key(key, origin=origin, address=address, request_id=request_id)


def actor_of_key(key: APIKey, *, origin: str, address: str = "", request_id: str = "") -> Actor:
    """Return the actor that a key makes; a superuser's only when it acts with the rights of one."""
    return Actor(
        kind="api_key",
        id=str(key.pk),
        label=str(key),
        is_superuser=key.inherits_owner and key.owner.is_superuser,
        origin=origin,
        address=address,
        request_id=request_id,
    )


def actor_of_user(user: User, *, origin: str, address: str = "", request_id: str = "") -> Actor:
    """Return the actor that a signed-in user is."""
    return Actor(
        kind="user",
        id=str(user.pk),
        label=user.username,
        is_superuser=user.is_superuser,
        origin=origin,
        address=address,
        request_id=request_id,
    )


def record_login(user: User, *, address: str = "", request_id: str = "") -> None:
    """Record that somebody signed in."""
    _record("auth.login", user, address=address, request_id=request_id)


def record_logout(user: User, *, address: str = "", request_id: str = "") -> None:
    """Record that somebody signed out."""
    _record("auth.logout", user, address=address, request_id=request_id)


def record_failed_login(username: str, *, address: str = "", request_id: str = "") -> None:
    """Record a failed sign-in: the name that was given, cut to 64 characters, and never the password."""
    name = "".join(character if character.isprintable() else "?" for character in username)[:_NAME]
    actor = Actor(kind="anonymous", id="", label=name, origin="admin", address=address, request_id=request_id)
    with every_tenant(actor):
        audit_apart(
            ControlEvent(
                event_type="auth.login_failed",
                action="auth.login",
                object_kind="user",
                object_label=name,
                outcome="refused",
            )
        )


def record_password_change(user: User) -> None:
    """Record that a user has a new password."""
    event = ControlEvent(
        event_type="user.password_changed",
        action="user.write",
        object_kind="user",
        object_id=str(user.pk),
        object_label=user.username,
    )
    if current_scope() is not None:
        with unit_of_work():
            audit(event)
        return
    with every_tenant(), unit_of_work():
        audit(event)


def _record(event_type: str, user: User, *, address: str, request_id: str) -> None:
    with every_tenant(actor_of_user(user, origin="admin", address=address, request_id=request_id)), unit_of_work():
        audit(
            ControlEvent(
                event_type=event_type,
                action=event_type,
                object_kind="user",
                object_id=str(user.pk),
                object_label=user.username,
            )
        )


def _refuse(actor: Actor, key: APIKey | None, rule: str, detail: str) -> NoReturn:
    with every_tenant(actor):
        audit_apart(
            ControlEvent(
                event_type="auth.key_refused",
                action="auth.key",
                object_kind="api_key",
                object_id=str(key.pk) if key else "",
                object_label=str(key) if key else "",
                outcome="refused",
                tenant_id=str(key.tenant_id) if key else None,
                details={"rule": rule},
            )
        )
    raise AuthenticationRequired(detail)
