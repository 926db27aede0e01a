"""The writer thread: everything that arrived while a commit was in flight shares the next one."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from apps.audit.sink.chain import Chain
from apps.audit.sink.inbox import Inbox, Row
from apps.audit.sink.record import INTENT, AuditRecord, encode, mend
from apps.audit.sink.store import Batch, RowsRefused, Store, StoreFailed
from apps.audit.sink.sweep import close_open_intents

_log = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_GATHER_SECONDS, _GATHER_SIBLINGS = 0.0015, 16
"""While so many calls are open, a commit waits so long for what they are about to write: fewer and larger commits take a tenth
less processor time for each call (PostgreSQL's `commit_delay` and `commit_siblings` are the same for its sessions)."""
_HIDDEN = 0.5
"""Seconds from the first failure in a row for which callers are left waiting for another attempt."""


@dataclass(slots=True)
class WriterStatistics:
    """Counters since the start, and the state; written by the writer thread, read by anybody."""

    writer: int | None = None
    rows: int = 0
    commits: int = 0
    commit_seconds: float = 0.0
    last_commit_seconds: float = 0.0
    failures: int = 0
    open_calls: int = 0
    """Intents of this process without an outcome."""
    failure: str | None = "the writer has not started yet"
    """Why the log cannot be written now; None when it can."""


class Deliver:
    """How the writer thread answers: each method may be called from that thread and hands over to the event loop."""

    def __init__(
        self,
        call_soon: Callable[..., object],
        *,
        settle: Callable[[Sequence[Row], int], None],
        refuse: Callable[[Sequence[Row], str], None],
        ended: Callable[[], None],
    ) -> None:
        self._call_soon = call_soon
        self._settle, self._refuse, self._ended = settle, refuse, ended

    def settle(self, rows: Sequence[Row], first_id: int) -> None:
        """Say that the rows are committed under consecutive ids."""
        self._hand_over(self._settle, rows, first_id)

    def refuse(self, rows: Sequence[Row], reason: str) -> None:
        """Say that the rows are not (or not provably) committed."""
        self._hand_over(self._refuse, rows, reason)

    def ended(self) -> None:
        """Say that the thread is at its end."""
        self._hand_over(self._ended)

    def _hand_over(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._call_soon(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass


class Writer(threading.Thread):
    """Drains the inbox into the store. After a failure it reconnects, finds out what was committed, and goes on.

    A failure is hidden from the waiting callers for as long as it may be a cut connection: for half a second after a commit,
    for one more attempt on a connection that has only been probed. Then they are refused, and so they are by the watchdog
    when an attempt hangs. An intent that was refused is withdrawn, as nothing ran on it; any other row is a fact and is kept.
    """

    def __init__(self, store: Store, inbox: Inbox, deliver: Deliver, *, batch_limit: int) -> None:
        super().__init__(name="audit-writer", daemon=True)
        self._store = store
        self._inbox = inbox
        self._deliver = deliver
        self._batch_limit = batch_limit
        self._chain: Chain | None = None
        self._doubt: tuple[Batch, list[Row]] | None = None
        self._proven = False
        """A commit, or an order's probe, succeeded since the last failure."""
        self._probed = False
        """The connection was probed when it was made; says less than a commit, as a full disk may let a probe pass."""
        self.in_flight: Sequence[Row] = ()
        self.stalled = False
        """Set by the watchdog when a commit takes too long, cleared by the next commit."""
        self.stopping = False
        self.last_success = 0.0
        self.statistics = WriterStatistics()

    def run(self) -> None:
        """Serve until stopped and drained."""
        pause, hidden_until = _FIRST_PAUSE, 0.0
        try:
            while True:
                try:
                    self._connect()
                    self._serve()
                    break
                except (StoreFailed, RowsRefused) as failure:
                    self._store.close()
                    self.statistics.failures += 1
                    proven, probed, self._proven, self._probed = self._proven, self._probed, False, False
                    if proven:
                        pause, hidden_until = _FIRST_PAUSE, time.monotonic() + _HIDDEN
                    if proven or probed:
                        continue
                    if time.monotonic() < hidden_until:
                        self._inbox.rest(_FIRST_PAUSE)
                        continue
                    self._refuse_all(str(failure))
                    if self.stopping:
                        break
                    self._inbox.rest(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)
        finally:
            self._end()

    def probe(self) -> None:
        """Find out whether the log can be written; runs as an order. Raises StoreFailed."""
        if self._chain is not None:
            self._store.probe(self._chain.writer)
            self._succeeded()

    def append_relayed(self, records: Sequence[AuditRecord], before: int, after: int) -> bool:
        """Commit control-plane events together with the relay's step; runs as an order.

        Returns False when another process has taken the step. Raises StoreFailed, RowsRefused.
        """
        chain = self._ready()
        batch = chain.batch([encode(record) for record in records])
        try:
            moved = self._store.append_relayed(batch, before, after)
        except RowsRefused:
            batch = chain.batch([mend(record) for record in records])
            moved = self._store.append_relayed(batch, before, after)
        if moved:
            chain.committed(batch, records)
            self.statistics.rows += len(records)
            self.statistics.commits += 1
        self._succeeded()
        return moved

    def _end(self) -> None:
        self._store.close()
        if self._chain is not None:
            self._store.unlock(self._chain.writer)
        left = sum(1 for record, _, _ in self._inbox.rows if record.event_type != INTENT)
        if left:
            _log.error("the audit writer ended with %d rows that could not be written", left)
        self._refuse_all("the writer has ended")
        self._deliver.ended()

    def _ready(self) -> Chain:
        if self._chain is None:
            raise StoreFailed("the writer has not started yet")
        return self._chain

    def _connect(self) -> None:
        """Connect, claim a writer, close what its dead predecessor left open, and settle what is in doubt."""
        self._store.open()
        former = self._chain
        writer = self._store.claim(former.writer if former is not None else None)
        head = self._store.head(writer)
        if former is not None and former.writer == writer:
            former.moved_to(head)
        else:
            head, closed = close_open_intents(self._store, head)
            if closed:
                _log.warning("closed %d open calls of the dead writer %d as unknown", closed, writer)
            self._chain = Chain(head)
        self._settle_doubt()
        if self.statistics.failure is not None:
            self._store.probe(writer)
            self._probed = True
        self.in_flight = ()
        self.stalled = False
        self.statistics.writer = writer
        self.statistics.failure = None

    def _settle_doubt(self) -> None:
        """Find out whether the batch whose commit was interrupted is there: all of it or none of it is."""
        if self._doubt is None:
            return
        batch, rows = self._doubt
        last = batch.first_id + len(rows) - 1
        landed = self._store.digest_of(last) == batch.digest
        self._doubt = None
        if not landed:
            self._inbox.rows.extendleft(reversed(rows))
            return
        chain = self._ready()
        if chain.writer == batch.writer:
            seq, digest = chain.seq, chain.digest
            chain.committed(batch, [row[0] for row in rows])
            chain.seq, chain.digest = seq, digest
        self._deliver.settle(rows, batch.first_id)

    def _serve(self) -> None:
        inbox = self._inbox
        chain = self._ready()
        while True:
            if len(chain.open) >= _GATHER_SIBLINGS and not self.stopping:
                time.sleep(_GATHER_SECONDS)
            rows = inbox.take(self._batch_limit)
            if rows:
                self._write(rows)
            if inbox.orders:
                inbox.orders.popleft().run()
            elif not rows:
                if self.stopping:
                    return
                inbox.wait()

    def _write(self, rows: list[Row]) -> None:
        """Commit rows, but for the intents that were refused while they waited."""
        rows = [row for row in rows if row[1] is None or not row[1].done() or not _withdrawn(row)]
        if not rows:
            return
        self.in_flight = rows
        chain = self._ready()
        batch = chain.batch([encode(row[0]) for row in rows])
        started = time.perf_counter()
        try:
            self._store.append(batch)
        except RowsRefused:
            self._write_one_by_one(rows)
            return
        except StoreFailed:
            self._doubt = batch, rows
            raise
        took = time.perf_counter() - started
        chain.committed(batch, [row[0] for row in rows])
        statistics = self.statistics
        statistics.open_calls = len(chain.open)
        statistics.rows += len(rows)
        statistics.commits += 1
        statistics.commit_seconds += took
        statistics.last_commit_seconds = took
        self._succeeded()
        self._deliver.settle(rows, batch.first_id)
        self.in_flight = ()

    def _write_one_by_one(self, rows: list[Row]) -> None:
        """Write a batch of which some row does not fit; only that row is refused."""
        chain = self._ready()
        for number, row in enumerate(rows):
            batch = chain.batch([mend(row[0])])
            try:
                self._store.append(batch)
            except RowsRefused as refusal:
                _log.error("an audit row cannot be stored: %s", refusal)
                self._deliver.refuse([row], f"the event cannot be stored: {refusal}")
                continue
            except StoreFailed:
                self._inbox.rows.extendleft(reversed(rows[number + 1 :]))
                self._doubt = batch, [row]
                raise
            chain.committed(batch, [row[0]])
            self.statistics.rows += 1
            self.statistics.commits += 1
            self._deliver.settle([row], batch.first_id)
        self.in_flight = ()
        self._succeeded()

    def _succeeded(self) -> None:
        self._proven = True
        self.stalled = False
        self.last_success = time.monotonic()

    def _refuse_all(self, reason: str) -> None:
        """Refuse whoever waits; the rows in doubt stay in doubt, facts stay in the inbox."""
        if self.statistics.failure is None and not self.stopping:
            _log.error("the audit log cannot be written: %s", reason)
        self.statistics.failure = reason
        waiting = [*(self._doubt[1] if self._doubt else ()), *list(self._inbox.rows)]
        self.in_flight = ()
        self._deliver.refuse(waiting, reason)
        while self._inbox.orders:
            self._inbox.orders.popleft().fail(reason)


def _withdrawn(row: Row) -> bool:
    """Tell whether the row is an intent whose caller has been refused (not: has gone away)."""
    future = row[1]
    return row[0].event_type == INTENT and future is not None and not future.cancelled()
