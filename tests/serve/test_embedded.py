"""Worker and clock inside the serving process: tasks run, survive `kill -9`, and stop with it."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter

import psutil
import pytest
from django.conf import settings

from tests.product import ROOT, Product
from tests.support import eventually

pytestmark = pytest.mark.once


def enqueue(product: Product, task: str, first: int, count: int, *more: float) -> None:
    arguments = [task, str(first), str(count), *map(str, more)]
    subprocess.run(
        [sys.executable, "-m", "tests.serve.trial.program", *arguments],
        cwd=ROOT,
        env=product.environment,
        check=True,
        timeout=60,
    )


def numbers(product: Product, file: str) -> list[int]:
    path = product.home / file
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def query(product: Product, statement: str) -> list[tuple]:
    connection = sqlite3.connect(product.home / "switchyard.sqlite3", timeout=20)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def own_messages(product: Product) -> int:
    return query(product, "SELECT count(*) FROM common_queuemessage WHERE body LIKE '%trial.%'")[0][0]


def kill_serving(product: Product) -> None:
    (child,) = [process for process in psutil.Process(product.pid).children() if "run_process" in process.cmdline()]
    os.kill(child.pid, signal.SIGKILL)


def test_what_another_process_enqueued_is_done(start_trial):
    product = start_trial()
    enqueue(product, "note", 0, 30)
    eventually(lambda: sorted(numbers(product, "notes")) == list(range(30)), within=20)
    eventually(lambda: own_messages(product) == 0, within=10)
    assert not (product.home / "logs" / "serve.log").read_text()


def test_nothing_is_lost_when_the_process_is_killed_with_a_backlog(start_trial):
    """What had begun runs again, what waited runs, and what must not run twice does not."""
    product = start_trial()
    enqueue(product, "note", 0, 40, 0.05)
    enqueue(product, "once", 0, 40)
    eventually(lambda: len(numbers(product, "notes")) > 4, within=20)
    kill_serving(product)
    eventually(lambda: own_messages(product) == 0, within=40)
    assert set(numbers(product, "notes")) == set(range(40))
    assert max(Counter(numbers(product, "once")).values()) == 1
    assert len(numbers(product, "once")) >= 36, "at most what the four threads had in hand is lost"


def test_a_running_task_is_finished_before_the_end(start_trial):
    product = start_trial()
    enqueue(product, "note", 0, 6, 1.0)
    eventually(lambda: len(numbers(product, "begun")) >= 2, within=20)
    assert product.stop() == 0
    assert sorted(numbers(product, "begun")) == sorted(numbers(product, "notes"))
    rest = query(product, "SELECT lease_owner FROM common_queuemessage WHERE body LIKE '%trial.note%'")
    assert len(rest) + len(numbers(product, "notes")) == 6
    assert {owner for (owner,) in rest} <= {""}


def test_the_clock_keeps_the_entries_of_the_settings_and_only_those_marked_as_its_own(start_trial):
    product = start_trial()
    entries = "SELECT name FROM django_celery_beat_periodictask"
    names = set(settings.CELERY_BEAT_SCHEDULE)
    eventually(lambda: {name for (name,) in query(product, entries)} == names, within=20)
    product.stop()
    connection = sqlite3.connect(product.home / "switchyard.sqlite3")
    with connection:
        connection.execute(
            "UPDATE django_celery_beat_periodictask SET name = 'Of an older version' WHERE name = 'Prune the outbox'"
        )
        copy = "queue, exchange, routing_key, headers, one_off, enabled, total_run_count, date_changed, args, kwargs, interval_id, task"
        connection.execute(
            f"INSERT INTO django_celery_beat_periodictask (name, description, {copy})"
            f" SELECT 'Of the operator', '', {copy} FROM django_celery_beat_periodictask LIMIT 1"
        )
    connection.close()
    again = start_trial(home=product.home, key=product.key, password=product.password)
    expected = (names | {"Of the operator"}) - {"Of an older version"}
    eventually(lambda: {name for (name,) in query(again, entries)} == expected, within=20)


@pytest.mark.slow
def test_a_request_without_an_end_does_not_hold_up_the_stop(start_trial):
    import http.client

    product = start_trial()
    connection = http.client.HTTPConnection("127.0.0.1", product.port, timeout=30)
    connection.request("GET", "/slow?seconds=60")
    connection.getresponse().read(6)
    assert product.stop(within=10) == 0


@pytest.mark.slow
def test_a_child_that_does_not_react_is_killed(start_trial):
    product = start_trial()
    (child,) = [process for process in psutil.Process(product.pid).children() if "run_process" in process.cmdline()]
    child.send_signal(signal.SIGSTOP)
    assert product.stop(within=10) == 1
    assert "ended at once: serve" in product.log()
