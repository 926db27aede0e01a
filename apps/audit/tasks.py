"""What the workers do for the log."""

from apps.common.tasks import system_task


@system_task(name="audit.roll_up")
def roll_up_task() -> int:
    """Bring the roll-ups up to date and remove old minutes and hours. Meant to run every 5 s; returns the rows looked at."""
    from apps.audit.services.rollups import prune, roll_up_all

    seen = roll_up_all()
    prune()
    return seen


@system_task(name="audit.sweep")
def sweep_task() -> int:
    """Close the open calls of writers whose process is gone. Meant to run every minute; returns how many were closed."""
    from apps.audit.runtime import sink_config_from_settings
    from apps.audit.sink.sweep import sweep_dead_writers

    return sweep_dead_writers(sink_config_from_settings())


@system_task(name="audit.retain")
def retain_task() -> int:
    """Let payloads go that have reached their age. Meant to run every minute; returns how many went."""
    from apps.audit.services.retention import retain

    return retain()[0]
