"""Tools with what stands above them: the playground, who may call, how it goes."""

from collections import defaultdict
from typing import Any

from django.conf import settings
from django.db.models import Count
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from apps.common.admin.format import compact, count, plural, share
from apps.common.admin.panels import Panel
from apps.common.admin.states import look_of
from apps.common.policy import matches
from apps.tools.admin import ToolAdmin
from apps.tools.domain import full_name
from apps.tools.models import Definition, Grant, ToolsetEntry
from apps.tools.selectors import who_may_use
from config.console import figures, playground

USES_SHOWN = 60


class ConsoleToolAdmin(ToolAdmin):
    """The tools' pages, complete."""

    list_display = ("shown_name", "shown_server", "shown_state", "shown_risk", "shown_access", "shown_calls", "shown_failures")

    class Media:
        js = ("console/playground.js",)

    def panels(self, request: HttpRequest, obj: Any) -> list[Panel]:
        """Add the playground, the figures and who may call."""
        panels = super().panels(request, obj)
        uses = who_may_use(obj, refused=True)
        callers = [use for use in uses if use.allowed]
        panels += [
            Panel("now", "Now", "console/panels/now.html", figures.now_panel(server=obj.server, tool=obj), 10),
            Panel(
                "access",
                "Who may call",
                "console/panels/uses.html",
                {"uses": sorted(uses, key=lambda use: (not use.allowed, use.kind, use.label))[:USES_SHOWN], "total": len(uses)},
                35,
                count(len(callers)),
            ),
        ]
        if obj.state == Definition.State.ACTIVE and self.policy_allows(request, "call", obj):
            panels.append(
                Panel(
                    "playground",
                    "Playground",
                    "console/panels/playground.html",
                    playground.panel(obj, settings.SWITCHYARD.public_url),
                    15,
                )
            )
        return panels

    def consequences(self, request: HttpRequest, verb: str, obj: Any) -> list[str]:
        """Say for whom it changes something."""
        callers = sum(1 for use in who_may_use(obj, refused=True) if use.rule == "review" or use.allowed)
        said = look_of(obj.effective_effects.value).word.lower()
        if verb == "approve":
            return [
                f"{plural(callers, 'user, role or key', 'users, roles and keys')} with a grant that covers it see it within a second. Risk: {said}."
            ]
        if verb == "reject":
            return [f"It concerns {plural(callers, 'user, role or key', 'users, roles and keys')} with a grant that covers it."]
        return []

    def decorate(self, request: HttpRequest, rows: list[Any]) -> None:
        """Add the day's figures and the grants that reach each tool: five queries for a page."""
        today = figures.by_tool()
        reach = _Reach({row.server_id for row in rows}, {row.tenant_id for row in rows})
        for row in rows:
            row.today = today.get((str(row.tenant_id), row.server.slug, row.name))
            row.granted = reach.of(row)

    @display(description="May call")
    def shown_access(self, obj: Any) -> SafeString:
        """Show how many grants reach it."""
        words = plural(obj.granted, "grant") if obj.granted else "superusers alone"
        return format_html('<span class="sy-card-hide sy-nowrap{}">{}</span>', "" if obj.granted else " sy-quiet", words)

    @display(description="Calls, 24 h")
    def shown_calls(self, obj: Any) -> SafeString:
        """Show the calls of a day."""
        return format_html('<span class="sy-num sy-card-hide">{}</span>', compact(obj.today.calls if obj.today else 0))

    @display(description="Failed")
    def shown_failures(self, obj: Any) -> SafeString:
        """Show the share that failed."""
        if obj.today is None or not obj.today.calls:
            return format_html('<span class="sy-num sy-quiet sy-card-hide">–</span>')
        bad = obj.today.errors + obj.today.unknown
        return format_html(
            '<span class="sy-num sy-card-hide" title="{}">{}</span>', plural(bad, "call"), share(bad, obj.today.calls)
        )


class _Reach:
    """Which allowing grants reach the tools of some servers."""

    def __init__(self, servers: set[Any], tenants: set[Any]) -> None:
        rows = Grant.objects.filter(effect="allow", tenant_id__in=tenants).order_by()
        self._servers = dict(rows.filter(server_id__in=servers).values_list("server_id").annotate(n=Count("pk")))
        own = rows.filter(toolset__server_id__in=servers).values_list("toolset__server_id").annotate(n=Count("pk"))
        self._own = dict(own)
        self._patterns = list(rows.filter(kind="tool").values_list("tenant_id", "pattern").annotate(n=Count("pk")))
        per_toolset = dict(
            rows.filter(toolset__server__isnull=True, kind="toolset").values_list("toolset_id").annotate(n=Count("pk"))
        )
        self._entries: dict[Any, list[tuple[str, int]]] = defaultdict(list)
        chosen = ToolsetEntry.objects.filter(
            server_id__in=servers, kind__in=("all", "tool"), toolset_id__in=list(per_toolset)
        ).order_by()
        for server_id, toolset_id, pattern in chosen.values_list("server_id", "toolset_id", "pattern"):
            self._entries[server_id].append((pattern, per_toolset[toolset_id]))

    def of(self, tool: Any) -> int:
        """Count the grants that reach a tool."""
        name = full_name(tool.server.slug, tool.name)
        found = self._servers.get(tool.server_id, 0) + self._own.get(tool.server_id, 0)
        found += sum(
            number for tenant_id, pattern, number in self._patterns if tenant_id == tool.tenant_id and matches(pattern, name)
        )
        return int(
            found + sum(number for pattern, number in self._entries.get(tool.server_id, ()) if matches(pattern, tool.name))
        )
