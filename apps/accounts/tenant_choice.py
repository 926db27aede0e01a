"""Which tenant a signed-in person works in; kept in their session."""

from django.http import HttpRequest

from apps.accounts import selectors
from apps.accounts.models import Tenant, User
from apps.common.errors import NotFound

SESSION_KEY = "switchyard_tenant"
"""Holds a tenant's id, or `*` for every tenant."""
EVERY = "*"


def choosable_tenants(user: User) -> list[Tenant]:
    """Return the tenants that a user may choose, by slug."""
    return list(selectors.tenants_of(user))


def choose_tenant(request: HttpRequest, id_or_slug: object | None) -> None:
    """Remember the tenant to work in; None = every tenant, for superusers. Raises NotFound."""
    user = request.user
    if id_or_slug is None:
        if not getattr(user, "is_superuser", False):
            raise NotFound("There is no such tenant.")
        request.session[SESSION_KEY] = EVERY
        return
    tenant = selectors.tenant(id_or_slug)
    if not selectors.tenants_of(user).filter(pk=tenant.pk).exists():
        raise NotFound("There is no such tenant.")
    request.session[SESSION_KEY] = str(tenant.pk)


def chosen_tenant(request: HttpRequest) -> Tenant | None:
    """Return the tenant that a request works in; None = every tenant (superusers) or none at all (others).

    Without a choice, or when the choice is no longer open to them, a superuser works in the only tenant there is, or in
    every one; others in the first of theirs.
    """
    user = request.user
    choice = request.session.get(SESSION_KEY, "")
    open_to_them = selectors.tenants_of(user)
    if chosen_id := selectors.as_uuid(choice):
        chosen = open_to_them.filter(pk=chosen_id).first()
        if chosen is not None:
            return chosen
    if getattr(user, "is_superuser", False):
        if choice == EVERY:
            return None
        first = list(open_to_them[:2])
        return first[0] if len(first) == 1 else None
    return open_to_them.first()
