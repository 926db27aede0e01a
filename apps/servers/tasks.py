"""Periodic work of the registry."""

from apps.common.tasks import system_task


@system_task(name="servers.remove_stale_processes")
def remove_stale_processes() -> int:
    """Remove the rows of stdio processes whose data plane died; the schedule runs it every minute."""
    from apps.servers.services.processes import remove_stale_processes as remove

    return remove()
