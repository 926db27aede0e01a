"""Follows the outbox: hands what was committed, in order and without a gap, to the handlers of this process.

One daemon thread with a database connection of its own reads on from a cursor. It is woken by the in-process bell, by
LISTEN on PostgreSQL, and looks every 200 ms anyway, so a lost bell costs time and never an event. When the database is
away it tries again, and goes on from its cursor.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from apps.common.errors import NotReady
from apps.common.follower_bell import PostgresBell
from apps.common.outbox import on_commit_bell, remove_bell
from apps.common.outbox_reader import OutboxNotice, close, connect, head, head_id, own_settings, read

__all__ = ("OutboxFollower", "OutboxNotice", "head_id")

logger = logging.getLogger(__name__)

_AWAY_SECONDS = 60.0
"""A follower without a position (an outbox that was empty) which could not read for so long may have missed pruned rows."""


Handler = Callable[[Sequence[OutboxNotice]], None]


@dataclass(slots=True, eq=False)
class _Subscription:
    handler: Handler
    resync: Callable[[], None] | None
    topics: frozenset[str] | None
    cursor: int = 0
    failures: int = 0
    again_at: float = 0.0


@dataclass(slots=True, eq=False)
class _Waiter:
    future: "Future[bool]" = field(default_factory=Future)
    outbox_id: int | None = None
    """The row to wait for; None = everything that is committed when the thread next looks."""


class OutboxFollower:
    """A follower of the outbox; `follow` first, then `start`, once. Its methods may be called from any thread."""

    def __init__(self, *, name: str = "outbox", poll_seconds: float = 0.2, batch: int = 500) -> None:
        """Make one; `poll_seconds` is the longest time between two looks, `batch` the rows per look."""
        self._name = name
        self._poll = poll_seconds
        self._batch = batch
        self._subscriptions: list[_Subscription] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._started: Future[int] = Future()
        self._waiters: list[_Waiter] = []
        self._healthy = False
        self._last_read = 0.0
        self._settings: dict[str, Any] = {}
        self._bell: PostgresBell | None = None

    @property
    def cursor(self) -> int:
        """Return the id up to which every handler has been given everything."""
        return min((subscription.cursor for subscription in self._subscriptions), default=0)

    @property
    def healthy(self) -> bool:
        """Tell whether the last look at the database succeeded."""
        return self._healthy

    def follow(
        self, handler: Handler, *, resync: Callable[[], None] | None = None, topics: Sequence[str] | None = None
    ) -> None:
        """Give `handler` each batch, oldest first; `topics` narrows what it is given.

        An exception is logged and the batch given again (after 50 ms, at most 5 s), to this handler alone. `resync` is called
        when rows were pruned, or the database was restored, before they could be read: read everything anew; what
        happened before the call is not given any more.
        """
        if self._thread is not None:
            raise RuntimeError("Follow before the follower is started.")
        self._subscriptions.append(_Subscription(handler, resync, None if topics is None else frozenset(topics)))

    def start(self, after: int | None = None, *, timeout: float = 10.0) -> int:
        """Start at the current end of the outbox, or after a given id, and return it. Raises NotReady without a database."""
        if self._thread is not None:
            raise RuntimeError("The follower has been started already.")
        self._settings = own_settings()
        self._thread = threading.Thread(target=self._run, args=(after,), name=f"{self._name}-follower", daemon=True)
        on_commit_bell(self._ring)
        self._thread.start()
        try:
            return self._started.result(timeout)
        except Exception as error:
            self.stop()
            raise NotReady("The database does not answer.") from error

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread; who still waits hears False. A second call does nothing."""
        remove_bell(self._ring)
        self._stopping = True
        self._wake.set()
        if self._bell is not None:
            self._bell.stop()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        self._settle_all(result=False)

    def request_catch_up(self) -> "Future[bool]":
        """Return a future that is True once everything committed before this call is handled, False when the database is away."""
        return self._enlist(_Waiter())

    def catch_up(self, timeout: float = 1.0) -> bool:
        """Wait until everything committed before this call is handled; False when it could not be done in time (seconds)."""
        return _result(self.request_catch_up(), timeout)

    def wait_for(self, outbox_id: int, timeout: float = 1.0) -> bool:
        """Wait until the row `outbox_id` is handled; False when it was not in time (seconds)."""
        if self._subscriptions and self.cursor >= outbox_id:
            return True
        return _result(self._enlist(_Waiter(outbox_id=outbox_id)), timeout)

    def _enlist(self, waiter: _Waiter) -> "Future[bool]":
        with self._lock:
            if self._stopping or self._thread is None:
                waiter.future.set_result(False)
                return waiter.future
            self._waiters.append(waiter)
        self._wake.set()
        return waiter.future

    def _ring(self, last: int) -> None:
        if last > self.cursor:
            self._wake.set()

    # The thread.

    def _run(self, after: int | None) -> None:
        connection: BaseDatabaseWrapper | None = None
        failures = 0
        while not self._stopping:
            self._wake.clear()
            with self._lock:
                asked = [waiter for waiter in self._waiters if waiter.outbox_id is None]
            try:
                if connection is None:
                    connection = connect(self._settings)
                if not self._started.done():
                    self._begin(connection, after)
                drained = self._look(connection)
            except Exception as error:  # noqa: BLE001 - the thread must outlive whatever a driver raises
                self._lost(connection, error, asked, failures)
                connection = None
                failures += 1
                self._wake.wait(min(0.05 * 2 ** min(failures, 6), 2.0))
                continue
            failures = 0
            self._healthy = True
            self._last_read = time.monotonic()
            self._settle(asked if drained else [])
            if drained:
                self._wake.wait(self._pause())
        close(connection)
        self._settle_all(result=False)

    def _begin(self, connection: BaseDatabaseWrapper, after: int | None) -> None:
        start = head(connection) if after is None else after
        for subscription in self._subscriptions:
            subscription.cursor = start
        self._last_read = time.monotonic()
        if connection.vendor == "postgresql":
            self._bell = PostgresBell(connection.get_connection_params(), self._ring, name=f"{self._name}-bell")
            self._bell.start()
        self._started.set_result(start)

    def _lost(self, connection: BaseDatabaseWrapper | None, error: Exception, asked: list[_Waiter], failures: int) -> None:
        """Let go of the connection. A follower that never began reports the error to `start`, and ends."""
        self._healthy = False
        if failures in (0, 5) or failures % 50 == 0:
            logger.warning("the outbox cannot be read, trying again: %s", type(error).__name__)
        close(connection)
        self._drop(asked, result=False)
        if not self._started.done():
            self._stopping = True
            self._started.set_exception(error)

    def _look(self, connection: BaseDatabaseWrapper) -> bool:
        """Read and hand out one batch for each position; return whether nothing was left to read."""
        drained = True
        now = time.monotonic()
        due: dict[int, list[_Subscription]] = {}
        for subscription in self._subscriptions:
            if subscription.again_at <= now:
                due.setdefault(subscription.cursor, []).append(subscription)
        for cursor, subscriptions in due.items():
            rows = read(connection, cursor, self._batch + 1)
            if self._missed(cursor, rows, now):
                newest = head(connection)
                for subscription in subscriptions:
                    self._resync(subscription, newest)
                drained = False
                continue
            fresh = [row for row in rows if row.id > cursor]
            if not fresh:
                continue
            drained = drained and len(rows) <= self._batch
            for subscription in subscriptions:
                self._hand_out(subscription, fresh)
        return drained

    def _missed(self, cursor: int, rows: list[OutboxNotice], now: float) -> bool:
        """Tell whether rows after the cursor may be gone.

        Pruning takes the oldest rows and leaves the newest, so the row at the cursor is there as long as nothing after it was
        pruned. A follower that began with an empty outbox has no such row: it counts as having missed something only
        after it could not read for a long time.
        """
        if cursor > 0:
            return not rows or rows[0].id != cursor
        return bool(rows) and rows[0].id > 1 and now - self._last_read > _AWAY_SECONDS

    def _resync(self, subscription: _Subscription, newest: int) -> None:
        if subscription.resync is None:
            logger.error("outbox rows after %d were pruned before they were read; going on at %d", subscription.cursor, newest)
        else:
            logger.warning(
                "outbox rows after %d were pruned before they were read; reading everything anew", subscription.cursor
            )
            try:
                subscription.resync()
            except Exception:  # noqa: BLE001 - a handler's failure is retried, never the end of the thread
                self._failed(subscription)
                return
        subscription.failures = 0
        subscription.cursor = newest

    def _hand_out(self, subscription: _Subscription, fresh: list[OutboxNotice]) -> None:
        topics = subscription.topics
        batch = fresh if topics is None else [notice for notice in fresh if notice.topic in topics]
        if batch:
            try:
                subscription.handler(batch)
            except Exception:  # noqa: BLE001 - as above
                self._failed(subscription)
                return
        subscription.failures = 0
        subscription.cursor = fresh[-1].id

    def _failed(self, subscription: _Subscription) -> None:
        delay = min(0.05 * 2 ** min(subscription.failures, 10), 5.0)
        subscription.failures += 1
        subscription.again_at = time.monotonic() + delay
        logger.exception(
            "a handler of the outbox failed after %d, time %d; it is asked again in %.2f s",
            subscription.cursor,
            subscription.failures,
            delay,
        )

    def _pause(self) -> float:
        now = time.monotonic()
        soonest = min((s.again_at - now for s in self._subscriptions if s.failures), default=self._poll)
        return max(0.0, min(self._poll, soonest))

    def _settle(self, asked: list[_Waiter]) -> None:
        """Answer those who waited for what has now been handled by all."""
        if not self._waiters:
            return
        if not any(subscription.failures for subscription in self._subscriptions):
            self._drop(asked, result=True)
        cursor = self.cursor
        self._drop([w for w in self._waiters if w.outbox_id is not None and w.outbox_id <= cursor], result=True)

    def _drop(self, waiters: list[_Waiter], *, result: bool) -> None:
        with self._lock:
            self._waiters = [waiter for waiter in self._waiters if waiter not in waiters]
        for waiter in waiters:
            if not waiter.future.done():
                waiter.future.set_result(result)

    def _settle_all(self, *, result: bool) -> None:
        self._drop(list(self._waiters), result=result)


def _result(future: "Future[bool]", timeout: float) -> bool:
    try:
        return future.result(timeout)
    except FutureTimeout:
        return False
