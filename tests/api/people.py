"""Everybody who may come to the API: one key each."""

from datetime import timedelta

from apps.accounts.models import APIKey
from apps.accounts.services.api_keys import revoke_api_key
from apps.common.clock import now
from apps.common.context import SYSTEM, tenant_scope
from tests.accounts.client import Api
from tests.api.world import World
from tests.factories import make_key, make_role, make_superuser, make_tenant, make_user

NOBODY = ("anonymous", "revoked", "expired")
"""Those whose credential is none."""
SOMEBODY = ("bare", "auditor", "operator", "admin", "stranger", "root", "narrow")
"""Those who are known: without any right, with a built-in role, another tenant's administrator, a superuser, and an administrator by a
key that is narrowed to `toolset.read`."""


def make_person(who: str, world: World) -> Api:
    """Return a client of one of them."""
    tenant = world.tenant
    if who == "anonymous":
        return Api()
    if who == "stranger":
        tenant = make_tenant()
    if who == "root":
        owner = make_superuser()
    else:
        role = make_role(tenant) if who == "bare" else who if who in ("auditor", "operator") else "admin"
        owner = make_user(tenant, role)
    scopes = ["toolset.read"] if who == "narrow" else None
    key, text = make_key(owner, tenant, inherits_owner=True, scopes=scopes)
    if who == "revoked":
        with tenant_scope(tenant.pk, SYSTEM):
            revoke_api_key(key)
    elif who == "expired":
        APIKey.unscoped.filter(pk=key.pk).update(expires_at=now() - timedelta(seconds=1))
    return Api(text)
