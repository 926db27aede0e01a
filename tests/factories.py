"""Rows for tests, made by the product's own services as the system; each call makes something new unless told otherwise."""

import itertools
import os

from apps.accounts.domain import DEFAULT_TENANT
from apps.accounts.models import APIKey, Membership, Role, Tenant, User
from apps.accounts.services.api_keys import create_api_key
from apps.accounts.services.authentication import actor_of_key, actor_of_user
from apps.accounts.services.builtin_roles import ensure_builtin_roles
from apps.accounts.services.memberships import add_membership
from apps.accounts.services.roles import create_role
from apps.accounts.services.tenants import create_tenant
from apps.accounts.services.users import create_user
from apps.common.context import SYSTEM, Actor, every_tenant, tenant_scope

_count = itertools.count(1)

PASSWORD = "a long pass phrase 4711"


def unique(stem: str) -> str:
    """Return a name that no other test uses."""
    return f"{stem}-{os.getpid()}-{next(_count)}"


def make_tenant(slug: str | None = None, **fields) -> Tenant:
    """Make a tenant with its built-in roles."""
    with every_tenant(SYSTEM):
        return create_tenant(slug=slug or unique("tenant"), **fields)


def default_tenant() -> Tenant:
    """Return the tenant `default`, made when it is missing."""
    found = Tenant.objects.filter(slug=DEFAULT_TENANT).first()
    return found or make_tenant(DEFAULT_TENANT)


def make_role(tenant: Tenant, *permissions: str, slug: str | None = None) -> Role:
    """Make a role of a tenant with these permissions."""
    with tenant_scope(tenant.pk, SYSTEM):
        return create_role(slug=slug or unique("role")[:40], permissions=permissions)


def builtin_role(tenant: Tenant, slug: str) -> Role:
    """Return a built-in role of a tenant: admin, operator, user, guest, auditor or service."""
    with every_tenant(SYSTEM):
        return ensure_builtin_roles(tenant)[slug]


def make_user(tenant: Tenant | None = None, role: str | Role = "user", *, username: str | None = None, **fields) -> User:
    """Make a user with a password; with a tenant, a member with a role of it (a built-in role's slug, or a role)."""
    roles = []
    if tenant is not None:
        roles = [builtin_role(tenant, role) if isinstance(role, str) else role]
    fields.setdefault("password", PASSWORD)
    with every_tenant(SYSTEM):
        return create_user(username=username or unique("user"), roles=roles, **fields)


def make_superuser(username: str | None = None, **fields) -> User:
    """Make a superuser with a password."""
    return make_user(username=username or unique("super"), is_superuser=True, **fields)


def make_member(user: User, tenant: Tenant, role: str = "user") -> Membership:
    """Give a user a built-in role in a tenant."""
    with every_tenant(SYSTEM):
        return add_membership(user, builtin_role(tenant, role))


def make_key(owner: User | None = None, tenant: Tenant | None = None, **fields) -> tuple[APIKey, str]:
    """Make an API key; returns the row and its text. Without an owner: a new superuser's, acting with the owner's rights."""
    if owner is None:
        owner = make_superuser()
        fields.setdefault("inherits_owner", True)
    fields.setdefault("name", unique("key"))
    with tenant_scope((tenant or default_tenant()).pk, SYSTEM):
        return create_api_key(owner=owner, **fields)


def as_user(user: User, **fields) -> Actor:
    """Return the actor that a user is: `with tenant_scope(tenant.pk, as_user(user)): …`."""
    return actor_of_user(user, **{"origin": "admin", **fields})


def as_key(key: APIKey, **fields) -> Actor:
    """Return the actor that a key makes."""
    return actor_of_key(key, **{"origin": "rest", **fields})
