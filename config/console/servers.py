"""Servers with what stands above them: their tools, who uses them, discovery, how to connect, what happened."""

from typing import Any

from django.conf import settings
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.enums import ActionVariant

from apps.accounts.models import APIKey
from apps.audit.admin.history import history_panel
from apps.common.admin import Ask, Shown, bulk_verb, verb, view_link
from apps.common.admin.base import model_url
from apps.common.admin.format import count, microseconds, plural
from apps.common.admin.panels import Link, Panel
from apps.common.errors import SwitchyardError
from apps.gateway.plane.mcp.revisions import LEGACY, MODERN
from apps.servers.admin import ServerAdmin
from apps.servers.admin.connecting import CONNECTING
from apps.servers.admin.parts import ask, ask_bulk
from apps.servers.models import Server
from apps.tools.admin.definition import risk_badge
from apps.tools.models import CATALOGUE, Grant, Instructions, Tool, ToolsetEntry
from apps.tools.selectors import last_discovery
from apps.tools.services.discovery import discover_server
from apps.tools.services.review import approve_all
from config.console import compatibility, figures, inspector, transfer
from config.console.snippets import client_snippets, endpoint

TOOLS_SHOWN = 100


def ask_approve_all(self: Any, request: HttpRequest, obj: Server) -> Ask:
    """Say how many, and what is left for one's own eyes."""
    held = self.held_of(obj)
    flagged = sum(1 for row in held if any(flag.get("holds") for flag in row.flags))
    said = [
        f"{plural(len(held) - flagged, 'definition')} of {obj.slug} {'is' if len(held) - flagged == 1 else 'are'} put in force: {', '.join(str(row) for row in held[:12])}{' …' if len(held) > 12 else ''}."
    ]
    if flagged:
        said.append(
            f"{plural(flagged, 'definition')} with suspicious characters or references {'stays' if flagged == 1 else 'stay'} held; look at them one by one."
        )
    return Ask(
        title=f"Approve everything of {obj.slug}?", submit=f"Approve {plural(len(held) - flagged, 'change')}", consequence=said
    )


def ask_export(self: Any, request: HttpRequest, obj: Any) -> Ask:
    """Say what the file holds."""
    return Ask(
        title="Export servers",
        submit="Export",
        consequence=[
            "Makes the mcpServers JSON that other clients read. Secrets are never in it: each stands as ${NAME}. The export is recorded."
        ],
    )


class ConsoleServerAdmin(ServerAdmin):
    """The servers' pages, complete."""

    client_revisions = (MODERN, *LEGACY)
    list_display = ("shown_name", "shown_state", "shown_tools", "shown_revisions", "shown_calls", "shown_p95", "shown_seen")
    actions = ("discover_chosen", "pause_chosen", "resume_chosen", "delete_chosen")
    actions_list = ("import_servers", "export_servers")
    actions_detail = (
        "test",
        "discover",
        "pause",
        "resume",
        {
            "title": "More",
            "icon": "more_horiz",
            "items": [
                "approve_everything",
                "clone",
                "set_credential",
                "remove_credential",
                *CONNECTING,
                "inspect",
                "delete_it",
            ],
        },
    )

    # --- what stands above ------------------------------------------------------------------------------------------------
    def held_of(self, obj: Any) -> list[Any]:
        """Return everything of a server that waits for review."""
        rows: list[Any] = []
        for model in (*CATALOGUE, Instructions):
            rows += model.objects.filter(server=obj, state="held").order_by("position")  # type: ignore[attr-defined]
        return rows

    def consequences(self, request: HttpRequest, verb: str, obj: Any) -> list[str]:
        """Say, in numbers, what a verb does to tools, toolsets, keys and calls in flight."""
        tools = Tool.objects.filter(server=obj, state="active").count()
        keys = keys_that_may_use(obj)
        flying = figures.in_flight(obj)
        calls = f"{plural(flying, 'call is', 'calls are')} in flight"
        if verb == "pause":
            return [
                f"Pausing {obj.slug} stops {plural(tools, 'tool')} for {plural(keys, 'key')}; {calls} and will finish.",
                "It can be resumed at any time.",
            ]
        if verb == "resume":
            return [f"{plural(tools, 'tool')} of {obj.slug} can be called again by {plural(keys, 'key')}."]
        if verb == "delete":
            toolsets = ToolsetEntry.objects.filter(server=obj).values("toolset").distinct().count()
            grants = Grant.objects.filter(Q(server=obj) | Q(toolset__server=obj)).count()
            return [
                f"Deleting {obj.slug} removes {plural(tools, 'tool')} for {plural(keys, 'key')}; {calls}.",
                f"{plural(grants, 'grant')} and its part in {plural(toolsets, 'toolset')} go with it; /mcp/{obj.slug} answers no more. What it did stays in the audit log.",
                "This cannot be undone.",
            ]
        if verb == "discover":
            return [
                f"Asks {obj.slug} for everything it offers now ({plural(tools, 'tool')} in force) and compares. {_review_words(obj)}"
            ]
        if verb == "test":
            return [f"Connects to {obj.slug}, shakes hands and asks for the first page of tools. No tool is called."]
        if verb == "clone":
            return [f"Registers a copy of {obj.slug} with the same address and the same credentials, sealed anew."]
        return []

    @verb(
        description="Discover",
        ask=ask("discover", "Discover {}?", "Discover now"),
        icon="travel_explore",
        applies=lambda server: not server.paused,
    )
    def discover(self, request: HttpRequest, obj: Server, form: Any) -> Shown:
        """Ask the server what it offers, and bring the catalogue up to date."""
        summary = discover_server(obj)
        return Shown(
            f"Discovery of {obj.slug}",
            "console/parts/discovery.html",
            {"summary": summary, "held_url": f"{model_url(Tool, 'changelist')}?state=held"},
        )

    @verb(
        description="Approve everything held",
        ask=ask_approve_all,
        icon="done_all",
        variant=ActionVariant.PRIMARY,
        applies=lambda server: getattr(server, "held_now", 1) > 0,
    )
    def approve_everything(self, request: HttpRequest, obj: Server, form: Any) -> str:
        """Put everything that waits in force."""
        seen = {str(row.pk): row.pending_digest for row in self.held_of(obj)}
        done, left = approve_all(obj, expected_digests=seen)
        return f"Approved {plural(done, 'definition')} of {obj.slug}" + (f"; {left} left for a closer look." if left else ".")

    @bulk_verb(
        description="Discover servers", done="Discovered", ask=ask_bulk("discover", "Discover {}?", "Discover"), limit=20
    )
    def discover_chosen(self, request: HttpRequest, obj: Server) -> None:
        """Discover each; one that cannot be reached is told as an error."""
        summary = discover_server(obj)
        if summary.error:
            raise SwitchyardError(summary.error)

    @view_link(description="Record messages", icon="troubleshoot", permission="write")
    def inspect(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for how long its messages are to be recorded."""
        return HttpResponseRedirect(inspector.start_url("server", object_id))

    @view_link(description="Import", icon="upload", permission="write", url_path="import-servers")
    def import_servers(self, request: HttpRequest) -> HttpResponse:
        """Open the import page."""
        return HttpResponseRedirect(transfer.import_url())

    @verb(description="Export", ask=ask_export, icon="download")
    def export_servers(self, request: HttpRequest, obj: Any, form: Any) -> Shown:
        """Show the servers in view as mcpServers JSON, with placeholders for secrets."""
        return Shown("Servers as mcpServers JSON", "console/parts/export.html", {"text": transfer.export_text()})

    # --- the page ---------------------------------------------------------------------------------------------------------
    def panels(self, request: HttpRequest, obj: Any) -> list[Panel]:
        """Add now, tools, connection and history."""
        held = self.held_of(obj)
        obj.held_now = len(held)
        tools = Tool.objects.filter(server=obj).exclude(state="removed").select_related("server").order_by("position")
        shown = sorted(tools[:TOOLS_SHOWN], key=lambda tool: tool.state != "held")
        others = {
            model._meta.verbose_name_plural: (
                model.objects.filter(server=obj, state="active").count(),
                f"{model_url(model, 'changelist')}?server={obj.pk}",
            )
            for model in CATALOGUE[1:]
        }
        url = endpoint(settings.SWITCHYARD.public_url, obj.slug)
        may_write = self.has_change_permission(request, obj)
        return [
            Panel("now", "Now", "console/panels/now.html", figures.now_panel(server=obj), 10),
            Panel(
                "tools",
                "Tools",
                "console/panels/tools.html",
                {
                    "tools": [{"row": tool, "risk": risk_badge(tool.effective_effects)} for tool in shown],
                    "total": tools.count(),
                    "held": held,
                    "approve": self.verb_url("approve_everything", obj) if held and may_write else "",
                    "discover": self.verb_url("discover", obj) if may_write and not obj.paused else "",
                    "others": [(name, number, href) for name, (number, href) in others.items() if number],
                    "discovery": last_discovery(obj),
                    "all": f"{model_url(Tool, 'changelist')}?server={obj.pk}",
                },
                20,
                f"{len(held)} held" if held else count(tools.count()),
            ),
            *super().panels(request, obj),
            *compatibility.server_panel(request, obj),
            Panel(
                "connect",
                "Connect",
                "console/panels/connect.html",
                {"url": url, "snippets": client_snippets(url, obj.slug), "box": "connect"},
                55,
            ),
            history_panel("server", obj.pk),
        ]

    def links(self, request: HttpRequest, obj: Any) -> list[Link]:
        """Lead to nothing more: the actions are enough."""
        return []

    def hides_verb(self, request: HttpRequest, name: str, obj: Any) -> bool:
        """Leave out the inspector for those who may not look at messages."""
        if name == "inspect":
            return not inspector.may_start(obj.tenant_id)
        return super().hides_verb(request, name, obj)

    # --- columns ----------------------------------------------------------------------------------------------------------
    def decorate(self, request: HttpRequest, rows: list[Any]) -> None:
        """Count tools and held ones, and add today's figures: three queries for a page."""
        ids = [row.pk for row in rows]
        tools = dict(
            Tool.objects.filter(server_id__in=ids, state="active").order_by().values_list("server_id").annotate(n=Count("pk"))
        )
        held = dict(
            Tool.objects.filter(server_id__in=ids, state="held").order_by().values_list("server_id").annotate(n=Count("pk"))
        )
        today = figures.today_by_server([row.tenant_id for row in rows])
        for row in rows:
            row.tools_now, row.held_now = tools.get(row.pk, 0), held.get(row.pk, 0)
            row.today = today.get((str(row.tenant_id), row.slug))

    @display(description="Tools")
    def shown_tools(self, obj: Any) -> SafeString:
        """Count tools in force, and say how many wait."""
        held = (
            format_html(' <span class="sy-state sy-tone-info" title="Held for review">{} held</span>', obj.held_now)
            if obj.held_now
            else ""
        )
        return format_html('<span class="sy-num">{}</span>{}', count(obj.tools_now), held)

    @display(description="Calls today")
    def shown_calls(self, obj: Any) -> SafeString:
        """Show finished calls since midnight UTC, with errors."""
        if obj.today is None:
            return format_html('<span class="sy-num sy-quiet sy-card-hide">0</span>')
        return format_html(
            '<span class="sy-num sy-card-hide" title="{}">{}</span>', plural(obj.today.errors, "error"), count(obj.today.calls)
        )

    @display(description="p95")
    def shown_p95(self, obj: Any) -> SafeString:
        """Show the 95th percentile of today's durations."""
        value = obj.today.p95_us if obj.today else None
        return format_html('<span class="sy-num sy-card-hide">{}</span>', microseconds(value))


def keys_that_may_use(server: Any) -> int:
    """Count the live keys with a grant that reaches a server: their own, or their owner's where they inherit; superusers' always."""
    reach = (
        Q(kind="server", server=server)
        | Q(kind="toolset", toolset__server=server)
        | Q(kind="toolset", toolset__entries__server=server)
    )
    patterns = Q(kind="tool", pattern__startswith=f"{server.slug}__") | Q(kind="tool", pattern__startswith="*")
    grants = Grant.unscoped.filter(tenant_id=server.tenant_id, effect="allow").filter(reach | patterns)
    live = APIKey.unscoped.filter(tenant_id=server.tenant_id, revoked_at__isnull=True)
    own = Q(pk__in=grants.filter(api_key__isnull=False).values("api_key_id"))
    owners = Q(owner_id__in=grants.filter(user__isnull=False).values("user_id")) | Q(
        owner__memberships__role_id__in=grants.filter(role__isnull=False).values("role_id")
    )
    return live.filter(own | (Q(inherits_owner=True) & (owners | Q(owner__is_superuser=True)))).distinct().count()


def _review_words(obj: Server) -> str:
    return {
        Server.Review.ACCEPT: "What is new or different comes into force at once.",
        Server.Review.HOLD_CHANGED: "New definitions come into force, changed ones are held for your review.",
        Server.Review.HOLD_ALL: "What is new or different is held for your review.",
    }[Server.Review(obj.review)]
