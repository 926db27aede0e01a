"""Answers the API's port `apps.common.api.identity`: who a key or a session is, and which tenants they may name."""

from typing import Any

from django.http import HttpRequest

from apps.accounts import selectors
from apps.accounts.models import APIKey
from apps.accounts.services.authentication import actor_of_user, authenticate_key
from apps.accounts.tenant_choice import chosen_tenant
from apps.common.api.identity import Caller
from apps.common.errors import NotFound, PermissionDenied


class Callers:
    """The port's one implementation."""

    def of_key(self, text: str, *, address: str, request_id: str) -> Caller:
        """Return who a key is; raises AuthenticationRequired."""
        key, actor = authenticate_key(text, address=address, request_id=request_id)
        return Caller(user=key.owner, actor=actor, tenant_id=str(key.tenant_id))

    def of_session(self, request: HttpRequest, *, address: str, request_id: str) -> Caller:
        """Return who the signed-in user is; raises PermissionDenied for one without any tenant."""
        user: Any = request.user
        tenant = chosen_tenant(request)
        if tenant is None and not user.is_superuser:
            raise PermissionDenied("You are not a member of any tenant; ask an administrator for a role.", rule="tenant")
        actor = actor_of_user(user, origin="rest", address=address, request_id=request_id)
        return Caller(user=user, actor=actor, tenant_id=str(tenant.pk) if tenant else None)

    def tenant_for(self, caller: Caller, slug: str) -> str:
        """Return the id of a tenant that the caller names and may work in; raises NotFound."""
        tenant = selectors.tenant(slug)
        if caller.actor.kind == "api_key":
            home = APIKey.unscoped.filter(pk=caller.actor.id).values_list("tenant_id", flat=True).first()
            allowed = caller.actor.is_superuser or tenant.pk == home
        else:
            allowed = selectors.tenants_of(caller.user).filter(pk=tenant.pk).exists()
        if not allowed:
            raise NotFound("There is no such tenant.")
        return str(tenant.pk)
