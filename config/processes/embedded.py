"""Tasks and clock inside the serving process: what one machine needs, with nothing to install.

`config.asgi` calls `start_embedded()` and `stop_embedded()` from its lifespan; in a process without the role `all` they do nothing.
"""

import logging
import os
import threading
from collections.abc import Callable

from apps.common.clock import monotonic
from apps.common.queue.bell import bell
from config.processes import roles
from config.processes.beat import run_beat
from config.processes.tasks import run_worker

log = logging.getLogger(__name__)

CONCURRENCY = 4
STOP_SECONDS = 6.0
_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Keeper(threading.Thread):
    """Runs something that should never end, again after a pause if it does, until told to stop."""

    def __init__(self, name: str, work: Callable[[threading.Event, Callable[[], None]], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._stop_event = threading.Event()
        self.ready = threading.Event()

    def run(self) -> None:
        """Carry out the work until stopped."""
        failures = 0
        while not self._stop_event.is_set():
            started = monotonic()
            try:
                self._work(self._stop_event, self.ready.set)
            except Exception:
                log.exception("The embedded %s failed.", self.name)
            self.ready.clear()
            if self._stop_event.is_set():
                return
            failures = 0 if monotonic() - started > _PAUSES[-1] else failures + 1
            pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
            log.error("The embedded %s ended; starting it again in %g s.", self.name, pause)
            self._stop_event.wait(pause)

    def request_stop(self) -> None:
        """Have the work end; returns at once."""
        self._stop_event.set()


_keepers: list[Keeper] = []


def start_embedded() -> None:
    """Start the task worker and the clock in threads of this process, if it has the role `all`; returns at once."""
    if not roles.embeds_tasks() or _keepers:
        return
    os.environ.setdefault("CELERY_SKIP_CHECKS", "1")
    _keepers.append(Keeper("worker", lambda stop, ready: run_worker(stop, ready, concurrency=CONCURRENCY, embedded=True)))
    _keepers.append(Keeper("beat", run_beat))
    for keeper in _keepers:
        keeper.start()


def wait_until_ready(seconds: float) -> bool:
    """Wait until what `start_embedded` started does its work; tells whether it does."""
    deadline = monotonic() + seconds
    return all(keeper.ready.wait(max(0.0, deadline - monotonic())) for keeper in _keepers)


def healthy() -> dict[str, bool]:
    """Return which of the embedded parts work now; empty where this process has none."""
    return {keeper.name: keeper.is_alive() and keeper.ready.is_set() for keeper in _keepers}


def request_stop() -> None:
    """Have worker and clock take nothing more; returns at once."""
    for keeper in _keepers:
        keeper.request_stop()
    bell.interrupt()


def stop_embedded(seconds: float = STOP_SECONDS) -> bool:
    """Stop worker and clock; running tasks may finish. Returns False when one did not within `seconds`. Blocks: use a thread."""
    request_stop()
    deadline = monotonic() + seconds
    for keeper in _keepers:
        keeper.join(max(0.0, deadline - monotonic()))
    left = [keeper.name for keeper in _keepers if keeper.is_alive()]
    if left:
        log.warning("Still running at the end: %s. What it had in hand is done again at the next start.", ", ".join(left))
    _keepers.clear()
    return not left
