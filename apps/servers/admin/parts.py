"""Filters, questions and panels of the servers' pages."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.common.admin import Ask
from apps.common.admin.base import model_url
from apps.common.admin.format import plural
from apps.common.admin.states import look_of
from apps.servers import selectors
from apps.servers.admin.process import process_state
from apps.servers.domain import LEGACY_REVISIONS, MODERN_REVISIONS
from apps.servers.models import Server
from apps.servers.querysets import CAPABILITIES

ATTENTION = ("unhealthy", "unauthenticated", "degraded", "unknown", "healthy", "paused")
"""States in the order in which a list shows them."""


class StateFilter(admin.SimpleListFilter):
    """Servers by their state."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the states."""
        return [(state, look_of(state).word) for state in ATTENTION]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the servers in a state; the rows carry it already."""
        return queryset.filter(state=self.value()) if self.value() in ATTENTION else queryset


class CapabilityFilter(admin.SimpleListFilter):
    """Servers by what they declared at their last discovery."""

    title = "capability"
    parameter_name = "capability"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the capabilities."""
        return [(name, name.capitalize()) for name in CAPABILITIES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the servers that declared it."""
        return queryset.filter(capabilities__has_key=self.value()) if self.value() in CAPABILITIES else queryset


def ask(name: str, title: str, submit: str, *, danger: bool = False) -> Any:
    """Make the question of a verb: the object's name in the title, the consequences in numbers."""

    def asker(self: Any, request: HttpRequest, obj: Any) -> Ask:
        return Ask(title=title.format(obj), submit=submit, consequence=self.consequences(request, name, obj), danger=danger)

    return asker


def ask_bulk(name: str, title: str, submit: str, *, danger: bool = False) -> Any:
    """Make the question of a verb on several rows."""

    def asker(self: Any, request: HttpRequest, rows: list[Any]) -> Ask:
        said = [f"{row}: {' '.join(self.consequences(request, name, row))}" for row in rows[:20]]
        return Ask(title=title.format(plural(len(rows), "server")), submit=submit, consequence=said, danger=danger)

    return asker


def ask_credential(self: Any, request: HttpRequest, obj: Server) -> Ask:
    """Say what a new value does."""
    name = request.GET.get("name") or request.POST.get("name")
    what = "environment variable" if obj.transport == Server.Transport.STDIO else "header"
    title = f"Replace {name} of {obj.slug}" if request.GET.get("name") else f"Add a {what} to {obj.slug}"
    return Ask(title=title, submit="Store", consequence=["Open connections are closed and opened again with the new value."])


def ask_forget_credential(self: Any, request: HttpRequest, obj: Server) -> Ask:
    """Say what is lost."""
    name = request.GET.get("name") or request.POST.get("name")
    return Ask(
        title=f"Delete {name} of {obj.slug}?",
        submit="Delete credential",
        consequence=["Its value cannot be brought back. The server may refuse calls without it."],
        danger=True,
    )


def state_title(obj: Any, endpoints: list[Any]) -> str:
    """Say since when a server is in its state, and why."""
    if obj.paused_at:
        return f"Paused by an operator since {obj.paused_at:%Y-%m-%d %H:%M} UTC"
    for place in endpoints:
        if place.state == obj.state and place.state_since:
            reason = f": {place.state_reason}" if place.state_reason else ""
            return f"Since {place.state_since:%Y-%m-%d %H:%M} UTC{reason}"
    return "Not called or tested yet"


def endpoints_context(obj: Any, may_kill: bool) -> dict[str, Any]:
    """Return a server's endpoints, each with its processes."""
    processes: dict[Any, list[dict[str, Any]]] = {}
    for process in selectors.processes().filter(endpoint__server=obj).order_by("-started_at")[:50]:
        processes.setdefault(process.endpoint_id, []).append({
            "row": process, "state": process_state(process), "kill": model_url(type(process), "kill", process.pk) if may_kill else "",
        })  # fmt: skip
    return {
        "endpoints": [{"row": place, "processes": processes.get(place.pk, [])} for place in obj.endpoints.all()],
        "stdio": obj.transport == Server.Transport.STDIO,
    }


def compatibility_context(obj: Any, endpoints: list[Any], clients: Sequence[str]) -> dict[str, Any]:
    """Return what the server was found to speak, and, for each revision in which the gateway serves clients, who translates."""
    spoken = set(obj.revisions)
    eras = {place.era for place in endpoints if place.era}
    rows = [
        {
            "revision": revision,
            "era": "stateless" if revision in MODERN_REVISIONS else "with sessions",
            "spoken": revision in spoken,
        }
        for revision in clients
    ]
    return {
        "rows": rows,
        "clients": f"{', '.join(clients[:-1])} or {clients[-1]}" if len(clients) > 1 else "".join(clients),
        "known": bool(spoken),
        "spoken": [revision for revision in (*MODERN_REVISIONS, *LEGACY_REVISIONS) if revision in spoken],
        "others": sorted(spoken - set(MODERN_REVISIONS) - set(LEGACY_REVISIONS)),
        "eras": ", ".join(sorted(eras)),
        "capabilities": sorted(obj.capabilities),
        "info": obj.server_info,
    }
