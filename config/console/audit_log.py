"""The audit log: a timeline to read, filters on the left, a seal on top, every event with all its fields. Read-only."""

from dataclasses import asdict
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Sum
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive, make_aware
from unfold.widgets import UnfoldAdminFileFieldWidget

from apps.audit import selectors
from apps.audit.admin.history import history_context
from apps.audit.admin.words import CALL_STEPS, tell
from apps.audit.models import AuditEvent, AuditHead
from apps.audit.services.checkpoints import overview
from apps.audit.services.reads import note_payloads_read
from apps.audit.services.verify import verify_log
from apps.common.admin import ConsoleAdmin
from apps.common.admin.format import plural
from apps.common.admin.verbs import SUPERUSER, note_denied
from apps.common.clock import now
from apps.common.context import current_actor, current_scope, every_tenant
from apps.common.errors import NotFound, SwitchyardError, ValidationFailed
from apps.tools.admin.definition import visible_json
from config.console import tasks
from config.console.scope import may

PAGE = 50
AT_ONCE = 20_000
"""Rows that are verified while one waits; a longer log is verified in the background."""

GROUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "": ("All events", {}),
    "calls": ("Calls", {"event_type": ["call.outcome", "call.refused"]}),
    "problems": ("Problems", {"outcome": ["error", "failed", "refused", "unknown"]}),
    "changes": ("Changes", {"origin": ["admin", "rest", "cli"]}),
    "signin": ("Sign-ins", {"event_type": "auth."}),
    "refusals": ("Refusals", {"outcome": ["refused"]}),
    "rows": ("All rows, with steps", {}),
}
"""Views of the log: name to words and filters."""
PERIODS = {
    "1h": ("Last hour", timedelta(hours=1)),
    "24h": ("Last 24 hours", timedelta(days=1)),
    "7d": ("Last 7 days", timedelta(days=7)),
    "30d": ("Last 30 days", timedelta(days=30)),
    "": ("Any time", None),
}
OUTCOMES = ("", "ok", "error", "refused", "failed", "cancelled", "unknown")
KEPT = (
    "event_type",
    "outcome",
    "server",
    "tool",
    "actor",
    "actor_id",
    "actor_kind",
    "object_kind",
    "object_id",
    "call_id",
    "request_id",
    "origin",
)
"""Filters that links of other pages may bring."""


UPLOAD = 1_048_576
"""Bytes of checkpoints that the dialog takes; the command line takes any number."""


class VerifyForm(forms.Form):
    """What the log is held against beside its own chains."""

    checkpoints = forms.FileField(
        required=False,
        label="Signed checkpoints",
        help_text="Lines that were kept outside, at most 1 MB: they show an end that was cut off and an older copy. "
        "More of them: manage.py audit verify --checkpoints FILE.",
        widget=UnfoldAdminFileFieldWidget(),
    )

    def clean_checkpoints(self) -> list[str] | None:
        """Return the lines of the file."""
        given = self.cleaned_data.get("checkpoints")
        if not given:
            return None
        if given.size > UPLOAD:
            raise forms.ValidationError("This is more than 1 MB: use manage.py audit verify --checkpoints FILE.")
        return [line for line in given.read().decode("utf-8", "replace").splitlines() if line.strip()]


@admin.register(AuditEvent)
class AuditEventAdmin(ConsoleAdmin):
    """The log's pages."""

    kind = "audit"
    show_add_link = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody writes the log by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody changes the log."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes from the log."""
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the timeline."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        group = request.GET.get("view", "")
        group = group if group in GROUPS else ""
        filters = wanted(request, group)
        cursor = request.GET.get("cursor") or None
        error = ""
        page_events: list[Any] = []
        following = None
        try:
            found, following = read(filters, cursor, every_row=group == "rows" or bool(request.GET.get("call_id")))
            page_events = [tell(row) for row in found]
        except ValidationFailed as raised:
            error = raised.detail
        kept = request.GET.copy()
        kept.pop("cursor", None)
        context = {
            **self.admin_site.each_context(request),
            "title": "Audit",
            "events": page_events,
            "error": error,
            "next": _with(kept, cursor=following) if following else "",
            "first": _with(kept) if cursor else "",
            "views": [
                {"title": words, "href": _with(kept, view=name), "active": name == group} for name, (words, _) in GROUPS.items()
            ],
            "periods": [
                {"value": name, "title": words, "chosen": request.GET.get("period", "") == name}
                for name, (words, _) in PERIODS.items()
            ],
            "outcomes": [{"value": name, "chosen": request.GET.get("outcome", "") == name} for name in OUTCOMES],
            "given": {name: request.GET.get(name, "") for name in ("text", "server", "tool", "who", "period", "outcome")},
            "chips": [
                (name, request.GET.get(name), _with(kept, **{name: None}))
                for name in KEPT
                if request.GET.get(name) and name not in ("server", "tool", "outcome")
            ],
            "filtered": sum(bool(request.GET.get(name)) for name in {"text", "period", "who", *KEPT}),
            "view": group,
            "export_url": reverse("admin:audit_export") + _with(kept),
            "seal": seal(request),
        }
        return TemplateResponse(request, "console/audit.html", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show one event: all fields, the call's steps, its place in the chain."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            row = selectors.event(object_id)
        except NotFound as error:
            raise Http404(error.detail) from error
        told = tell(row)
        note_payloads_read([row])
        story = [tell(one) for one in selectors.call_story(row.call_id)] if row.call_id else []
        fields = [
            (name.replace("_", " "), value)
            for name, value in asdict(row).items()
            if value not in (None, "") and name not in ("id", "details", "digest", "previous", "time")
        ]
        context = {
            **self.admin_site.each_context(request),
            "title": f"Event {row.event_id}",
            "event": told,
            "row": row,
            "fields": fields,
            "details": visible_json(row.details) if row.details else "",
            "story": story,
            "list_url": self.list_url(),
        }
        return TemplateResponse(request, "console/audit_event.html", context)


def wanted(request: HttpRequest, group: str) -> dict[str, Any]:
    """Return the filters that the address asks for."""
    filters: dict[str, Any] = {**GROUPS[group][1]}
    for name in KEPT:
        values = [value for value in request.GET.getlist(name) if value]
        if values:
            filters[name] = values if len(values) > 1 else values[0]
    if text := request.GET.get("text", "").strip():
        filters["text"] = text[:200]
    if who := request.GET.get("who", "").strip():
        filters["who"] = who[:200]
    length = PERIODS.get(request.GET.get("period", ""), ("", None))[1]
    if length is not None:
        filters["since"] = now() - length
    for name in ("since", "until"):
        moment = parse_datetime(request.GET.get(name, "")) if request.GET.get(name) else None
        if moment is not None:
            filters[name] = make_aware(moment) if is_naive(moment) else moment
    return filters


def read(filters: dict[str, Any], cursor: str | None, *, every_row: bool) -> tuple[list[Any], str | None]:
    """Return a page of events; without `every_row` the steps of calls are left out, so a page may take several reads."""
    rows: list[Any] = []
    for _ in range(4):
        page = selectors.events(limit=PAGE, cursor=cursor, details=True, **filters)
        rows += [row for row in page.events if every_row or row.event_type not in CALL_STEPS or "event_type" in filters]
        cursor = page.next_cursor
        if cursor is None or len(rows) >= PAGE:
            break
    return rows, cursor


def seal(request: HttpRequest) -> dict[str, Any]:
    """Return when the chain was last verified, by whom and with what result."""
    last = selectors.last_verification()
    return {
        "last": last,
        "ok": last is not None and last.outcome == "ok",
        "who": tell(last).who if last else "",
        "details": (last.details or {}) if last else {},
        "href": reverse("admin:audit_auditevent_change", args=(last.event_id,)) if last and _sees(last) else "",
        "may": bool(request.user.is_superuser),
        "progress": tasks.progress_of_verification(),
        "checkpoints": overview(),
        "verify_url": reverse("admin:audit_verify"),
        "poll": reverse("admin:audit_verification"),
    }


def _sees(event: Any) -> bool:
    scope = current_scope()
    return scope is not None and (scope.every_tenant or event.tenant == scope.tenant_id)


def verify(request: HttpRequest) -> HttpResponse:
    """Verify the log: at once where it is short, in the background where it is long (POST; GET asks)."""
    if not request.user.is_superuser:
        note_denied(request, SUPERUSER)
        raise PermissionDenied
    rows = AuditHead.objects.aggregate(n=Sum("seq"))["n"] or 0
    page = reverse("admin:audit_auditevent_changelist")
    htmx = bool(request.headers.get("HX-Request"))
    form = VerifyForm(request.POST, request.FILES) if request.method == "POST" else VerifyForm()
    if request.method != "POST" or not form.is_valid():
        from apps.common.admin import Ask

        question = Ask(
            title="Verify the audit log?",
            submit="Verify now",
            consequence=[
                f"Reads {plural(rows, 'row')} and recomputes the chain from the first to the last. Nothing is changed; the result is recorded.",
                "It runs in the background; this page shows how far it is." if rows > AT_ONCE else "It takes a moment.",
            ],
        )
        context = {
            "ask": question,
            "form": form,
            "has_files": True,
            "dialog_title": question.title,
            "next": page,
            "back": page,
            "whole": not htmx,
            "opts": AuditEvent._meta,
        }
        if htmx:
            return render(request, "console/dialog.html", context)
        return TemplateResponse(
            request, "console/dialog_page.html", {**admin.site.each_context(request), **context, "title": question.title}
        )
    if rows > AT_ONCE:
        tasks.note_progress(state="waiting", rows=0, total=rows)
        tasks.verify_log_task.delay(asdict(current_actor()), form.cleaned_data["checkpoints"])
        messages.info(request, f"Verifying {plural(rows, 'row')} in the background.")
    else:
        try:
            with every_tenant(current_actor()):
                report = verify_log(checkpoints=form.cleaned_data["checkpoints"])
        except SwitchyardError as error:
            messages.error(request, error.detail)
        else:
            tasks.note_progress(state="done", ok=report.ok, rows=report.rows, total=report.rows)
            if report.ok:
                messages.success(
                    request,
                    f"The log is whole: {plural(report.rows, 'row')} in {plural(len(report.writers), 'chain')}, {report.seconds:.1f} s.",
                )
            else:
                messages.error(request, f"The log is NOT whole. First bad row {report.first_bad}: {report.what}.")
    return HttpResponse(headers={"HX-Redirect": page}) if htmx else HttpResponseRedirect(page)


def verification(request: HttpRequest) -> HttpResponse:
    """Answer how far the verification is, as the seal of the page."""
    if not may(request, "audit.read"):
        raise PermissionDenied
    return render(request, "console/parts/seal.html", {"seal": seal(request)})


def history(request: HttpRequest, kind: str, object_id: str) -> HttpResponse:
    """Answer an older page of an object's history; as a page of its own, lead to the log."""
    if not may(request, "audit.read"):
        raise PermissionDenied
    if not request.headers.get("HX-Request"):
        query = urlencode({"object_kind": kind, "object_id": object_id})
        return HttpResponseRedirect(f"{reverse('admin:audit_auditevent_changelist')}?{query}")
    try:
        context = history_context(kind, object_id, request.GET.get("cursor"))
    except ValidationFailed as error:
        raise Http404(error.detail) from error
    return render(request, "console/parts/history.html", context)


def _with(kept: Any, **values: Any) -> str:
    query = kept.copy()
    for name, value in values.items():
        query.pop(name, None)
        if value not in (None, ""):
            query[name] = value
    text = query.urlencode()
    return f"?{text}" if text else "?"
