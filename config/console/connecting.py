"""The pages of an OAuth connection that stand outside the console: the address that people come back to, the one where a user connects
their own account, and the document by which authorization servers know Switchyard.
"""

from typing import Any
from urllib.parse import urlsplit

from django.contrib import admin, messages
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_safe

from apps.accounts.selectors import is_member
from apps.common.context import every_tenant, tenant_scope
from apps.common.errors import NotFound, SwitchyardError, ValidationFailed
from apps.servers.domain import OAUTH_USER
from apps.servers.models import Server
from apps.servers.selectors import connection_of
from apps.servers.services.oauth import connecting, disconnecting, identity
from config.console.csp import console_policy
from config.console.scope import may

MOST = {"state": 200, "code": 4000, "error": 200, "iss": 1000}
"""Parameters of an answer that are read, and how long each may be."""


@require_safe
def client_metadata(request: HttpRequest) -> HttpResponse:
    """Answer the client metadata document; it is public."""
    answer = JsonResponse(identity.document())
    answer["Cache-Control"] = "public, max-age=3600"
    return answer


@never_cache
@require_GET
def callback(request: HttpRequest) -> HttpResponse:
    """Take the answer of an authorization server. It leads to pages of our own alone, whatever its address says."""
    if not request.user.is_authenticated:
        return redirect_to_login(request.get_full_path(), reverse("admin:login"))
    try:
        given = _answer(request)
        done = connecting.finish(
            person=request.user,
            state=given["state"],
            code=given.get("code", ""),
            error=given.get("error", ""),
            issuer=given.get("iss"),
        )
    except SwitchyardError as error:
        return _page(request, error.status, "Not connected", "link_off", [error.detail], todo=_TODO)
    server = done.server
    if done.user_id is None and _sees(request, server):
        messages.success(request, f"{server.slug} is connected. What it offers is being looked at.")
        return HttpResponseRedirect(reverse("admin:servers_server_change", args=(server.pk,)))
    return _page(
        request,
        200,
        f"Connected with {server.slug}",
        "link",
        [
            f"Your calls to {server.slug} now go out with your own account there. You can close this page and go on in your client."
        ],
    )


_TODO = "Nothing was connected. Begin again on the server's page, or at the address that your client gave you."


def _answer(request: HttpRequest) -> dict[str, str]:
    """Return the parameters of an answer, each once and of a bearable length. Raises ValidationFailed."""
    given: dict[str, str] = {}
    for name, most in MOST.items():
        values = request.GET.getlist(name)
        if len(values) > 1 or any(len(value) > most for value in values):
            raise ValidationFailed("This is not the answer of an authorization server.")
        if values:
            given[name] = values[0]
    if not given.get("state"):
        raise ValidationFailed("This is not the answer of an authorization server: it has no state.")
    return given


@never_cache
@require_http_methods(["GET", "POST"])
def connect(request: HttpRequest, server_id: Any) -> HttpResponse:
    """Show what one's own account with a server is, and lead to its authorization server, or end it, on POST alone."""
    if not request.user.is_authenticated:
        return redirect_to_login(request.get_full_path(), reverse("admin:login"))
    with every_tenant():
        server = Server.objects.filter(pk=server_id).select_related("tenant").first()
    user: Any = request.user
    if server is None or not (user.is_superuser or is_member(user.pk, server.tenant_id)) or not server.by_oauth:
        return _page(
            request,
            404,
            "There is nothing here",
            "search_off",
            [str(NotFound("No server is connected at this address.").detail)],
        )
    personal = server.auth == OAUTH_USER
    with tenant_scope(server.tenant_id):
        mine = connection_of(server.pk, user.pk if personal else None)
        context: dict[str, Any] = {"server": server, "connection": mine, "personal": personal}
        try:
            if request.method == "POST" and "end" in request.POST:
                if mine is not None:
                    disconnecting.disconnect(mine)
                return HttpResponseRedirect(request.path)
            if request.method == "POST":
                begun = connecting.begin(server, person=user, personal=personal)
                if begun.connection is not None:
                    return HttpResponseRedirect(request.path)
                context |= {"begun": begun, "host": urlsplit(begun.authorization_url).netloc}
        except SwitchyardError as error:
            context["problem"] = error
        return _render(request, context)


def _render(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    status = context["problem"].status if "problem" in context else 200
    title = f"Connect with {context['server'].slug}"
    page = TemplateResponse(
        request, "console/connect_outside.html", {**admin.site.each_context(request), "title": title, **context}, status=status
    ).render()
    console_policy(request, page)
    page["Referrer-Policy"] = "no-referrer"
    return page


def _page(request: HttpRequest, status: int, title: str, icon: str, sentences: list[str], *, todo: str = "") -> HttpResponse:
    context = {
        **admin.site.each_context(request),
        "title": title,
        "icon": icon,
        "sentences": sentences,
        "todo": todo,
        "status": status,
        "home": reverse("admin:index"),
        "request_id": getattr(request, "request_id", ""),
    }
    page = TemplateResponse(request, "console/refused_outside.html", context, status=status).render()
    console_policy(request, page)
    page["Referrer-Policy"] = "no-referrer"
    return page


def _sees(request: HttpRequest, server: Server) -> bool:
    return admin.site.has_permission(request) and may(request, "server.read")
