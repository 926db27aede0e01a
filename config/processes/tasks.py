"""The Celery worker, in a thread of the serving process or as a process of its own."""

import logging
import signal
import threading
from collections.abc import Callable

from celery.worker import WorkController, state
from django.conf import settings

from apps.common.queue import SCHEME
from apps.common.queue.bell import bell
from apps.common.queue.store import store
from config.celery import app
from config.processes import lifeline

log = logging.getLogger(__name__)

CONCURRENCY = 8


def run_worker(stop: threading.Event, ready: Callable[[], None], *, concurrency: int, embedded: bool) -> None:
    """Run tasks in threads until `stop` is set; calls `ready` when messages are being consumed."""
    in_database = str(app.conf.broker_url).startswith(SCHEME)
    if in_database:
        freed = store.recover(alone=not settings.SWITCHYARD.postgres)
        if freed:
            log.info("%d messages of a process that ended are taken up again.", freed)
    state.should_stop = None
    state.should_terminate = None
    worker = WorkController(
        app=app,
        pool="threads",
        concurrency=concurrency,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        use_eventloop=None if not embedded else False,
        ready_callback=lambda _: ready(),
    )
    watcher = threading.Thread(target=_stop_with, args=(stop,), name="worker-stop", daemon=True)
    watcher.start()
    try:
        worker.start()
    finally:
        if in_database:
            store.close()


def _stop_with(stop: threading.Event) -> None:
    stop.wait()
    state.should_stop = 0
    bell.interrupt()


def run(*, report_fd: int) -> int:
    """Be a worker process until a signal; returns the exit code."""
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    run_worker(stop, lambda: lifeline.report_ready(report_fd), concurrency=CONCURRENCY, embedded=False)
    return 0 if stop.is_set() else 1
