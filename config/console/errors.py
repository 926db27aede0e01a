"""Pages for what is refused, not there, or broken: what happened, why, and a way back, in the console's look."""

from typing import Any
from urllib.parse import urlsplit

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from apps.common.admin.verbs import SUPERUSER, denied_of
from apps.common.context import current_scope
from config.console.csp import console_policy


def refused(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer 403 with the permission that is missing."""
    missing = denied_of(request)
    said = str(exception or "")
    scope = current_scope()
    alone = scope is not None and scope.tenant_id is None and not scope.every_tenant
    context: dict[str, Any] = {
        "title": "You may not do this" if request.method == "POST" else "You may not open this",
        "icon": "block",
    }
    if said:
        context["sentences"] = [said]
    elif alone:
        context["sentences"] = ["You are a member of no tenant yet, so there is nothing that you may see."]
    elif missing == SUPERUSER:
        context["sentences"] = ["This is for superusers alone."]
    elif missing:
        context |= {"sentences": ["Your roles in the tenant in view do not give the permission for it."], "missing": missing}
    else:
        context["sentences"] = ["Your roles do not allow it."]
    context["todo"] = "" if said else "Ask an administrator, and name the address, or the request below."
    return _page(request, 403, context)


def csrf_refused(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer 403 to a form that did not come from a page of this console, or whose page is too old."""
    sentences = ["The form was not accepted: it is too old, you have signed in anew since, or cookies are switched off."]
    return _page(
        request,
        403,
        {
            "title": "Open the page again",
            "icon": "sync_problem",
            "sentences": sentences,
            "todo": "Nothing was changed. Go back, reload, and send it again.",
        },
    )


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer 404."""
    sentences = ["No page has this address, or what it showed is deleted or belongs to a tenant that is not in view."]
    return _page(request, 404, {"title": "There is nothing here", "icon": "search_off", "sentences": sentences})


def broken(request: HttpRequest) -> HttpResponse:
    """Answer 500, needing nothing that may be broken."""
    context = {"request_id": getattr(request, "request_id", ""), "home": reverse("admin:index")}
    return HttpResponse(render_to_string("console/broken.html", context), status=500)


def _page(request: HttpRequest, status: int, context: dict[str, Any]) -> HttpResponse:
    home = reverse("admin:index")
    context |= {"request_id": getattr(request, "request_id", ""), "home": home, "back": _came_from(request), "status": status}
    inside = request.path.startswith(home) and hasattr(request, "user") and admin.site.has_permission(request)
    if inside and request.headers.get("HX-Request"):
        return HttpResponse(render_to_string("console/refused_dialog.html", context, request), status=status)
    template = "console/refused.html" if inside else "console/refused_outside.html"
    page = TemplateResponse(request, template, {**admin.site.each_context(request), **context}, status=status).render()
    console_policy(request, page)
    return page


def _came_from(request: HttpRequest) -> str:
    """Return the page of ours that led here, if there is another one."""
    given = request.headers.get("Referer", "")
    ours = url_has_allowed_host_and_scheme(given, allowed_hosts={request.get_host()}, require_https=request.is_secure())
    path = urlsplit(given).path if given and ours else ""
    return path if path and path != request.path and not path.startswith(reverse("admin:login")) else ""
