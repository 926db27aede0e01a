"""Taking the events of the audit log away: a dialog that names what goes, the file, and how far it is."""

import re
from typing import Any

from django.contrib import admin
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import reverse

from apps.audit.formats import FORMATS
from apps.audit.models import AuditEvent
from apps.audit.services.export import Export
from apps.common.api.streaming import stream
from apps.common.errors import SwitchyardError
from apps.common.ids import short_id
from config.console.audit_log import GROUPS, wanted
from config.console.scope import may

KEPT_SECONDS = 3600
_ID = re.compile(r"[0-9a-f]{16}")


def export(request: HttpRequest) -> HttpResponseBase:
    """Ask which form (GET), then send the file (POST); the filters are those of the address, as the list has them."""
    if not may(request, "audit.read"):
        raise PermissionDenied
    group = request.GET.get("view", "")
    filters = wanted(request, group if group in GROUPS else "")
    error: SwitchyardError | None = None
    if request.method == "POST":
        key = _key(request, request.POST.get("export", ""))
        try:
            taken = Export(
                request.POST.get("format", ""),
                filters,
                progress=lambda rows: cache.set(key, {"rows": rows, "done": False}, KEPT_SECONDS),
                ended=lambda rows, outcome: cache.set(key, {"rows": rows, "done": True, "outcome": outcome}, KEPT_SECONDS),
            )
        except SwitchyardError as raised:
            error = raised
        else:
            cache.set(key, {"rows": 0, "done": False}, KEPT_SECONDS)
            return stream(request, taken.chunks(), content_type=taken.format.content_type, filename=taken.filename)
    identity = short_id()
    context: dict[str, Any] = {
        "dialog_title": "Export events",
        "formats": FORMATS.values(),
        "filters": [
            (name.replace("_", " "), ", ".join(value) if isinstance(value, list) else value) for name, value in filters.items()
        ],
        "path": request.get_full_path(),
        "export": identity,
        "poll": f"{reverse('admin:audit_export_progress')}?export={identity}",
        "error": error,
        "back": reverse("admin:audit_auditevent_changelist"),
        "whole": not request.headers.get("HX-Request"),
        "opts": AuditEvent._meta,
    }
    if not context["whole"]:
        return render(request, "console/parts/audit_export_dialog.html", context)
    whole = {**admin.site.each_context(request), **context, "title": "Export events"}
    return TemplateResponse(request, "console/audit_export.html", whole, status=error.status if error else 200)


def progress(request: HttpRequest) -> HttpResponseBase:
    """Answer how far one's own export is; 286 ends the asking (htmx)."""
    if not may(request, "audit.read"):
        raise PermissionDenied
    found = cache.get(_key(request, request.GET.get("export", ""))) or {}
    status = 286 if found.get("done") else 200
    return render(request, "console/parts/audit_export_progress.html", {"state": found}, status=status)


def _key(request: HttpRequest, named: str) -> str:
    return f"console-audit-export-{request.user.pk}-{named if _ID.fullmatch(named) else 'none'}"
