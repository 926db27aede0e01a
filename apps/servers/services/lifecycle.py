"""Pausing, resuming and deleting servers, one or many."""

from collections.abc import Iterable

from apps.common.clock import now
from apps.common.errors import Conflict
from apps.common.hooks_in_transaction import emit
from apps.common.outbox import unit_of_work
from apps.servers.models import Server
from apps.servers.services import admission
from apps.servers.services.description import describe, loggable, record


def pause_server(server: Server) -> Server:
    """Stop every use of a server until it is resumed; pausing a paused one changes nothing. Raises NotFound, PermissionDenied."""
    return _set_paused(server, paused=True)


def resume_server(server: Server) -> Server:
    """Allow the use of a paused server again. Raises NotFound, PermissionDenied."""
    return _set_paused(server, paused=False)


def pause_servers(servers: Iterable[Server]) -> list[Server]:
    """Pause several, all or none."""
    with unit_of_work():
        return [pause_server(server) for server in servers]


def resume_servers(servers: Iterable[Server]) -> list[Server]:
    """Resume several, all or none."""
    with unit_of_work():
        return [resume_server(server) for server in servers]


def delete_server(server: Server) -> None:
    """Delete a server with its endpoints, credentials, definitions and its own toolset.

    Raises NotFound, PermissionDenied, and Conflict for a built-in one.
    """
    with unit_of_work():
        row, endpoint = admission.find(server, action="server.delete", lock=True)
        if row.builtin and not admission.is_product():
            raise Conflict("A built-in server is registered again at the next start: pause it instead.")
        emit("server.deleting", server=row)
        record(row, "server.deleted", {"before": loggable(describe(row, endpoint))}, action="server.delete")
        row.delete()


def delete_servers(servers: Iterable[Server]) -> None:
    """Delete several, all or none."""
    with unit_of_work():
        for server in servers:
            delete_server(server)


def _set_paused(server: Server, *, paused: bool) -> Server:
    with unit_of_work():
        row, _ = admission.find(server, lock=True)
        if row.paused is paused:
            return row
        row.paused_at = now() if paused else None
        row.save(update_fields=["paused_at", "updated_at"])
        event = "server.paused" if paused else "server.resumed"
        emit(event, server=row)
        record(row, event)
    return row
