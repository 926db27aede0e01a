"""The outbox follower: everything, in order, once per handler, whatever happens to the database or a handler."""

import threading
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import connection, connections, transaction

from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant
from apps.common.errors import NotReady
from apps.common.events import ControlEvent
from apps.common.follower import OutboxFollower, head_id
from apps.common.models import OutboxEvent
from apps.common.outbox import audit, changed, order, remove_bell, unit_of_work
from apps.common.outbox_pruning import prune_outbox
from tests.support import eventually

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


def tell(*ids, kind="server"):
    """Commit one unit of work with a notice for each id; return the newest row's id."""
    with every_tenant(SYSTEM), unit_of_work():
        for id in ids:
            changed(kind, id)
    return head_id()


class Recorder:
    """A handler that keeps what it was given."""

    def __init__(self):
        self.notices = []
        self.resyncs = 0
        self.fail = 0

    def __call__(self, batch):
        if self.fail:
            self.fail -= 1
            raise RuntimeError("not today")
        self.notices.extend(batch)

    def resync(self):
        self.resyncs += 1

    @property
    def ids(self):
        return [notice.payload["id"] for notice in self.notices]


@pytest.fixture
def follow():
    started = []

    def make(*recorders, after=None, start=True, **options):
        follower = OutboxFollower(**options)
        for recorder in recorders:
            follower.follow(recorder, resync=recorder.resync)
        started.append(follower)
        if start:
            follower.start(after)
        return follower

    yield make
    for follower in started:
        follower.stop()
        assert follower._thread is None or not follower._thread.is_alive()


def test_hands_out_what_comes_after_the_start_in_order(follow):
    tell("before")
    recorder = Recorder()
    follower = follow(recorder)
    last = tell("1", "2")
    last = tell("3")
    assert follower.wait_for(last, 5)
    assert recorder.ids == ["1", "2", "3"]
    assert follower.cursor == last
    assert follower.healthy
    notice = recorder.notices[0]
    assert (notice.topic, notice.tenant_id, notice.payload["kind"]) == ("changed", None, "server")


def test_starts_after_a_given_id(follow):
    first = tell("1")
    tell("2")
    recorder = Recorder()
    follower = follow(recorder, after=first)
    assert follower.catch_up(5)
    assert recorder.ids == ["2"]


def test_tenants_and_topics(follow):
    from tests.factories import make_tenant

    tenant = make_tenant()
    recorder, only_orders = Recorder(), Recorder()
    follower = follow(recorder, start=False)
    follower.follow(only_orders, topics=["control"])
    follower.start()
    with every_tenant(SYSTEM), unit_of_work():
        changed("server", "x", tenant_id=tenant.pk)
        order("kill-process", process_id="p")
        audit(ControlEvent("test.done", "test.write"))
    assert follower.catch_up(5)
    assert [(notice.topic, notice.tenant_id) for notice in recorder.notices] == [
        ("changed", str(tenant.pk)), ("control", None), ("audit", None),
    ]  # fmt: skip
    assert [notice.payload["process_id"] for notice in only_orders.notices] == ["p"]


def test_what_is_rolled_back_is_never_seen(follow):
    recorder = Recorder()
    follower = follow(recorder)

    def undone():
        with every_tenant(SYSTEM), unit_of_work():
            changed("server", "ghost")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        undone()
    tell("real")
    assert follower.catch_up(5)
    assert recorder.ids == ["real"]


def test_more_than_a_batch_comes_whole(follow):
    recorder = Recorder()
    follower = follow(recorder, batch=10)
    wanted = [str(number) for number in range(95)]
    tell(*wanted)
    assert follower.catch_up(5)
    assert recorder.ids == wanted


def test_rows_of_many_threads_come_in_the_order_of_their_commits(follow):
    recorder = Recorder()
    follower = follow(recorder, batch=7)

    def write(writer):
        try:
            for number in range(15):
                tell(f"{writer}-{number}")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert follower.catch_up(10)
    ids = [notice.id for notice in recorder.notices]
    assert ids == sorted(set(ids))
    assert len(ids) == 60
    for writer in range(4):
        assert [id for id in recorder.ids if id.startswith(f"{writer}-")] == [f"{writer}-{n}" for n in range(15)]


def test_without_any_bell_the_poll_finds_it(follow):
    recorder = Recorder()
    follower = follow(recorder, poll_seconds=0.05)
    remove_bell(follower._ring)
    OutboxEvent.objects.create(topic="changed", payload={"id": "quiet"})
    eventually(lambda: recorder.ids == ["quiet"])


def test_the_bell_in_the_process_wakes_it_long_before_the_poll(follow):
    recorder = Recorder()
    follow(recorder, poll_seconds=60)
    tell("ring")
    eventually(lambda: recorder.ids == ["ring"], within=10)


def test_on_postgresql_another_process_wakes_it_long_before_the_poll(follow):
    if connection.vendor != "postgresql":
        pytest.skip("LISTEN is PostgreSQL's")
    recorder = Recorder()
    follower = follow(recorder, poll_seconds=60)
    remove_bell(follower._ring)
    eventually(lambda: _listening() >= 1)
    tell("far away")
    eventually(lambda: recorder.ids == ["far away"], within=10)


def _listening():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%' AND datname = current_database()")
        return cursor.fetchone()[0]


def test_a_failing_handler_is_asked_again_and_holds_up_nobody_else(follow, caplog):
    flaky, steady = Recorder(), Recorder()
    flaky.fail = 3
    follower = follow(flaky, steady)
    last = tell("1")
    eventually(lambda: steady.ids == ["1"])
    assert follower.wait_for(last, 10)
    tell("2")
    assert follower.catch_up(10)
    assert flaky.ids == steady.ids == ["1", "2"]
    assert sum("a handler of the outbox failed" in record.message for record in caplog.records) == 3


def test_catching_up_says_no_while_a_handler_fails(follow):
    broken = Recorder()
    broken.fail = 10**9
    follower = follow(broken)
    tell("1")
    assert not follower.catch_up(0.3)
    assert not follower.wait_for(head_id(), 0.1)
    broken.fail = 0
    assert follower.catch_up(10)
    assert broken.ids == ["1"]


def test_catching_up_includes_what_was_committed_just_before(follow):
    recorder = Recorder()
    follower = follow(recorder, poll_seconds=60)
    remove_bell(follower._ring)
    for number in range(20):
        tell(str(number))
        assert follower.catch_up(5)
        assert recorder.ids[-1] == str(number)


def test_many_may_wait_at_once(follow):
    recorder = Recorder()
    follower = follow(recorder)
    last = tell("1", "2", "3")
    results = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(follower.catch_up(5) if n % 2 else follower.wait_for(last, 5)))
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert results == [True] * 16
    assert follower._waiters == []


def test_waiting_for_what_never_comes_ends_in_time(follow):
    follower = follow(Recorder())
    assert not follower.wait_for(head_id() + 1000, 0.05)
    assert follower.catch_up(5)


@contextmanager
def outbox_away():
    """Take the outbox away from everybody for a while."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE common_outboxevent RENAME TO common_outboxevent_away")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE common_outboxevent_away RENAME TO common_outboxevent")


def test_an_outage_is_survived_and_nothing_is_skipped(follow):
    recorder = Recorder()
    follower = follow(recorder, poll_seconds=0.02)
    tell("1")
    assert follower.catch_up(5)
    with outbox_away():
        assert not follower.catch_up(5)
        eventually(lambda: not follower.healthy)
    tell("2")
    eventually(lambda: follower.catch_up(5) and recorder.ids == ["1", "2"])
    assert follower.healthy
    assert recorder.resyncs == 0


def test_on_postgresql_a_killed_backend_is_replaced(follow):
    if connection.vendor != "postgresql":
        pytest.skip("only a server can cut a connection")
    recorder = Recorder()
    follower = follow(recorder, poll_seconds=0.05)
    tell("1")
    assert follower.catch_up(5)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'switchyard outbox' AND datname = current_database()"
        )
    tell("2")
    eventually(lambda: follower.catch_up(1) and recorder.ids == ["1", "2"])


def test_rows_pruned_before_they_were_read_mean_reading_everything_anew(follow):
    recorder, without = Recorder(), Recorder()
    first = tell("1")
    for number in range(2, 8):
        tell(str(number))
    follower = OutboxFollower()
    follower.follow(recorder, resync=recorder.resync)
    follower.follow(without)
    OutboxEvent.objects.filter(id__lt=first + 4).delete()
    follower.start(after=first)
    try:
        assert follower.catch_up(5)
        assert recorder.resyncs == 1
        assert recorder.notices == without.notices == []
        tell("8")
        assert follower.catch_up(5)
        assert recorder.ids == without.ids == ["8"]
        assert recorder.resyncs == 1
    finally:
        follower.stop()


def test_a_failing_resync_is_tried_again(follow):
    calls = []

    def resync():
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("not yet")

    first = tell("1")
    tell("2", "3")
    OutboxEvent.objects.filter(id__lte=first + 1).delete()
    follower = OutboxFollower()
    follower.follow(Recorder(), resync=resync)
    follower.start(after=first)
    try:
        assert follower.catch_up(10)
        assert len(calls) == 3
    finally:
        follower.stop()


def test_a_database_restored_to_an_earlier_state_means_reading_everything_anew(follow):
    recorder = Recorder()
    tell("1", "2", "3")
    follower = follow(recorder, after=head_id() + 50)
    assert follower.catch_up(5)
    assert recorder.resyncs == 1
    assert follower.cursor == head_id()


def test_a_start_without_a_database_says_so():
    follower = OutboxFollower()
    follower.follow(Recorder())
    with outbox_away(), pytest.raises(NotReady):
        follower.start()
    assert not follower.catch_up(0.1)


def test_after_stopping_nobody_waits(follow):
    recorder = Recorder()
    follower = follow(recorder, poll_seconds=60)
    answers = []
    beyond = head_id() + 1000
    thread = threading.Thread(target=lambda: answers.append(follower.wait_for(beyond, 30)))
    thread.start()
    eventually(lambda: follower._waiters)
    follower.stop()
    thread.join(5)
    assert answers == [False]
    assert not follower.catch_up(1)
    follower.stop()


def test_it_is_started_once_and_followed_before(follow):
    follower = follow(Recorder())
    with pytest.raises(RuntimeError):
        follower.start()
    with pytest.raises(RuntimeError):
        follower.follow(Recorder())


# Pruning.


def test_pruning_keeps_what_is_young_unread_or_newest():
    ids = [tell(str(number)) for number in range(6)]
    OutboxEvent.objects.filter(id__lte=ids[3]).update(created_at=now() - timedelta(days=2))
    day_ago = now() - timedelta(days=1)
    assert prune_outbox(day_ago, up_to=ids[1]) == 2
    assert prune_outbox(day_ago, up_to=ids[5]) == 2
    assert prune_outbox(now() + timedelta(days=1), up_to=10**12) == 1
    assert list(OutboxEvent.objects.values_list("id", flat=True)) == [ids[5]]
    assert prune_outbox(now() + timedelta(days=1), up_to=10**12) == 0


def test_pruning_an_empty_outbox_does_nothing():
    OutboxEvent.objects.all().delete()
    assert prune_outbox(now(), up_to=10) == 0


def test_a_follower_that_is_up_to_date_does_not_mind_pruning(follow):
    recorder = Recorder()
    follower = follow(recorder)
    tell("1", "2")
    assert follower.catch_up(5)
    prune_outbox(now() + timedelta(days=1), up_to=10**12)
    tell("3")
    assert follower.catch_up(5)
    assert (recorder.ids, recorder.resyncs) == (["1", "2", "3"], 0)


def test_pruning_in_a_transaction_that_is_undone_prunes_nothing():
    tell("1", "2")
    before = OutboxEvent.objects.count()
    with transaction.atomic():
        prune_outbox(now() + timedelta(days=1), up_to=10**12)
        transaction.set_rollback(True)
    assert OutboxEvent.objects.count() == before
