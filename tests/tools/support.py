"""Helpers of the catalogue's tests: servers, what they offer, and what the outbox says."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apps.common.context import SYSTEM, Actor, tenant_scope
from apps.common.models import OutboxEvent
from apps.common.outbox import unit_of_work
from apps.servers.domain import Discovered
from apps.servers.services.registry import register_server
from apps.tools.services.discovery import DiscoverySummary, apply_found
from tests.factories import unique

PROGRAMS = Path(__file__).parent / "programs"


def tool(name: str, description: str = "", **members: Any) -> dict[str, Any]:
    """A tool's definition."""
    described = {"description": description} if description else {}
    return {"name": name, **described, "inputSchema": {"type": "object", "properties": {}}, **members}


def resource(uri: str, **members: Any) -> dict[str, Any]:
    """A resource's definition."""
    return {"uri": uri, "name": uri.rsplit("/", 1)[-1] or "resource", **members}


def template(uri: str, **members: Any) -> dict[str, Any]:
    """A resource template's definition."""
    return {"uriTemplate": uri, "name": "template", **members}


def prompt(name: str, **members: Any) -> dict[str, Any]:
    """A prompt's definition."""
    return {"name": name, **members}


def found(*tools: dict[str, Any], **lists: Any) -> Discovered:
    """What a server said."""
    return Discovered(
        era="modern",
        revisions=("2026-07-28",),
        server_info={"name": "x"},
        capabilities={"tools": {}},
        tools=list(tools),
        **lists,
    )


def make_server(tenant, slug: str | None = None, *, actor: Actor = SYSTEM, **fields):
    """Register a stdio server, as the system; it is not started."""
    with tenant_scope(tenant.pk, actor):
        return register_server(
            slug=slug or unique("server"), transport="stdio", command=sys.executable, args=["-c", "pass"], **fields
        )


def offer(server, *tools: dict[str, Any], **lists: Any) -> DiscoverySummary:
    """Let the catalogue see that a server offers this now."""
    server.refresh_from_db()
    with tenant_scope(server.tenant_id, SYSTEM), unit_of_work():
        return apply_found(server, found(*tools, **lists))[0]


class Notices(list):
    """Outbox rows written in a block."""

    def changed(self) -> set[tuple[str, str]]:
        """(kind, id) of what data planes were told of."""
        return {(row.payload["kind"], row.payload["id"]) for row in self if row.topic == "changed"}

    def events(self, event_type: str | None = None) -> list[dict[str, Any]]:
        """Control-plane events."""
        rows = [row.payload for row in self if row.topic == "audit"]
        return [row for row in rows if event_type in (None, row["event_type"])]


@contextmanager
def outbox():
    """Collect what the block writes to the outbox."""
    last = OutboxEvent.objects.order_by("-id").values_list("id", flat=True).first() or 0
    notices = Notices()
    yield notices
    notices.extend(OutboxEvent.objects.filter(id__gt=last))
