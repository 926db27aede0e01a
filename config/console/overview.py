"""The overview: is something wrong, what changed, what waits for me; and the way to a first call."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from apps.accounts.models import APIKey
from apps.audit import selectors as audit
from apps.audit.admin.history import problems
from apps.audit.selectors import call_statistics, call_totals
from apps.common.admin.base import model_url
from apps.common.admin.states import look_of
from apps.common.clock import now
from apps.common.context import current_scope
from apps.servers import selectors as servers
from apps.servers.admin.parts import ATTENTION
from apps.servers.models import Server
from apps.tools.models import Tool
from apps.tools.selectors import held_counts
from config.console import figures
from config.console.audit_log import seal
from config.console.scope import may

TILES = 24
TOP = 6
PROBLEMS = 10


def overview(site: Any, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
    """Show the overview."""
    context = {**site.each_context(request), "title": "Overview", **facts(request), **(extra_context or {})}
    request.current_app = site.name
    return TemplateResponse(request, "console/overview.html", context)


def live(request: HttpRequest) -> HttpResponse:
    """Answer the parts of the overview that keep themselves up to date."""
    if not admin.site.has_permission(request):
        raise PermissionDenied
    return TemplateResponse(request, "console/parts/overview_live.html", facts(request))


def facts(request: HttpRequest) -> dict[str, Any]:
    """Gather what the person may see of the tenant in view, in a number of queries that does not grow with it."""
    scope = current_scope()
    if scope is None or not (scope.every_tenant or scope.tenant_id):
        return {"no_tenant": True}
    seen: dict[str, Any] = {"live_url": reverse("admin:overview_live")}
    may_servers, may_tools, may_audit = may(request, "server.read"), may(request, "tool.read"), may(request, "audit.read")
    if may_tools or may_audit:
        counts = held_counts() if may_tools else {}
        held_url = f"{model_url(Tool, 'changelist')}?state=held"
        seen["figures"] = figures.overview_figures(sum(counts.values()), held_url)
    if may_servers:
        seen |= _servers()
    if may_audit:
        seen["problems"] = problems(PROBLEMS)
        seen["seal"] = seal(request)
    if may_tools:
        seen |= _tools()
    seen["steps"] = _checklist(request)
    return seen


def _servers() -> dict[str, Any]:
    rows = servers.servers().prefetch_related("endpoints")
    by_state = servers.server_statistics().by_state
    listed = sorted(
        rows.order_by("slug")[: TILES * 4], key=lambda row: ATTENTION.index(row.state) if row.state in ATTENTION else 99
    )
    today = figures.today_by_server([])
    tiles = []
    for row in listed[:TILES]:
        places = list(row.endpoints.all())
        reason = next((place.state_reason for place in places if place.state == row.state and place.state_reason), "")
        of_today = today.get((str(row.tenant_id), row.slug))
        tiles.append({
            "row": row, "state": row.state, "reason": reason, "calls": of_today.calls if of_today else 0, "href": model_url(Server, "change", row.pk),
        })  # fmt: skip
    total = sum(by_state.values())
    return {
        "tiles": tiles,
        "more_servers": max(0, total - len(tiles)),
        "servers_total": total,
        "states": [(state, by_state[state], look_of(state).tone) for state in ATTENTION if by_state.get(state)],
    }


def _tools() -> dict[str, Any]:
    since = now() - figures.DAY
    found = call_statistics(by=("server", "tool"), since=since, limit=500)
    used = [_tool_row(key, one) for key, one in found[:TOP]]
    failing = sorted(
        (row for row in (_tool_row(key, one) for key, one in found) if row["bad"]), key=lambda row: (-row["bad"], row["tool"])
    )[:TOP]
    most = max((row["calls"] for row in used), default=1) or 1
    worst = max((row["bad"] for row in failing), default=1) or 1
    for row in used:
        row["width"] = round(100 * row["calls"] / most, 1)
    for row in failing:
        row["width"] = round(100 * row["bad"] / worst, 1)
    return {"used": used, "failing": failing}


def _tool_row(key: tuple[Any, ...], one: Any) -> dict[str, Any]:
    server, tool = key
    return {
        "server": server,
        "tool": tool,
        "calls": one.calls,
        "bad": one.errors + one.unknown,
        "p95": one.p95_us,
        "href": figures.audit_url(server=server, tool=tool),
    }


def _checklist(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the steps to a first call, or nothing when all are done or not this person's to do."""
    if not (may(request, "server.write") or may(request, "api_key.write")):
        return []
    own = servers.servers().filter(builtin=False).exists()
    keys = APIKey.objects.filter(revoked_at__isnull=True)
    used = keys.filter(last_used_at__isnull=False).exists()
    called = call_totals(since=now() - 30 * figures.DAY).calls > 0 or bool(
        audit.events(event_type="call.outcome", limit=1).events
    )
    steps = [
        (
            "Bring your servers",
            "Register one by its address, or import the mcpServers file you have.",
            own,
            reverse("admin:servers_server_add"),
            "Register server",
            reverse("admin:import_servers"),
            "Import",
        ),
        (
            "Make a key",
            "Every client shows a key; choose what it may use.",
            keys.count() > 0 and (keys.count() > 1 or used),
            reverse("admin:accounts_apikey_add"),
            "Make key",
            "",
            "",
        ),
        (
            "Connect a client",
            "Open a toolset and copy the snippet for Claude, Cursor, VS Code or curl.",
            used,
            reverse("admin:tools_toolset_changelist"),
            "Open toolsets",
            "",
            "",
        ),
        (
            "Make the first call",
            "From your client, or here in the playground of any tool.",
            called,
            f"{model_url(Tool, 'changelist')}?state=active",
            "Open tools",
            "",
            "",
        ),
    ]
    if all(done for _, _, done, *_ in steps):
        return []
    following = next(title for title, _, done, *_ in steps if not done)
    needs = dict(
        zip((title for title, *_ in steps), ("server.write", "api_key.write", "toolset.read", "tool.read"), strict=True)
    )
    names = ("title", "text", "done", "href", "button", "href2", "button2")
    return [
        {**dict(zip(names, step, strict=True)), "next": step[0] == following, "may": may(request, needs[step[0]])}
        for step in steps
    ]
