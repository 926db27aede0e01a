"""Closing what a dead writer left open: an outcome `unknown` for every intent that has none."""

import logging
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from apps.audit.sink.chain import Chain
from apps.audit.sink.config import SinkConfig
from apps.audit.sink.record import OUTCOME, AuditRecord, decode, encode
from apps.audit.sink.store import Head, Store
from apps.audit.sink.stores import make_store
from apps.common.clock import now_us

_log = logging.getLogger(__name__)
_ROWS = 128


def closing_record(intent: AuditRecord, *, outcome: str, closed_by: str) -> AuditRecord:
    """Return the outcome that closes an intent on somebody else's behalf."""
    return replace(intent, event_type=OUTCOME, time_us=now_us(), outcome=outcome, details={"closed_by": closed_by})


def close_open_intents(store: Store, head: Head) -> tuple[Head, int]:
    """Append the missing outcomes to the chain of a dead writer, whose lock the caller holds.

    Returns where its chain ends now and how many intents were closed. Raises StoreFailed.
    """
    if head.open_from > head.seq:
        return head, 0
    intents = list(_readable(store.open_intents(head.writer, head.open_from, head.seq)))
    chain = Chain(head)
    for start in range(0, len(intents), _ROWS):
        rows = [
            encode(closing_record(record, outcome="unknown", closed_by="sweep")) for record in intents[start : start + _ROWS]
        ]
        batch = chain.batch(rows)
        batch.open_from = head.open_from
        store.append(batch)
        chain.committed(batch, ())
    head = Head(chain.writer, chain.seq, chain.digest, chain.seq + 1)
    store.nothing_open(head)
    return head, len(intents)


def _readable(bodies: Iterable[bytes]) -> Iterator[AuditRecord]:
    """Give the records of stored bytes; bytes that were tampered with are for the verification to name."""
    for body in bodies:
        try:
            yield decode(body)
        except ValueError:
            _log.exception("an open intent cannot be read and stays open: verify the audit log")


def sweep_dead_writers(config: SinkConfig) -> int:
    """Close the open intents of every writer whose process is gone; return how many.

    Uses a connection of its own and may run in any process: a writer that lives holds its lock and is left alone.
    Raises StoreFailed when the log cannot be read or written.
    """
    store = make_store(config)
    store.open()
    closed = 0
    try:
        for head in store.heads():
            if head.open_from > head.seq or not store.try_lock(head.writer):
                continue
            try:
                closed += close_open_intents(store, store.head(head.writer))[1]
            finally:
                store.unlock(head.writer)
    finally:
        store.close()
    return closed
