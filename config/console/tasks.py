"""What the console has done in the background."""

from typing import Any

from celery import shared_task
from django.core.cache import cache

from apps.common.context import Actor, every_tenant
from apps.common.errors import SwitchyardError

PROGRESS = "console-audit-verification"
KEPT_SECONDS = 3600


def progress_of_verification() -> dict[str, Any] | None:
    """Return what is known of the verification that runs or ran last: `state` (waiting, running, done, failed), `rows`, `total`."""
    found: dict[str, Any] | None = cache.get(PROGRESS)
    return found


def note_progress(**facts: Any) -> None:
    """Remember how far the verification is, for the page that waits for it."""
    cache.set(PROGRESS, facts, KEPT_SECONDS)


@shared_task(name="console.verify_audit_log", ignore_result=True)
def verify_log_task(actor: dict[str, Any], checkpoints: list[str] | None = None) -> None:
    """Verify the audit log as the person who asked; reading alone, so repeating it does no harm."""
    from apps.audit.services.verify import verify_log

    with every_tenant(Actor(**actor)):
        try:
            report = verify_log(
                progress=lambda rows, total: note_progress(state="running", rows=rows, total=total), checkpoints=checkpoints
            )
        except SwitchyardError as error:
            note_progress(state="failed", detail=error.detail)
            return
    note_progress(state="done", ok=report.ok, rows=report.rows, total=report.rows)
