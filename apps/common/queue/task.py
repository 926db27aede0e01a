"""The base class of Switchyard's tasks: enqueueing belongs to the transaction of whoever enqueues."""

from typing import Any

from celery import Task
from celery.utils import gen_unique_id
from django.db import connections, transaction

from apps.common.queue import SCHEME
from apps.common.queue.connection import ALIAS
from apps.common.telemetry import current_request_id

REQUEST_ID = "switchyard_request_id"
"""Header that carries the id of the request which enqueued the task."""


class QueueTask(Task):
    """A task whose message is written in the open transaction or, with an outside broker, sent when that commits."""

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> Any:
        """Enqueue the task (see Celery). Nothing is enqueued when the transaction in progress is rolled back."""
        if request_id := current_request_id():
            options["headers"] = {REQUEST_ID: request_id, **(options.get("headers") or {})}
        task_id = task_id or gen_unique_id()
        send = super().apply_async

        def enqueue() -> Any:
            return send(args, kwargs, task_id, producer, link, link_error, shadow, **options)

        outside = not self.app.conf.task_always_eager and not str(self.app.conf.broker_url or "").startswith(SCHEME)
        if outside and connections[ALIAS].in_atomic_block:
            transaction.on_commit(enqueue, using=ALIAS)
            return self.AsyncResult(task_id)
        return enqueue()
