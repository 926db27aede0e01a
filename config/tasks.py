"""Tasks of the composition root, found by Celery's autodiscovery."""

from config.console.tasks import verify_log_task

__all__ = ("verify_log_task",)
