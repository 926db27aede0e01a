"""Periodic work of the registry."""

from apps.common.tasks import system_task


@system_task(name="servers.remove_stale_processes")
def remove_stale_processes() -> int:
    """Remove the rows of stdio processes whose data plane died; the schedule runs it every minute."""
    from apps.servers.services.processes import remove_stale_processes as remove

    return remove()


@system_task(name="servers.refresh_connections", idempotent=False)
def refresh_connections() -> int:
    """Refresh the tokens of OAuth connections ahead of their end; the schedule runs it every 5 s."""
    from apps.servers.services.oauth.refreshing import refresh_due

    return refresh_due()


@system_task(name="servers.forget_authorizations")
def forget_authorizations() -> int:
    """Delete authorizations that were begun and not ended a day ago; the schedule runs it every hour."""
    from apps.servers.services.oauth.connecting import forget_pending

    return forget_pending()
