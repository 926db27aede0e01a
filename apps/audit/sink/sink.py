"""The sink as the rest of the product uses it, from one event loop."""

import asyncio
import concurrent.futures
import time
from collections.abc import Sequence
from dataclasses import dataclass

from apps.audit.sink.config import SinkConfig
from apps.audit.sink.inbox import Inbox, Row
from apps.audit.sink.record import INTENT, OUTCOME, AuditRecord
from apps.audit.sink.store import RowsRefused, StoreFailed
from apps.audit.sink.stores import make_store
from apps.audit.sink.sweep import closing_record
from apps.audit.sink.writer import Deliver, Writer, WriterStatistics
from apps.common.errors import AuditUnavailable

_TICK = 0.2
"""Seconds between two looks of the watchdog."""
_PROBE_WAIT = 1.5


@dataclass(slots=True)
class _Probe:
    """An order: find out whether the log can be written."""

    writer: Writer
    answer: "concurrent.futures.Future[bool]"

    def run(self) -> None:
        """See `inbox.Order`."""
        if not self.answer.set_running_or_notify_cancel():
            return
        try:
            self.writer.probe()
        except StoreFailed:
            self.answer.set_result(False)
            raise
        self.answer.set_result(True)

    def fail(self, reason: str) -> None:
        """See `inbox.Order`."""
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_result(False)


@dataclass(slots=True)
class _Relayed:
    """An order: commit control-plane events together with the relay's step."""

    writer: Writer
    records: Sequence[AuditRecord]
    before: int
    after: int
    answer: "concurrent.futures.Future[bool]"

    def run(self) -> None:
        """See `inbox.Order`."""
        try:
            self.answer.set_result(self.writer.append_relayed(self.records, self.before, self.after))
        except StoreFailed as failure:
            self.fail(str(failure))
            raise
        except RowsRefused as refusal:
            self.fail(str(refusal))

    def fail(self, reason: str) -> None:
        """See `inbox.Order`."""
        self.answer.set_exception(AuditUnavailable(f"The audit log cannot be written: {reason}"))


class DurableSink:
    """See `protocol.AuditSink`. One writer, one chain and one thread of its own."""

    def __init__(self, config: SinkConfig) -> None:
        self._config = config
        self._inbox = Inbox()
        self._store = make_store(config)
        self._patience = max(int(config.commit_limit / _TICK) - 1, 1)
        self._tick = 0
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._writer: Writer | None = None
        self._ended: asyncio.Event | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the writer thread for callers on `loop`. The log may be unreachable: appends are refused until it is not."""
        self._loop = loop
        self._ended = asyncio.Event()
        deliver = Deliver(loop.call_soon_threadsafe, settle=self._settle, refuse=self._refuse, ended=self._ended.set)
        limit = min(self._config.batch_limit, 512)
        self._writer = Writer(self._store, self._inbox, deliver, batch_limit=limit)
        self._writer.start()
        self._watchdog = loop.call_later(_TICK, self._watch)

    async def ready(self, timeout: float = 10.0) -> bool:
        """Wait until the writer has its chain; False when it has none within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.failure is not None:
            if time.monotonic() > deadline or self._closed:
                return False
            await asyncio.sleep(0.01)
        return True

    async def append(self, record: AuditRecord) -> int:
        """See `AuditSink.append`."""
        if (reason := self._refusal(record)) is not None:
            raise AuditUnavailable(reason)
        assert self._loop is not None
        future: asyncio.Future[int] = self._loop.create_future()
        self._inbox.put((record, future, self._tick))
        return await future

    def post(self, record: AuditRecord) -> None:
        """See `AuditSink.post`."""
        if self._closed or self._writer is None:
            raise AuditUnavailable("The audit log is closed.")
        if len(self._inbox.rows) >= self._config.queue_limit and record.event_type != OUTCOME:
            raise AuditUnavailable("The audit log's queue is full.")
        self._inbox.put((record, None, self._tick))

    def submit_relayed(self, records: Sequence[AuditRecord], before: int, after: int) -> "concurrent.futures.Future[bool]":
        """Chain events of the outbox, at most 512, in the transaction that moves the relay from `before` to `after`.

        For any thread. The future gives False when another process has moved the relay (nothing was written then), and
        raises AuditUnavailable when the log cannot be written: whether the step was made can then be read from the relay.
        """
        answer: concurrent.futures.Future[bool] = concurrent.futures.Future()
        if self._writer is None or self._closed or self.failure is not None:
            answer.set_exception(AuditUnavailable(f"The audit log cannot be written: {self.failure or 'closed'}"))
        else:
            self._inbox.order(_Relayed(self._writer, records, before, after, answer))
        return answer

    async def healthy(self) -> bool:
        """See `AuditSink.healthy`; asks the database when there was no commit within the last second."""
        writer = self._writer
        if writer is None or self._closed or self.failure is not None:
            return False
        if time.monotonic() - writer.last_success < 1.0:
            return True
        answer: concurrent.futures.Future[bool] = concurrent.futures.Future()
        self._inbox.order(_Probe(writer, answer))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), _PROBE_WAIT)
        except TimeoutError:
            return False

    async def aclose(self, timeout: float = 5.0) -> None:
        """Refuse what is new, write what waits, and end the thread; after `timeout` seconds cut the connection under it."""
        writer = self._writer
        if self._closed or writer is None or self._ended is None:
            self._closed = True
            return
        self._closed = True
        writer.stopping = True
        self._inbox.ring()
        try:
            await asyncio.wait_for(self._ended.wait(), timeout)
        except TimeoutError:
            self._store.interrupt()
        finally:
            if self._watchdog is not None:
                self._watchdog.cancel()
            self._refuse([*writer.in_flight, *list(self._inbox.rows)], "it is closed")

    @property
    def failure(self) -> str | None:
        """Return why the log cannot be written now, or None when it can."""
        writer = self._writer
        if writer is None:
            return "the writer has not started yet"
        if writer.stalled:
            return "a commit takes too long"
        return writer.statistics.failure

    @property
    def statistics(self) -> WriterStatistics:
        """Return the writer's counters."""
        return self._writer.statistics if self._writer is not None else WriterStatistics()

    @property
    def waiting(self) -> int:
        """Return how many rows wait for a commit."""
        return len(self._inbox.rows)

    def _refusal(self, record: AuditRecord) -> str | None:
        """Return why nobody may wait for this row now. A fact is kept for later all the same; an intent is not."""
        writer = self._writer
        if self._closed or writer is None:
            return "The audit log is closed."
        # outcomes are as few as open calls, so that they may pass the limit
        if len(self._inbox.rows) >= self._config.queue_limit and record.event_type != OUTCOME:
            return "The audit log's queue is full."
        if writer.stalled or writer.statistics.failure is not None:
            if record.event_type != INTENT:
                self._inbox.put((record, None, self._tick))
            return f"The audit log cannot be written: {self.failure or 'it comes back just now'}."
        return None

    def _settle(self, rows: Sequence[Row], first_id: int) -> None:
        for identity, (record, future, _) in enumerate(rows, first_id):
            if future is None:
                continue
            if not future.done():
                future.set_result(identity)
            elif record.event_type == INTENT and not future.cancelled() and not self._closed:
                # its caller was told that nothing runs, and nothing did
                self.post(closing_record(record, outcome="refused", closed_by="sink"))

    def _refuse(self, rows: Sequence[Row], reason: str) -> None:
        for _, future, _ in rows:
            if future is not None and not future.done():
                future.set_exception(AuditUnavailable(f"The audit log cannot be written: {reason}."))

    def _watch(self) -> None:
        """Refuse the rows that have waited too long: behind a commit that hangs, or in it."""
        assert self._loop is not None
        assert self._writer is not None
        self._watchdog = self._loop.call_later(_TICK, self._watch)
        self._tick += 1
        oldest = self._tick - self._patience
        rows, in_flight = self._inbox.rows, self._writer.in_flight
        if not rows and not in_flight:
            self._writer.stalled = False
            return
        for group in (in_flight, list(rows)):
            for row in group:
                if row[2] > oldest:
                    break
                future = row[1]
                if future is not None and not future.done():
                    self._writer.stalled = True
                    future.set_exception(AuditUnavailable("The audit log cannot be written: the commit takes too long."))


def open_sink(config: SinkConfig) -> DurableSink:
    """Return a sink for a configuration; call `start` on the event loop that uses it. Raises ValueError without a database."""
    return DurableSink(config)
