"""The log on SQLite: one file in WAL mode with `synchronous=FULL`, one statement for each commit.

The statement inserts into the view `audit_append`, whose trigger (see the migrations) writes chain, event and head. One
statement is one step of the engine and so one release of the interpreter's lock: with a statement for each row the thread
would queue for that lock behind the event loop many times in every commit.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from apps.audit.domain import SEQ_BITS, SEQ_MASK
from apps.audit.sink.record import FIELDS, FORM, GENESIS
from apps.audit.sink.store import Batch, Head, RowsRefused, StoreFailed

LOCK_WAIT = 1.2
"""Seconds to wait for another process that writes to the file."""
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Rows for which there is a statement; what a batch lacks is filled with empty rows, which the trigger passes over."""
_COLUMNS = ("id", "previous", "digest", "form", "head_from", "open_from", "event_type", "time", *FIELDS[2:29], "body")
_EMPTY = (None,) * len(_COLUMNS)
_CHECKPOINT_PAGES = 2_000
_SETUP = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA cache_size=-20000",
    "PRAGMA journal_size_limit=67108864",
    f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}",
)
_OPEN_INTENTS = """
SELECT i.body FROM audit_event i WHERE i.id BETWEEN ? AND ? AND i.event_type = 'call.intent' AND i.call_id IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM audit_event o WHERE o.call_id = i.call_id AND o.event_type = 'call.outcome') ORDER BY i.id
"""


@lru_cache(maxsize=len(_SIZES))
def _statement(rows: int) -> str:
    row = f"({','.join('?' * len(_COLUMNS))})"
    return f"INSERT INTO audit_append ({','.join(_COLUMNS)}) VALUES {','.join([row] * rows)}"  # noqa: S608 - constants


class SqliteStore:
    """See `store.Store`. A writer's lock is a `flock` on a file, so it ends with its process and not with the connection."""

    def __init__(self, path: Path, locks: Path) -> None:
        self._path = path
        self._locks = locks
        self._held: dict[int, int] = {}
        self._connection: sqlite3.Connection | None = None
        self._second = -1
        self._second_text = ""

    def open(self) -> None:
        """Connect to the file, which must exist."""
        self.close()
        with _failures():
            self._connection = sqlite3.connect(
                f"file:{quote(str(self._path))}?mode=rw",
                uri=True,
                isolation_level=None,
                timeout=LOCK_WAIT,
                cached_statements=len(_SIZES) + 20,
                check_same_thread=False,
            )
            for pragma in _SETUP:
                self._connection.execute(pragma)
            self._connection.execute("INSERT OR IGNORE INTO audit_relay (id, outbox_id) VALUES (1, 0)")

    def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                pass

    def claim(self, wanted: int | None) -> int:
        """See `Store.claim`."""
        if wanted is not None and wanted in self._held:
            writer = wanted
        else:
            writer = next(number for number in count() if self.try_lock(number))
        with _failures():
            self._db.executemany(
                "INSERT OR IGNORE INTO audit_head (writer, seq, digest, open_from) VALUES (?, 0, ?, 1)",
                [(number, GENESIS) for number in range(writer + 1)],
            )
        return writer

    def try_lock(self, writer: int) -> bool:
        """See `Store.try_lock`."""
        with _failures():
            self._locks.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._locks / f"audit-writer-{writer}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
        self._held[writer] = descriptor
        return True

    def unlock(self, writer: int) -> None:
        """See `Store.unlock`."""
        descriptor = self._held.pop(writer, None)
        if descriptor is not None:
            os.close(descriptor)

    def head(self, writer: int) -> Head:
        """See `Store.head`."""
        return next(head for head in self.heads() if head.writer == writer)

    def heads(self) -> list[Head]:
        """See `Store.heads`."""
        with _failures():
            rows = self._db.execute("SELECT writer, seq, digest, open_from FROM audit_head ORDER BY writer").fetchall()
        return [Head(*row) for row in rows]

    def append(self, batch: Batch) -> None:
        """See `Store.append`."""
        rows = len(batch.bodies)
        size = next(size for size in _SIZES if size >= rows)
        with _failures():
            self._db.execute(_statement(size), self._parameters(batch, size - rows))

    def append_relayed(self, batch: Batch, before: int, after: int) -> bool:
        """See `Store.append_relayed`."""
        with _failures():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                moved = self._db.execute("UPDATE audit_relay SET outbox_id=? WHERE id=1 AND outbox_id=?", (after, before))
                if moved.rowcount and batch.bodies:
                    self.append(batch)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        return bool(moved.rowcount)

    def digest_of(self, event_id: int) -> bytes | None:
        """See `Store.digest_of`."""
        with _failures():
            row = self._db.execute("SELECT digest FROM audit_chain WHERE id=?", (event_id,)).fetchone()
        return row[0] if row else None

    def open_intents(self, writer: int, first: int, last: int) -> list[bytes]:
        """See `Store.open_intents`."""
        base = writer << SEQ_BITS
        with _failures():
            return [row[0] for row in self._db.execute(_OPEN_INTENTS, (base | first, base | last))]

    def nothing_open(self, head: Head) -> None:
        """See `Store.nothing_open`."""
        with _failures():
            self._db.execute(
                "UPDATE audit_head SET open_from=? WHERE writer=? AND seq=?", (head.seq + 1, head.writer, head.seq)
            )

    def probe(self, writer: int) -> None:
        """See `Store.probe`."""
        with _failures():
            self._db.execute("UPDATE audit_head SET open_from=open_from WHERE writer=?", (writer,))

    def interrupt(self) -> None:
        """See `Store.interrupt`."""
        connection = self._connection
        if connection is not None:
            try:
                connection.interrupt()
            except sqlite3.Error:
                pass

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreFailed("not connected")
        return self._connection

    def _parameters(self, batch: Batch, empty: int) -> list[Any]:
        """Lay a batch out for its statement; the last row carries the head."""
        flat: list[Any] = []
        identity = batch.first_id
        last = batch.writer << SEQ_BITS | (batch.seq & SEQ_MASK)
        for previous, digest, values, body in zip(batch.previous, batch.digests, batch.values, batch.bodies, strict=True):
            second, microsecond = divmod(values[1], 1_000_000)
            if second != self._second:
                self._second_text = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second))
                self._second = second
            # Django's own form of a time, which leaves a fraction of nought out
            when = f"{self._second_text}.{microsecond:06d}" if microsecond else self._second_text
            if identity == last:
                flat += (identity, previous, digest, FORM, batch.start, batch.open_from, values[0], when)
            else:
                flat += (identity, previous, digest, FORM, None, None, values[0], when)
            flat += values[2:29]
            flat.append(body)
            identity += 1
        flat += _EMPTY * empty
        return flat


@contextmanager
def _failures() -> Iterator[None]:
    """Say SQLite's refusals in the words of `store`."""
    try:
        yield
    except (OverflowError, UnicodeError, ValueError, TypeError) as error:
        raise RowsRefused(str(error)) from error
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError) as error:
        raise RowsRefused(str(error)) from error
    except sqlite3.IntegrityError as error:
        if "NOT NULL" in str(error):
            raise RowsRefused(str(error)) from error
        raise StoreFailed(str(error)) from error
    except (sqlite3.Error, OSError) as error:
        raise StoreFailed(str(error) or type(error).__name__) from error
