"""The database broker between several real processes: nothing lost, nothing delivered twice, nothing enqueued by a rollback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.db import connections, transaction
from kombu import Connection, Queue

from apps.common.models import QueueMessage
from apps.common.queue import store as store_module
from apps.common.queue.bell import bell
from apps.common.queue.store import DEAD, MAX_DELIVERIES, QueueStore, owner, owner_lives
from tests.support import eventually

ROOT = Path(__file__).resolve().parent.parent.parent
QUEUES = [Queue("work")]


class Programs:
    """Runs `queue_program` on a database of the test's own."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        settings = "tests.serve.queue_settings"
        self.environment = {**os.environ, "DJANGO_SETTINGS_MODULE": settings, "SWITCHYARD_HOME": str(directory)}
        self.environment |= {"DATABASE_URL": url, "REDIS_URL": ""}
        self.started: list[subprocess.Popen] = []
        self.run("setup")

    def start(self, *arguments: object) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.serve.queue_program", *map(str, arguments)],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: object) -> str:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        return output

    def numbers(self, name: str) -> list[int]:
        path = self.directory / name
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(params=["sqlite", "postgres"])
def programs(request, tmp_path):
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    found = Programs(tmp_path, url)
    yield found
    for process in found.started:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.once
def test_several_producers_and_consumers_lose_nothing_and_take_nothing_twice(programs):
    """Two producers and three consumers, each a process: every number arrives exactly once."""
    consumers = [programs.start("consume", programs.directory / f"taken-{index}") for index in range(3)]
    for consumer in consumers:
        assert consumer.stdout.readline() == "consuming\n"
    producers = [programs.start("produce", first, 150) for first in (0, 150)]
    for process in (*producers, *consumers):
        assert process.wait(60) == 0
    taken = [number for index in range(3) for number in programs.numbers(f"taken-{index}")]
    if len(taken) < 300:  # a consumer may have left in a pause of the producers; what waited is still there
        programs.run("consume", programs.directory / "rest")
        taken += programs.numbers("rest")
    assert sorted(taken) == list(range(300))


@pytest.mark.once
def test_what_a_killed_consumer_held_is_delivered_to_the_next(programs):
    """kill -9 with messages leased and a backlog: `recover` frees the dead holder's leases and all are delivered."""
    programs.run("produce", 0, 20)
    holder = programs.start("hold", programs.directory / "held")
    eventually(lambda: len(programs.numbers("held")) >= 10, within=30)
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    freed = int(programs.run("recover").split()[0])
    assert freed >= len(programs.numbers("held")) > 0
    programs.run("consume", programs.directory / "taken")
    assert sorted(programs.numbers("taken")) == list(range(20))


@pytest.fixture
def queue(transactional_db):
    """A store of the test's own, on the database of this pass."""
    found = QueueStore()
    yield found
    found.close()


@pytest.fixture
def broker(transactional_db):
    with Connection("switchyard-db://") as connection:
        yield connection
    store_module.store.close()


def publish(broker, body) -> None:
    with broker.Producer() as producer:
        producer.publish(body, routing_key="work", serializer="json")


def test_a_message_of_a_rolled_back_transaction_never_was(broker):
    def fail() -> None:
        with transaction.atomic():
            publish(broker, {"number": 1})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with transaction.atomic():
        publish(broker, {"number": 2})
    assert [broker.SimpleQueue("work").get(timeout=1).payload] == [{"number": 2}]
    assert QueueMessage.objects.count() == 1


def test_a_message_wakes_a_consumer_only_when_it_is_committed(broker, queue):
    with transaction.atomic():
        before = bell.rung
        publish(broker, {"number": 1})
        assert bell.rung == before
        if connections["default"].vendor == "postgresql":
            assert queue.lease("work") is None
    assert bell.rung > before
    assert queue.lease("work") is not None


def test_a_consumer_in_the_same_process_is_woken_at_once(broker):
    """Far below the polling interval: the commit rings the bell. The median of five, as a loaded machine may hold one up."""
    import threading

    taken: list[float] = []
    ready = threading.Event()

    def consume() -> None:
        with Connection("switchyard-db://") as other:

            def take(body, message):
                taken.append(time.monotonic() - body["at"])
                message.ack()

            with other.Consumer(QUEUES, callbacks=[take]):
                ready.set()
                while len(taken) < 5:
                    try:
                        other.drain_events(timeout=5)
                    except TimeoutError:
                        continue

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    assert ready.wait(10)
    for count in range(1, 6):
        publish(broker, {"at": time.monotonic()})
        eventually(lambda count=count: len(taken) >= count)
    thread.join(10)
    assert sorted(taken)[2] < 0.15


def test_enqueueing_from_a_thread_leaves_no_connection_behind(broker):
    import threading

    open_after: list[bool] = []

    def enqueue() -> None:
        publish(broker, {"number": 1})
        open_after.append(connections["default"].connection is not None)

    thread = threading.Thread(target=enqueue)
    thread.start()
    thread.join(10)
    assert open_after == [False]
    assert QueueMessage.objects.count() == 1


def test_a_message_given_back_is_the_next_and_keeps_its_count(queue):
    queue.put("work", "first")
    queue.put("work", "second")
    lease = queue.lease("work")
    assert lease is not None
    assert lease.body == "first"
    queue.release([lease.id])
    assert QueueMessage.objects.get(pk=lease.id).deliveries == 0
    assert queue.lease("work") == lease


def test_a_lease_that_somebody_else_took_over_cannot_be_acknowledged(queue):
    queue.put("work", "body")
    lease = queue.lease("work")
    assert lease is not None
    QueueMessage.objects.update(lease_owner="elsewhere/1/1")
    assert not queue.delete(lease.id)
    assert QueueMessage.objects.exists()


def test_a_lease_is_renewed_while_it_is_held_and_freed_when_it_ran_out(queue, monkeypatch):
    monkeypatch.setattr(store_module, "RENEW_SECONDS", 0.0)
    queue.put("work", "mine")
    queue.put("other", "forgotten")
    lease = queue.lease("work")
    assert lease is not None
    long_ago = "2020-01-01T00:00:00Z"
    QueueMessage.objects.filter(queue="work").update(leased_until=long_ago)
    QueueMessage.objects.filter(queue="other").update(leased_until=long_ago, lease_owner="elsewhere/1/1")
    queue.maintain()
    assert QueueMessage.objects.get(queue="work").lease_owner == owner()
    assert queue.lease("work") is None
    freed = queue.lease("other")
    assert freed is not None
    assert freed.body == "forgotten"


def test_a_message_that_keeps_ending_its_worker_is_put_aside(queue):
    queue.put("work", "poison")
    queue.put("work", "harmless")
    QueueMessage.objects.filter(body="poison").update(deliveries=MAX_DELIVERIES)
    lease = queue.lease("work")
    assert lease is not None
    assert lease.body == "harmless"
    assert QueueMessage.objects.get(body="poison").queue == "work" + DEAD
    assert queue.size("work") == 0


def test_recovery_leaves_the_living_alone_unless_told_that_nobody_else_consumes(queue):
    host = owner().rpartition("/")[0].rpartition("/")[0]
    for body, holder in (("mine", owner()), ("dead", f"{host}/{os.getpid()}/1"), ("far", "elsewhere/1/1")):
        queue.put("work", body)
        QueueMessage.objects.filter(body=body).update(leased_until="2999-01-01T00:00:00Z", lease_owner=holder)
    assert owner_lives(owner())
    assert queue.recover(alone=False) == 1
    assert {row.body for row in QueueMessage.objects.filter(lease_owner="")} == {"dead"}
    assert queue.recover(alone=True) == 1
    assert {row.body for row in QueueMessage.objects.filter(lease_owner="")} == {"dead", "far"}


def test_the_store_works_again_after_its_connection_broke(queue):
    queue.put("work", "before")
    queue.size("work")
    queue._connection.connection.close()
    with pytest.raises(Exception, match="clos"):
        queue.size("work")
    assert queue.size("work") == 1


def test_purge_leaves_what_somebody_has_in_hand(queue):
    queue.put("work", "held")
    queue.put("work", "waiting")
    lease = queue.lease("work")
    assert queue.purge("work") == 1
    assert QueueMessage.objects.get().pk == lease.id


def test_an_interrupted_consumer_returns_at_once(broker):
    import threading

    with broker.Consumer(QUEUES, callbacks=[lambda *_: None]):
        threading.Timer(0.05, bell.interrupt).start()
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            broker.drain_events(timeout=20)
        assert time.monotonic() - started < 10
