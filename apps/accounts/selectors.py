"""Reads of accounts that others may use: rows by name, and what the data plane's snapshot is built from.

`plane_*` take the ids of changed rows, or None for all; the caller opens the scope (`every_tenant()`). An id that is not
in the answer is gone (deleted, revoked): its holder drops it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from apps.accounts.domain import DEFAULT_TENANT, KeyFacts, TenantFacts, UserFacts, parse_networks
from apps.accounts.models import APIKey, Membership, Role, Tenant, User
from apps.common.clock import now
from apps.common.errors import NotFound

_CHUNK = 5000
"""Ids per query: below the 32,766 variables of a SQLite statement."""


def plane_tenants(ids: Iterable[object] | None = None) -> list[TenantFacts]:
    """Return tenants, active or not."""
    fields = ("id", "slug", "active", "sample_payloads")
    return [
        TenantFacts(str(id), slug, active, sample)
        for id, slug, active, sample in _rows(Tenant.objects.order_by(), "id", ids, fields)
    ]


def plane_users(ids: Iterable[object] | None = None) -> list[UserFacts]:
    """Return users with their roles in every tenant that the scope shows."""
    wanted = None if ids is None else list(ids)
    roles: dict[UUID, list[tuple[str, str]]] = defaultdict(list)
    for user_id, tenant_id, role_id in _rows(
        Membership.objects.order_by(), "user_id", wanted, ("user_id", "tenant_id", "role_id")
    ):
        roles[user_id].append((str(tenant_id), str(role_id)))
    fields = ("id", "username", "is_active", "is_superuser")
    return [
        UserFacts(str(id), username, active, superuser, tuple(sorted(roles.get(id, ()))))
        for id, username, active, superuser in _rows(User.objects.order_by(), "id", wanted, fields)
    ]


def plane_keys(ids: Iterable[object] | None = None) -> list[KeyFacts]:
    """Return keys that are not revoked; expired ones are among them, with their time.

    A key that was rotated is there twice while its former text is accepted: first with the new digest, then with the old one.
    """
    fields = (
        "id", "tenant_id", "owner_id", "name", "prefix", "digest", "inherits_owner", "scopes", "loopback_only", "expires_at",
        "allowed_networks", "former_digest", "former_until",
    )  # fmt: skip
    live = APIKey.objects.filter(revoked_at__isnull=True).order_by()
    found = []
    moment = now()
    for id, tenant_id, owner_id, name, prefix, digest, inherits, scopes, loopback, expires, networks, former, until in _rows(
        live, "id", ids, fields
    ):
        facts = KeyFacts(
            id=str(id),
            tenant_id=str(tenant_id),
            owner_id=str(owner_id),
            name=name,
            prefix=prefix,
            digest=bytes(digest),
            inherits_owner=inherits,
            scopes=None if scopes is None else frozenset(scopes),
            loopback_only=loopback,
            expires_us=_microseconds(expires),
            networks=parse_networks(networks),
        )
        found.append(facts)
        if former is not None and until is not None and until > moment:
            ends = min(until, expires) if expires is not None else until
            found.append(replace(facts, digest=bytes(former), expires_us=_microseconds(ends)))
    return found


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1_000_000)


def _rows(rows: QuerySet[Any], column: str, ids: Iterable[object] | None, fields: tuple[str, ...]) -> Iterator[Any]:
    if ids is None:
        yield from rows.values_list(*fields).iterator(chunk_size=_CHUNK)
        return
    wanted = list(ids)
    for start in range(0, len(wanted), _CHUNK):
        yield from rows.filter(**{f"{column}__in": wanted[start : start + _CHUNK]}).values_list(*fields)


def as_uuid(text: object) -> UUID | None:
    """Return the UUID that a text spells, or None."""
    if isinstance(text, UUID):
        return text
    try:
        return UUID(str(text))
    except ValueError:
        return None


def tenant(id_or_slug: object) -> Tenant:
    """Return a tenant by id or slug; raises NotFound. Tenants stand above the scope: the caller decides who may ask."""
    key = as_uuid(id_or_slug)
    found = Tenant.objects.filter(pk=key).first() if key else Tenant.objects.filter(slug=str(id_or_slug)).first()
    if found is None:
        raise NotFound("There is no such tenant.")
    return found


def default_tenant() -> Tenant | None:
    """Return the tenant `default`, else the oldest, else None before the first start."""
    return Tenant.objects.filter(slug=DEFAULT_TENANT).first() or Tenant.objects.order_by("created_at", "id").first()


def tenants_of(user: Any) -> QuerySet[Tenant]:
    """Return the tenants a user may work in: all for a superuser, else the active ones they are a member of; by slug."""
    if not user.is_active:
        return Tenant.objects.none()
    if user.is_superuser:
        return Tenant.objects.order_by("slug")
    memberships = Membership.unscoped.filter(user_id=user.pk).values("tenant_id")
    return Tenant.objects.filter(active=True, pk__in=memberships).order_by("slug")


def is_member(user_id: UUID | str, tenant_id: UUID | str) -> bool:
    """Tell whether a user has a role in a tenant."""
    return Membership.unscoped.filter(user_id=user_id, tenant_id=tenant_id).exists()


def user(id_or_username: object) -> User:
    """Return a user by id or username; raises NotFound. Users stand above the scope."""
    key = as_uuid(id_or_username)
    found = User.objects.filter(pk=key).first() if key else User.objects.filter(username=str(id_or_username)).first()
    if found is None:
        raise NotFound("There is no such user.")
    return found


def role(id_or_slug: object) -> Role:
    """Return a role of the tenant in force by id or slug; raises NotFound."""
    key = as_uuid(id_or_slug)
    found = Role.objects.filter(pk=key).first() if key else Role.objects.filter(slug=str(id_or_slug)).first()
    if not isinstance(found, Role):
        raise NotFound("There is no such role.")
    return found


def api_key(id_or_prefix: object) -> APIKey:
    """Return a key of the tenant in force by id or public prefix (8 characters); raises NotFound."""
    key = as_uuid(id_or_prefix)
    found = APIKey.objects.filter(pk=key).first() if key else APIKey.objects.filter(prefix=str(id_or_prefix)).first()
    if not isinstance(found, APIKey):
        raise NotFound("There is no such API key.")
    return found


def permissions_in(user_id: UUID | str, tenant_id: UUID | str) -> frozenset[str]:
    """Return what a user's roles give in one tenant, now; nothing in a tenant that is not active."""
    lists = Membership.unscoped.filter(user_id=user_id, tenant_id=tenant_id, tenant__active=True).values_list(
        "role__permissions", flat=True
    )
    return frozenset(permission for permissions in lists for permission in permissions)
