"""The Celery application. Tasks are found in each app's `tasks.py`; settings are Django's `CELERY_*`."""

from celery import Celery

import apps.common.queue  # noqa: F401 - makes the scheme of the database broker known

app = Celery("switchyard", task_cls="apps.common.queue.task:QueueTask")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
