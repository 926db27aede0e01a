"""The processes that run for stdio servers: listed and killed, never edited."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.enums import ActionVariant

from apps.common.admin import Ask, ConsoleAdmin, verb
from apps.common.admin.base import site_url
from apps.common.admin.format import ago, count, plural, size
from apps.common.admin.panels import Link
from apps.common.admin.states import state_badge
from apps.common.context import tenant_scope
from apps.servers import selectors
from apps.servers.models import UpstreamProcess
from apps.servers.services.processes import kill_process

STALE = timedelta(minutes=2)
"""A process that its data plane has not reported for so long is shown as not seen lately."""


def process_state(process: UpstreamProcess) -> str:
    """Return `running` or `stale`."""
    return "stale" if timezone.now() - process.seen_at > STALE else "running"


def ask_kill(self: Any, request: HttpRequest, process: UpstreamProcess) -> Ask:
    """Say what killing a process breaks."""
    slug = process.endpoint.server.slug
    return Ask(
        title=f"Kill the process of {slug} (pid {process.pid})?",
        consequence=[
            f"{plural(process.in_flight, 'call is', 'calls are')} in flight in it and will fail; whether they took effect is not known.",
            "The next call starts a new process.",
        ],
        submit="Kill process",
        danger=True,
    )


@admin.register(UpstreamProcess)
class ProcessAdmin(ConsoleAdmin):
    """Processes of stdio servers."""

    kind = "process"
    list_words = "processes"
    list_display = (
        "shown_server",
        "shown_state",
        "shown_pid",
        "shown_started",
        "shown_in_flight",
        "shown_calls",
        "shown_memory",
        "restarts",
    )
    list_display_links = ("shown_server",)
    search_fields = ("worker", "endpoint__server__slug")
    intro = "Programs that Switchyard started for stdio servers. They end by themselves when idle."
    empty_title = "No process is running"
    empty_text = "A process starts with the first call to a stdio server and ends when it has been idle for a while."
    actions_detail = ("kill",)
    actions_row = ("kill",)
    show_add_link = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[UpstreamProcess]:
        """Return the processes of the servers in view."""
        return selectors.processes().order_by("-started_at")

    def tenant_of(self, obj: Any) -> Any:
        """Return the tenant of the process's server."""
        return obj.endpoint.tenant_id if isinstance(obj, UpstreamProcess) else super().tenant_of(None)

    @contextmanager
    def writing(self, request: HttpRequest, obj: Any = None) -> Iterator[None]:
        """Work in the tenant of the process's server."""
        with tenant_scope(obj.endpoint.tenant_id):
            yield

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody makes a process by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits a process."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A process is killed, not deleted."""
        return False

    def shows_form(self, request: HttpRequest, obj: Any) -> bool:
        """There is nothing to configure."""
        return False

    def header(self, request: HttpRequest, obj: UpstreamProcess) -> dict[str, Any]:
        """Return what is known of a process."""
        return {
            "title": f"Process {obj.pid} of {obj.endpoint.server.slug}",
            "badges": [state_badge(process_state(obj))],
            "lead": str(obj.endpoint),
            "facts": [
                ("run by", obj.worker),
                ("started", ago(obj.started_at)),
                ("last seen", ago(obj.seen_at)),
                ("in flight", count(obj.in_flight)),
                ("calls", count(obj.calls)),
                ("memory", size(obj.memory_bytes)),
                ("restarts", count(obj.restarts)),
            ],
        }

    def links(self, request: HttpRequest, obj: UpstreamProcess) -> list[Link]:
        """Lead to the server."""
        return [Link("Open server", site_url("servers_server_change", obj.endpoint.server_id), "dns")]

    @verb(description="Kill process", ask=ask_kill, icon="dangerous", variant=ActionVariant.DANGER)
    def kill(self, request: HttpRequest, obj: UpstreamProcess, form: Any) -> str:
        """Order its data plane to kill it."""
        kill_process(obj)
        return f"Killing process {obj.pid} of {obj.endpoint.server.slug}."

    @display(description="Server")
    def shown_server(self, obj: UpstreamProcess) -> SafeString:
        """Name the server and the command."""
        return format_html(
            '<span class="sy-name"><span class="sy-name-first">{}</span><span class="sy-name-line">{}</span></span>',
            obj.endpoint.server.slug,
            obj.endpoint,
        )

    @display(description="State")
    def shown_state(self, obj: UpstreamProcess) -> SafeString:
        """Show whether it was seen lately."""
        return state_badge(process_state(obj), title=f"Reported by {obj.worker}")

    @display(description="pid", ordering="pid")
    def shown_pid(self, obj: UpstreamProcess) -> SafeString:
        """Show its number and where it runs."""
        return format_html('<span class="sy-mono" title="{}">{}</span>', obj.worker, obj.pid)

    @display(description="Started", ordering="started_at")
    def shown_started(self, obj: UpstreamProcess) -> SafeString | str:
        """Show since when it runs."""
        return ago(obj.started_at)

    @display(description="In flight", ordering="in_flight")
    def shown_in_flight(self, obj: UpstreamProcess) -> str:
        """Show calls that run in it now."""
        return count(obj.in_flight)

    @display(description="Calls", ordering="calls")
    def shown_calls(self, obj: UpstreamProcess) -> str:
        """Show calls so far."""
        return count(obj.calls)

    @display(description="Memory", ordering="memory_bytes")
    def shown_memory(self, obj: UpstreamProcess) -> str:
        """Show its resident memory."""
        return size(obj.memory_bytes)
