"""The tenant in view: which ones a person may choose, and the choice itself."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from apps.accounts import selectors as accounts
from apps.accounts import tenant_choice as choice
from apps.common import authorise
from apps.common.admin.verbs import note_denied
from apps.common.context import current_scope
from apps.common.errors import NotFound

SHOWN = 30
"""Tenants offered in the switcher; the rest are chosen on the tenants' page."""


def may(request: HttpRequest, action: str) -> bool:
    """Ask the one policy about an action in the tenant in force, once per request."""
    if not (request.user.is_active and request.user.is_staff):
        return False
    answers: dict[tuple[str, str], bool] = request.__dict__.setdefault("console_answers", {})
    scope = current_scope()
    tenant_id = scope.tenant_id if scope else None
    asked = (action, str(tenant_id))
    if asked not in answers:
        answers[asked] = authorise.decide(action, tenant_id=tenant_id).allowed
    if not answers[asked]:
        note_denied(request, action)
    return answers[asked]


def tenant_choice(request: HttpRequest) -> dict[str, Any]:
    """Return what the switcher shows: the tenant in view and the ones to choose from."""
    user = request.user
    if not user.is_authenticated:
        return {}
    scope = current_scope()
    chosen = scope.tenant_id if scope and scope.tenant_id else ""
    tenants = list(accounts.tenants_of(user)[: SHOWN + 1])
    for tenant in tenants:
        tenant.id_text = str(tenant.pk)  # type: ignore[attr-defined]
    current = next((tenant.name for tenant in tenants if str(tenant.pk) == chosen), "")
    if not current and chosen:
        current = accounts.tenant(chosen).name
    everything = bool(user.is_superuser)
    several = everything or len(tenants) > 1  # what stands above tenants (sign-ins, users) is seen with all of them in view
    return {
        "choices": tenants[:SHOWN] if several else [],
        "more": accounts.tenants_of(user).count() - SHOWN if len(tenants) > SHOWN else 0,
        "chosen": chosen,
        "current": current or ("All tenants" if everything else ""),
        "everything": everything,
        "next": request.get_full_path() if request.method == "GET" else reverse("admin:index"),
    }


def choose_tenant(request: HttpRequest) -> HttpResponse:
    """Take the choice of a tenant into the session (POST alone)."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    try:
        choice.choose_tenant(request, request.POST.get("tenant", "") or None)
    except NotFound:
        messages.error(request, "You may not see this tenant.")
    back = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(back, allowed_hosts={request.get_host()}, require_https=request.is_secure()):
        back = reverse("admin:index")
    return HttpResponseRedirect(back)
