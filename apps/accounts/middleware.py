"""Opens the scope in which a signed-in person's request runs."""

from collections.abc import Callable
from contextlib import ExitStack

from django.http import HttpRequest, HttpResponse

from apps.accounts.principals import remember_principals
from apps.accounts.services.authentication import actor_of_user
from apps.accounts.tenant_choice import chosen_tenant
from apps.common.api.addresses import request_address
from apps.common.context import Scope, reset_scope, set_scope

_READS = ("GET", "HEAD", "OPTIONS")


class ScopeMiddleware:
    """Names the actor and the tenant of each request of a signed-in person (see `apps.common.context`).

    `request.tenant` is the tenant they work in, None for every one. Nobody signed in: no scope, so that rows of tenants
    cannot be read at all. A member of no tenant acts, but sees no tenant's rows.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Handle one request."""
        user = getattr(request, "user", None)
        request.tenant = None  # type: ignore[attr-defined]
        if user is None or not user.is_authenticated or not user.is_active:
            return self.get_response(request)
        tenant = chosen_tenant(request)
        request.tenant = tenant  # type: ignore[attr-defined]
        actor = actor_of_user(
            user,
            origin="admin",
            address=request_address(request),
            request_id=str(getattr(request, "request_id", "")),
        )
        scope = Scope(
            tenant_id=str(tenant.pk) if tenant else None, every_tenant=tenant is None and user.is_superuser, actor=actor
        )
        with ExitStack() as stack:
            if request.method in _READS:
                stack.enter_context(remember_principals())
            stack.callback(reset_scope, set_scope(scope))
            return self.get_response(request)
