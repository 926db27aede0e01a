"""Celery tasks of the catalogue."""

from uuid import UUID

from apps.common.tasks import system_task


@system_task(name="tools.discover_server")
def discover_server_task(server_id: str) -> None:
    """Discover one server, as the system. Repeating it does no harm; a server that is gone, paused or being discovered is left alone."""
    from apps.common.errors import Conflict, NotFound, Paused
    from apps.tools.services.discovery import discover_server

    try:
        discover_server(UUID(str(server_id)))
    except (NotFound, Paused, Conflict):
        return


@system_task(name="tools.take_up_discoveries")
def take_up_discoveries_task() -> int:
    """Enqueue again what processes were discovering that are gone. Returns how many servers."""
    from apps.tools.services.discovery import take_up_discoveries

    return take_up_discoveries()


@system_task(name="tools.discover_due")
def discover_due_task() -> int:
    """Enqueue the discovery of servers that failed, or were not asked for long; the schedule runs it. Returns how many servers."""
    from apps.tools.services.again import discover_due

    return discover_due()


def discover_later(server_id: object) -> None:
    """Enqueue the discovery of a server; it is enqueued with the transaction in progress, or not at all."""
    discover_server_task.delay(str(server_id))
