"""Rings when another process commits to the outbox: LISTEN on PostgreSQL, on a connection of its own."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

logger = logging.getLogger(__name__)

CHANNEL = "switchyard_outbox"


class PostgresBell:
    """A daemon thread that calls `ring(outbox id)` for each notice. Losing the connection costs bells, nothing else."""

    def __init__(self, parameters: Mapping[str, Any], ring: Callable[[int], None], *, name: str) -> None:
        """Make one; `parameters` are psycopg's."""
        own = {key: value for key, value in parameters.items() if key not in ("context", "cursor_factory", "prepare_threshold")}
        self._parameters = own
        self._ring = ring
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start listening."""
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        import psycopg

        failures = 0
        while not self._stop.is_set():
            try:
                with psycopg.connect(**self._parameters, autocommit=True) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    failures = 0
                    while not self._stop.is_set():
                        for notice in connection.notifies(timeout=0.5):
                            self._ring(int(notice.payload) if notice.payload.isdigit() else 0)
                            if self._stop.is_set():
                                return
            except psycopg.Error as error:
                failures += 1
                if failures == 1:
                    logger.info("no bell from PostgreSQL, listening again: %s", type(error).__name__)
                self._stop.wait(min(0.1 * 2**failures, 5.0))
