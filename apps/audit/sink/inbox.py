"""The hand-over from the event loop to the writer thread."""

import asyncio
import threading
from collections import deque
from typing import Protocol

from apps.audit.sink.record import AuditRecord

Row = tuple[AuditRecord, "asyncio.Future[int] | None", int]
"""A record, who waits for it (nobody: None), and the watchdog's tick at which it came."""


class Order(Protocol):
    """Something else for the writer thread to do; tells its asker how it went."""

    def run(self) -> None:
        """Do it. Raises StoreFailed, after telling, when the connection is no good."""
        ...

    def fail(self, reason: str) -> None:
        """Tell that it cannot be done now."""
        ...


class Inbox:
    """Rows in the order of their arrival, and orders that run between two commits. Putting never blocks.

    A plain lock serves as the bell: `threading.Event` and `queue.Queue` cost several times a row's share.
    """

    def __init__(self) -> None:
        self.rows: deque[Row] = deque()
        self.orders: deque[Order] = deque()
        self._asleep = False
        self._bell = threading.Lock()
        self._bell.acquire()

    def put(self, row: Row) -> None:
        """Add a row and wake the writer if it sleeps."""
        self.rows.append(row)
        if self._asleep:
            self.ring()

    def order(self, order: Order) -> None:
        """Have the writer thread carry out an order between two commits."""
        self.orders.append(order)
        self.ring()

    def ring(self) -> None:
        """Wake the writer."""
        self._asleep = False
        try:
            self._bell.release()
        except RuntimeError:  # it rings already
            pass

    def take(self, most: int) -> list[Row]:
        """Remove up to `most` rows, oldest first; writer thread only."""
        rows = self.rows
        return [rows.popleft() for _ in range(min(len(rows), most))]

    def wait(self) -> None:
        """Sleep until the bell rings; returns at once when something is there."""
        self._asleep = True
        if not self.rows and not self.orders:
            self._bell.acquire()
        self._asleep = False

    def rest(self, seconds: float) -> None:
        """Sleep for a while whatever comes, or until the bell rings for an order or the end."""
        self._asleep = False
        self._bell.acquire(timeout=seconds)
