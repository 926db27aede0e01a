"""How tasks of the control plane run, and the housekeeping of the common tables."""

import functools
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from celery import current_task, shared_task

from apps.common.clock import monotonic, now
from apps.common.context import Actor, every_tenant
from apps.common.queue.task import REQUEST_ID
from apps.common.telemetry import correlated

log = logging.getLogger(__name__)

OUTBOX_KEPT = timedelta(hours=24)
IDEMPOTENCY_KEPT = timedelta(hours=24)
SLOW_SECONDS = 300.0


def system_task(
    *, name: str, idempotent: bool = True, slow_seconds: float = SLOW_SECONDS, **options: Any
) -> Callable[[Callable[..., Any]], Any]:
    """Make a Celery task that the system carries out for every tenant.

    The body runs in `every_tenant()` with the system as actor, under the id of the request that enqueued it, so that its lines
    in the logs and the audit log can be found together. An `idempotent` task is acknowledged after it ran, so `kill -9` makes
    it run again; another one is acknowledged before, so it may be lost but never runs twice. Threads cannot be interrupted: a
    task keeps its own time limits; one that takes longer than `slow_seconds` is told of in the log.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            request_id = _request_id()
            started = monotonic()
            actor = Actor(kind="system", id="system", label="system", is_superuser=True, origin="task", request_id=request_id)
            with correlated(request_id=request_id, task=name), every_tenant(actor):
                try:
                    result = function(*args, **kwargs)
                except Exception:
                    log.exception("The task %s failed.", name)
                    raise
                took = monotonic() - started
                if took > slow_seconds:
                    log.warning("The task %s took %.0f s.", name, took)
                else:
                    log.debug("The task %s took %.3f s.", name, took)
                return result

        return shared_task(name=name, acks_late=idempotent, ignore_result=True, **options)(run)

    return decorate


def _request_id() -> str:
    request = getattr(current_task, "request", None)
    if request is None:
        return ""
    headers = getattr(request, "headers", None) or {}
    return str(headers.get(REQUEST_ID) or getattr(request, REQUEST_ID, None) or getattr(request, "id", None) or "")


@system_task(name="common.prune_outbox")
def prune_outbox() -> int:
    """Delete outbox rows older than 24 hours that every durable reader is done with. Returns how many."""
    from apps.common.outbox_pruning import prune_outbox as prune

    return prune(now() - OUTBOX_KEPT)


@system_task(name="common.prune_idempotency_keys")
def prune_idempotency_keys() -> int:
    """Delete answers kept for `Idempotency-Key` for longer than 24 hours. Returns how many."""
    from apps.common.idempotency import prune_idempotency_keys as prune

    return prune(now() - IDEMPOTENCY_KEPT)
