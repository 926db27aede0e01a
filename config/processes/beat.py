"""The clock: enqueues what is due. Of several, one ticks and the others stand by."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery.beat import Service
from django.conf import settings
from django.db import Error
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from apps.common.queue.connection import private_connection
from config.celery import app
from config.processes import lifeline

log = logging.getLogger(__name__)

BEAT_LOCK = 0x5357_4254
"""Key of the PostgreSQL advisory lock that the ticking clock holds."""
STANDBY_SECONDS = 1.0
TICK_SECONDS = 1.0
MANAGED = "Kept by Switchyard: changes are undone at the next start."
"""Description of the entries that come from the settings."""


class LockLost(Exception):
    """The database session that held the lock is gone, so another clock may tick."""


class BeatLock:
    """The right to tick: an advisory lock on PostgreSQL; on SQLite the home's own lock already makes the process the only one."""

    def __init__(self) -> None:
        self._connection: Any = None

    def take(self) -> bool:
        """Try to get it; tells whether it is held."""
        if not settings.SWITCHYARD.postgres:
            return True
        if self._connection is None:
            self._connection = private_connection("clock")
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [BEAT_LOCK])
            return bool(cursor.fetchone()[0])

    def check(self) -> None:
        """Raise LockLost unless it is still held."""
        if self._connection is None:
            return
        try:
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except Error as error:
            raise LockLost("The clock lost its lock.") from error

    def release(self) -> None:
        """Give it up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Scheduler(DatabaseScheduler):
    """The scheduler of django-celery-beat that ticks only under the lock and forgets entries which left the settings."""

    lock: BeatLock
    stop: threading.Event

    def setup_schedule(self) -> None:
        """Bring the entries of the settings into the database."""
        stale = PeriodicTask.objects.filter(description=MANAGED).exclude(name__in=app.conf.beat_schedule)
        for entry in stale:
            entry.delete()
        super().setup_schedule()

    def update_from_dict(self, mapping: dict[str, dict[str, Any]]) -> None:
        """Write entries of the settings, marked as such."""
        super().update_from_dict({name: {**entry, "description": MANAGED} for name, entry in mapping.items()})

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Enqueue what is due; returns for how many seconds nothing is."""
        if self.stop.is_set():
            return 0.0
        self.lock.check()
        return min(float(super().tick(*args, **kwargs)), TICK_SECONDS)


def run_beat(stop: threading.Event, ready: Callable[[], None]) -> None:
    """Stand by until no other clock ticks, then tick until `stop` is set; calls `ready` as soon as it stands by."""
    ready()
    with _lock(stop) as lock:
        if lock is None:
            return
        service = Service(app, max_interval=TICK_SECONDS, scheduler_cls=_scheduler(lock, stop))
        threading.Thread(target=_stop_with, args=(stop, service), name="beat-stop", daemon=True).start()
        service.start()


@contextmanager
def _lock(stop: threading.Event) -> Iterator[BeatLock | None]:
    lock = BeatLock()
    try:
        while not stop.is_set():
            if lock.take():
                yield lock
                return
            stop.wait(STANDBY_SECONDS)
        yield None
    finally:
        lock.release()


def _scheduler(lock: BeatLock, stop: threading.Event) -> type[Scheduler]:
    return type("LockedScheduler", (Scheduler,), {"lock": lock, "stop": stop})


def _stop_with(stop: threading.Event, service: Service) -> None:
    stop.wait()
    service.stop()


def run(*, report_fd: int) -> int:
    """Be a clock process until a signal; returns the exit code."""
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    run_beat(stop, lambda: lifeline.report_ready(report_fd))
    return 0 if stop.is_set() else 1
