"""Wakes the consumers of this process: rung by commits here, and by PostgreSQL's NOTIFY for those of other processes."""

import logging
import threading

from django.db import Error

from apps.common.queue.connection import CHANNEL, private_connection

log = logging.getLogger(__name__)

_RECONNECT_SECONDS = 1.0
_LISTEN_SECONDS = 1.0


class Bell:
    """A counter that threads can wait for; nothing rung between two looks is missed."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rung = 0
        self._interrupted = 0

    @property
    def rung(self) -> int:
        """Return how often it was rung: read it before looking for work, give it to `wait` when there was none."""
        return self._rung

    @property
    def interrupted(self) -> int:
        """Return how often waiting was called off."""
        return self._interrupted

    def ring(self) -> None:
        """Say that there may be something to do."""
        with self._condition:
            self._rung += 1
            self._condition.notify_all()

    def interrupt(self) -> None:
        """Have every consumer return to its caller at once; a worker that shall stop looks at its flag then."""
        with self._condition:
            self._interrupted += 1
            self._rung += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout: float) -> None:
        """Return when it has been rung since `seen` was read, or after `timeout` seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._rung != seen, timeout)


bell = Bell()
"""The bell of this process."""


class Listener(threading.Thread):
    """Rings the bell for messages that other processes committed (PostgreSQL only)."""

    def __init__(self) -> None:
        super().__init__(name="queue-listener", daemon=True)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Listen until stopped; a lost connection is opened again."""
        while not self._stopping.is_set():
            try:
                self._listen()
            except Error as error:
                log.warning("The queue's listener lost the database: %s", str(error).strip())
                self._stopping.wait(_RECONNECT_SECONDS)

    def stop(self) -> None:
        """Have the thread end within a second."""
        self._stopping.set()

    def _listen(self) -> None:
        connection = private_connection("queue bell")
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            bell.ring()
            with connection.wrap_database_errors:
                while not self._stopping.is_set():
                    for _ in connection.connection.notifies(timeout=_LISTEN_SECONDS, stop_after=1):
                        bell.ring()
        finally:
            connection.close()
