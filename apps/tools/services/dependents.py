"""What follows in the catalogue when something below it changes or goes: toolsets of servers, grants of subjects."""

from typing import Any

from django.db.models.signals import post_delete

from apps.common.hooks_in_transaction import on
from apps.common.outbox import changed, unit_of_work
from apps.tools.models import Grant, Toolset, ToolsetEntry
from apps.tools.services.grants import revoke_grants_on_server
from apps.tools.services.toolsets import add_own_toolset, follow_server_name
from apps.tools.tasks import discover_later


def connect() -> None:
    """Subscribe to the registry's notices and to the going of rows; called once, at start-up."""
    on("server.registered", server_registered)
    on("server.updated", server_updated)
    on("server.connection_changed", server_connection_changed)
    on("server.resumed", server_connection_changed)
    on("server.deleting", server_deleting)
    post_delete.connect(_gone, sender=Grant, dispatch_uid="tools.grant")
    post_delete.connect(_gone, sender=Toolset, dispatch_uid="tools.toolset")
    post_delete.connect(_gone, sender=ToolsetEntry, dispatch_uid="tools.entry")


def server_registered(server: Any) -> None:
    """Give a new server its own toolset and have it discovered. Raises Conflict when a toolset has the slug."""
    add_own_toolset(server)
    discover_later(server.pk)


def server_updated(server: Any, fields: list[str]) -> None:
    """Let the server's own toolset follow its name."""
    if "name" in fields:
        follow_server_name(server)


def server_connection_changed(server: Any) -> None:
    """Have a server discovered that may have become another one, or may be asked again."""
    if server.paused_at is None:
        discover_later(server.pk)


def server_deleting(server: Any) -> None:
    """Take back the grants that go with the server."""
    revoke_grants_on_server(server)


def _gone(sender: type, instance: Any, origin: Any = None, **_: Any) -> None:
    """Tell the data planes what a deletion took with it, whichever row it began at."""
    if sender is ToolsetEntry and getattr(origin, "model", type(origin)) in (Toolset, ToolsetEntry):
        return  # the toolset itself is deleted or updated, and says so
    with unit_of_work():
        if sender is Grant:
            changed("grants", instance.subject, tenant_id=instance.tenant_id)
        else:
            toolset_id = instance.pk if sender is Toolset else instance.toolset_id
            changed("toolset", toolset_id, tenant_id=instance.tenant_id)
