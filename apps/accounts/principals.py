"""Who the actor in force is to the policy: answers the port `apps.common.authorise.register_principal_source`."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from apps.accounts import selectors
from apps.accounts.models import APIKey, User
from apps.common.context import Actor, Scope, current_actor, current_scope
from apps.common.policy import Principal

_remembered: ContextVar[dict[Scope, Principal] | None] = ContextVar("switchyard_principals", default=None)


def principal_in_force() -> Principal:
    """Return the actor in force with the rights they have now.

    A user has the permissions of their roles in the tenant in force. A key has its owner's in the key's own tenant if it
    inherits them, narrowed by its scopes, else none. Whoever is unknown, inactive or revoked has none.
    """
    scope = current_scope()
    actor = current_actor()
    memory = _remembered.get()
    if memory is not None and scope in memory:
        return memory[scope]
    tenant_id = scope.tenant_id if scope else None
    if actor.kind == "user":
        principal = _of_user(actor, tenant_id)
    elif actor.kind == "api_key":
        principal = _of_key(actor)
    else:
        principal = Principal(kind=actor.kind, id=actor.id, label=actor.label, tenant_id=None)
    if memory is not None and scope is not None:
        memory[scope] = principal
    return principal


@contextmanager
def remember_principals() -> Iterator[None]:
    """Look each principal up once in this block: for requests that only read, which ask the policy for every button."""
    token = _remembered.set({})
    try:
        yield
    finally:
        _remembered.reset(token)


def _of_user(actor: Actor, tenant_id: str | None) -> Principal:
    key = selectors.as_uuid(actor.id)
    user = User.objects.filter(pk=key, is_active=True).first() if key else None
    if user is None:
        return Principal(kind="user", id=actor.id, label=actor.label, tenant_id=None)
    permissions = frozenset() if tenant_id is None or user.is_superuser else selectors.permissions_in(user.pk, tenant_id)
    return Principal(
        kind="user",
        id=str(user.pk),
        label=user.username,
        tenant_id=tenant_id,
        is_superuser=user.is_superuser,
        permissions=permissions,
    )


def _of_key(actor: Actor) -> Principal:
    id = selectors.as_uuid(actor.id)
    key = APIKey.unscoped.select_related("owner", "tenant").filter(pk=id).first() if id else None
    if key is None or key.state != "active" or not key.owner.is_active:
        return Principal(kind="api_key", id=actor.id, label=actor.label, tenant_id=None)
    superuser = key.inherits_owner and key.owner.is_superuser
    inherited = key.inherits_owner and not superuser
    return Principal(
        kind="api_key",
        id=str(key.pk),
        label=str(key),
        tenant_id=str(key.tenant_id),
        is_superuser=superuser,
        permissions=selectors.permissions_in(key.owner_id, key.tenant_id) if inherited else frozenset(),
        scopes=None if key.scopes is None else frozenset(key.scopes),
    )
