"""Import and export of servers as the ecosystem's mcpServers JSON, with a preview before anything is written."""

import json
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from apps.accounts import selectors as accounts
from apps.common.admin.format import plural
from apps.common.context import current_scope, tenant_scope
from apps.common.errors import SwitchyardError, ValidationFailed
from apps.servers.admin.forms import ImportForm
from apps.servers.models import Server
from apps.servers.services.transfer import export_servers, import_servers
from config.console.scope import may


def import_url() -> str:
    """Return the address of the import page."""
    return reverse("admin:import_servers")


def export_text() -> str:
    """Return the servers of the tenant in view as a file's text; secrets stand as `${NAME}`. Recorded as an export."""
    scope = current_scope()
    if scope is None or scope.tenant_id is None:
        raise ValidationFailed("Choose one tenant in the header first: a file holds the servers of one tenant.")
    return json.dumps(export_servers(), indent=2, ensure_ascii=False) + "\n"


def import_page(request: HttpRequest) -> HttpResponse:
    """Show the form; with a document, what it would do; confirmed, what it did."""
    from django.contrib import admin

    if not may(request, "server.write"):
        raise PermissionDenied
    scope = current_scope()
    needs_tenant = bool(scope and scope.every_tenant)
    tenants = list(accounts.tenants_of(request.user)) if needs_tenant else []
    form = ImportForm(request.POST or None, request.FILES or None)
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": "Import servers",
        "opts": Server._meta,
        "form": form,
        "tenants": tenants,
        "chosen_tenant": request.POST.get("tenant", ""),
    }
    if request.method == "POST" and form.is_valid():
        tenant_id = request.POST.get("tenant") if needs_tenant else (scope.tenant_id if scope else None)
        confirmed = "confirmed" in request.POST
        if needs_tenant and not any(str(tenant.pk) == tenant_id for tenant in tenants):
            form.add_error(None, "Choose the tenant that gets the servers.")
        else:
            try:
                with tenant_scope(tenant_id):
                    results = import_servers(form.document, dry_run=not confirmed)
            except SwitchyardError as error:
                form.add_error(None, error.detail)
            else:
                good = [result for result in results if result.action in ("created", "updated")]
                if confirmed and good:
                    messages.success(request, f"{plural(len(good), 'server')} imported; each is discovered in the background.")
                if confirmed and not any(result.action == "failed" for result in results):
                    return HttpResponseRedirect(reverse("admin:servers_server_changelist"))
                context |= {"results" if confirmed else "preview": results, "good": len(good)}
        # An uploaded file is gone with the answer: its text goes on in the form.
        form = ImportForm(initial={"text": form.cleaned_data["text"]}) if form.is_valid() else form
        context["form"] = form
    return TemplateResponse(request, "console/import.html", context)
