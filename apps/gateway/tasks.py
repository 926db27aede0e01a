"""What the workers do for the gateway."""

from apps.common.tasks import system_task


@system_task(name="gateway.forget_clients")
def forget_clients_task() -> int:
    """Forget clients that have not been seen for long. Meant to run once a day; returns how many."""
    from apps.gateway.services.clients import forget_clients

    return forget_clients()


@system_task(name="gateway.prune_recordings")
def prune_recordings_task() -> int:
    """Delete recordings of messages that ended a day ago. Meant to run every ten minutes; returns how many."""
    from apps.gateway.services.recordings import prune_recordings

    return prune_recordings()
