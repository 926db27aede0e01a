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
from apps.tools.admin.review import EFFECT_STATES
from apps.tools.domain import effective_effects, full_name
from apps.tools.models import Definition, Grant, ToolsetEntry
from apps.tools.selectors import Use, who_may_use
from config.console import figures, playground

USES_SHOWN = 60
NAMED = 6
"""Callers that a question names; of more it gives the number alone."""
NOT_CALLED = {"held": "nobody while held", "rejected": "nobody: rejected", "removed": "nobody: not offered"}


class ConsoleToolAdmin(ToolAdmin):
    """The tools' pages, complete."""

    list_display = ("shown_name", "shown_server", "shown_state", "shown_risk", "shown_access", "shown_calls", "shown_failures")

    class Media:
        js = ("console/playground.js",)

    def panels(self, request: HttpRequest, obj: Any) -> list[Panel]:
        """Add the playground, the figures and who may call."""
        panels = super().panels(request, obj)
        waiting = obj.state in (Definition.State.HELD, Definition.State.REJECTED)
        uses = who_may_use(obj, refused=True, once_approved=waiting)
        callers = 0 if waiting else sum(use.allowed for use in uses)
        panels += [
            Panel("now", "Now", "console/panels/now.html", figures.now_panel(server=obj.server, tool=obj), 10),
            Panel(
                "access",
                "Who may call",
                "console/panels/uses.html",
                {
                    "uses": sorted(uses, key=lambda use: (not use.allowed, use.kind, use.label))[:USES_SHOWN],
                    "total": len(uses),
                    "waiting": obj.get_state_display().lower() if waiting else "",
                    "paused": obj.server.slug if obj.server.paused else "",
                },
                35,
                count(callers),
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
        paused = [f"{obj.server.slug} is paused: nobody can call it before that is resumed."] if obj.server.paused else []
        if verb == "approve":
            who = callers_in_words(who_may_use(obj, once_approved=True))
            reach = f"{who} may call it within a second." if who else "Nobody may call it even then: nobody's grants reach it."
            return [reach, *paused, effects_in_words(obj)]
        if verb == "reject" and obj.state == Definition.State.ACTIVE:
            who = callers_in_words(who_may_use(obj))
            return [f"{who} may call it now and may not any more." if who else "Nobody may call it now either.", *paused]
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
        """Show how many allowing grants reach it; what is not in force nobody may call."""
        why = NOT_CALLED.get(obj.state) or ("nobody while paused" if obj.server.paused else "")
        words = why or (plural(obj.granted, "grant") if obj.granted else "superusers alone")
        return format_html(
            '<span class="sy-card-hide sy-nowrap{}" title="{}">{}</span>',
            " sy-quiet" if why or not obj.granted else "",
            "" if why else "Allowing grants that reach it, and superusers; its page names who may call, denials counted",
            words,
        )

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


def callers_in_words(uses: list[Use]) -> str:
    """Count the users and keys among those who may call; few are named. Roles call through their members, so they are not counted."""
    users = [use.label for use in uses if use.kind == "user"]
    keys = [use.label for use in uses if use.kind == "api_key"]
    parts = [plural(len(users), "user")] * bool(users) + [plural(len(keys), "API key")] * bool(keys)
    named = f" ({', '.join([*users, *keys])})" if 0 < len(users) + len(keys) <= NAMED else ""
    return " and ".join(parts) + named


def effects_in_words(obj: Any) -> str:
    """Say what a call may do once the definition that waits is in force, and whose word that is."""
    said = effective_effects(obj.pending, obj.effects, trust_annotations=obj.server.trust_annotations, operator=obj.effects_by)
    word = look_of(EFFECT_STATES.get(said.value, said.value)).word
    return f"{word}. {said.reason}" + ("" if said.said_by != "nobody" else " A call counts as having effects.")


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
