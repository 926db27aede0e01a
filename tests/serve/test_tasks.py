"""How tasks run: their scope, their ids, their place in a transaction."""

import logging

import pytest
import redis
from celery import Celery
from django.conf import settings
from django.db import transaction

from apps.common.context import current_actor, current_scope
from apps.common.models import QueueMessage
from apps.common.queue.task import REQUEST_ID
from apps.common.tasks import system_task
from apps.common.telemetry import correlated, current_request_id
from config.celery import app

seen: list[object] = []


@system_task(name="tests.look")
def look() -> None:
    """Note what a task sees."""
    seen.append((current_scope(), current_actor(), current_request_id()))


@system_task(name="tests.fail")
def fail() -> None:
    """Fail."""
    raise ValueError("the task could not")


def test_a_task_runs_as_the_system_for_every_tenant():
    seen.clear()
    look.apply(task_id="a-task-id")
    ((scope, actor, request_id),) = seen
    assert scope.every_tenant
    assert (actor.kind, actor.origin) == ("system", "task")
    assert request_id == "a-task-id"
    assert current_scope() is None


def test_a_task_carries_the_id_of_the_request_that_enqueued_it(db):
    inside = Celery("inside", broker="switchyard-db://", task_cls="apps.common.queue.task:QueueTask", set_as_current=False)

    @inside.task(name="tests.inside")
    def task() -> None:
        """Do nothing."""

    with correlated(request_id="0123456789abcdef"):
        task.delay()
    body = QueueMessage.objects.get().body
    assert f'"{REQUEST_ID}": "0123456789abcdef"' in body
    seen.clear()
    look.apply(headers={REQUEST_ID: "0123456789abcdef"})
    assert seen[0][2] == "0123456789abcdef"


def test_a_failure_is_told_once_with_its_name(caplog):
    with caplog.at_level(logging.ERROR):
        assert fail.apply().failed()
    ours = [record for record in caplog.records if record.name == "apps.common.tasks"]
    assert [record.getMessage() for record in ours] == ["The task tests.fail failed."]


def test_every_entry_of_the_schedule_names_a_task_that_there_is():
    app.loader.import_default_modules()
    for name, entry in settings.CELERY_BEAT_SCHEDULE.items():
        assert entry["task"] in app.tasks, name


def test_with_an_outside_broker_a_task_is_sent_when_the_transaction_commits(transactional_db, redis_url):
    outside = Celery("outside", broker=redis_url, task_cls="apps.common.queue.task:QueueTask", set_as_current=False)
    outside.conf.task_default_queue = "outside"

    @outside.task(name="tests.outside")
    def task() -> None:
        """Do nothing."""

    with redis.Redis.from_url(redis_url) as client:

        def roll_back() -> None:
            with transaction.atomic():
                task.delay()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            roll_back()
        assert client.llen("outside") == 0
        with transaction.atomic():
            result = task.delay()
            assert result.id
            assert client.llen("outside") == 0
        assert client.llen("outside") == 1
        task.delay()
        assert client.llen("outside") == 2
