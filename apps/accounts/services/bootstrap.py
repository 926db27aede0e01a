"""The first start: a tenant, an operator, a key."""

import secrets
from dataclasses import dataclass, field

from django.db import connections

from apps.accounts import selectors
from apps.accounts.domain import DEFAULT_TENANT
from apps.accounts.models import APIKey, Tenant, User
from apps.accounts.services.api_keys import create_api_key
from apps.accounts.services.builtin_roles import ensure_builtin_roles
from apps.accounts.services.tenants import create_tenant
from apps.accounts.services.users import create_user
from apps.common.context import Actor, every_tenant, tenant_scope
from apps.common.crypto.tokens import digest_key, parse_prefix
from apps.common.errors import Conflict, ValidationFailed
from apps.common.outbox import unit_of_work

FIRST_KEY = "First key"
"""Name of the key that the first start makes."""
_START = Actor(kind="system", id="system", label="first start", is_superuser=True, origin="start")
_LOCK = 0x5357_4253
"""Key of the PostgreSQL advisory lock that lets one process at a time do this."""


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """What is there now. `password` and `key_text` only where they were made by this very call."""

    user: User
    tenant: Tenant
    password: str | None = field(repr=False)
    key_text: str | None = field(repr=False)


def ensure_first_operator(username: str, password: str | None = None, key_text: str | None = None) -> Bootstrapped:
    """Make sure that there is a tenant with its roles, an active superuser and a first key; a repeat changes nothing.

    The key acts with everything its owner may do, from this machine only. `key_text` is the key to use; without one, a key is
    made where the operator has none of the name `FIRST_KEY`. A key that was revoked stays revoked. Raises ValidationFailed
    (the form of the key, a weak password, a name that an ordinary user has) and Conflict (the key belongs to somebody else).
    """
    if key_text and parse_prefix(key_text) is None:
        raise ValidationFailed(
            "The first key is not in the form of a key: sy_<8 letters or digits>_<43 to 128 letters, digits, - or _>.",
            errors={"key_text": ["Not in the form of a key."]},
        )
    with every_tenant(_START), unit_of_work():
        _one_at_a_time()
        tenant = selectors.default_tenant() or create_tenant(slug=DEFAULT_TENANT, name="Default")
        ensure_builtin_roles(tenant)
        user, made = _operator(username, password)
        with tenant_scope(tenant.pk):
            text = _first_key(user, key_text or None)
    return Bootstrapped(user=user, tenant=tenant, password=made, key_text=text)


def _operator(username: str, password: str | None) -> tuple[User, str | None]:
    superusers = User.objects.filter(is_superuser=True, is_active=True).order_by("date_joined", "pk")
    user = superusers.filter(username=username).first() or superusers.first()
    if user is not None:
        return user, None
    if User.objects.filter(username=username).exists():
        raise ValidationFailed(
            f"The user {username} exists and is not an active superuser; name another first operator.",
            errors={"username": ["Taken by a user who is not an active superuser."]},
        )
    made = password or secrets.token_urlsafe(18)
    return create_user(username=username, password=made, is_superuser=True), made


def _first_key(user: User, text: str | None) -> str | None:
    if text is None:
        if APIKey.unscoped.filter(owner=user, name=FIRST_KEY).exists():
            return None
    else:
        known = APIKey.unscoped.filter(digest=digest_key(text)).first()
        if known is not None and known.owner_id != user.pk:
            raise Conflict("The first key given belongs to another user.")
        if known is not None:
            return None
    _, made = create_api_key(name=FIRST_KEY, owner=user, inherits_owner=True, loopback_only=True, text=text)
    return made


def _one_at_a_time() -> None:
    connection = connections["default"]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
