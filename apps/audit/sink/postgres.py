"""The log on PostgreSQL: one prepared statement, and so one round trip, for each commit.

The statement takes the rows' bytes alone and has the server read the columns from them: it costs a third of the work in this
process that an array for each column does, and the columns cannot differ from the bytes.
"""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg
from psycopg import pq

from apps.audit.domain import SEQ_BITS
from apps.audit.sink.record import FIELDS, FORM, GENESIS, NUMBERS, TEXTS
from apps.audit.sink.store import Batch, Head, RowsRefused, StoreFailed

LOCK_CLASS = 0x5357_4155
"""First half of the advisory locks that say which writers live; the second is the writer."""
_NAME = b"audit_append"
_INT4, _INT8, _BYTEA, _BYTEAS = 23, 20, 17, 1001
_TYPES = (_INT4, _INT8, _INT8, _BYTEA, _INT8, _BYTEAS, _BYTEAS, _BYTEAS)
_BINARY = [1] * len(_TYPES)
_COLUMNS = ", ".join(FIELDS[2:29])
_APPEND = f"""
WITH head AS (
  UPDATE audit_head SET seq = $3, digest = $4, open_from = $5 WHERE writer = $1 AND seq = $2 RETURNING 1
), line AS MATERIALIZED (
  SELECT $1::bigint << {SEQ_BITS} | ($2 + u.n) AS id, $2 + u.n AS seq, u.previous, u.digest, u.body
  FROM head, unnest($6::bytea[], $7::bytea[], $8::bytea[]) WITH ORDINALITY AS u(previous, digest, body, n)
), chain AS (
  INSERT INTO audit_chain (id, writer, seq, previous, digest, form) SELECT id, $1, seq, previous, digest, {FORM} FROM line
)
INSERT INTO audit_event (id, event_type, time, {_COLUMNS}, body)
SELECT line.id, r.event_type, timestamptz 'epoch' + r.time_us * interval '1 microsecond', {_COLUMNS}, line.body
FROM line, json_to_record(convert_from(line.body, 'UTF8')::json)
  AS r(event_type text, time_us bigint, {", ".join(f"{name} text" for name in TEXTS)},
       {", ".join(f"{name} bigint" for name in NUMBERS)})
"""  # noqa: S608 - made of constants
_OPEN_INTENTS = """
SELECT i.body FROM audit_event i
WHERE i.id BETWEEN %s AND %s AND i.event_type = 'call.intent' AND i.call_id IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM audit_event o WHERE o.call_id = i.call_id AND o.event_type = 'call.outcome') ORDER BY i.id
"""
_HOLDER = """
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2 AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_SESSION = {
    "synchronous_commit": "on",
    "statement_timeout": "1500ms",
    "lock_timeout": "1200ms",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "application_name": "switchyard-audit",
}


class PostgresStore:
    """See `store.Store`. A writer's lock is an advisory lock of the session."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: psycopg.Connection[Any] | None = None
        self._session = 0
        self._sessions: set[int] = set()
        """Sessions of this process that may hold its lock: the last that got it, and those since."""

    def open(self) -> None:
        """Connect and prepare. A dead peer is noticed within 4 s."""
        self.close()
        with _failures():
            self._connection = connection = psycopg.connect(
                self._conninfo,
                autocommit=True,
                connect_timeout=2,
                keepalives_idle=2,
                keepalives_interval=1,
                keepalives_count=2,
                tcp_user_timeout=4000,
            )
            for name, value in _SESSION.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            connection.execute("INSERT INTO audit_relay (id, outbox_id) VALUES (1, 0) ON CONFLICT DO NOTHING")
            _checked(connection.pgconn.prepare(_NAME, _APPEND.encode(), _TYPES))
        # asked while it can be: libpq forgets the backend of a connection that was lost
        self._session = self._one("SELECT pg_backend_pid()", ())[0]
        self._sessions.add(self._session)

    def close(self) -> None:
        """Disconnect; the session's locks go with it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def claim(self, wanted: int | None) -> int:
        """See `Store.claim`; a session of ours that the server has not yet given up is ended."""
        if wanted is not None and (self.try_lock(wanted) or self._regain(wanted)):
            writer = wanted
        else:
            writer = next(number for number in count() if self.try_lock(number))
        with _failures():
            self._db.execute(
                "INSERT INTO audit_head (writer, seq, digest, open_from) SELECT n, 0, %s, 1 FROM generate_series(0, %s) n "
                "ON CONFLICT DO NOTHING",
                (GENESIS, writer),
            )
        return writer

    def try_lock(self, writer: int) -> bool:
        """See `Store.try_lock`."""
        if not self._one("SELECT pg_try_advisory_lock(%s, %s)", (LOCK_CLASS, writer))[0]:
            return False
        self._sessions = {self._session}
        return True

    def unlock(self, writer: int) -> None:
        """See `Store.unlock`."""
        try:
            self._one("SELECT pg_advisory_unlock(%s, %s)", (LOCK_CLASS, writer))
        except StoreFailed:
            pass

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
        parameters = [
            batch.writer.to_bytes(4, "big"),
            batch.start.to_bytes(8, "big"),
            batch.seq.to_bytes(8, "big"),
            batch.digest,
            batch.open_from.to_bytes(8, "big"),
            _array(batch.previous),
            _array(batch.digests),
            _array(batch.bodies),
        ]
        with _failures():
            result = _checked(self._db.pgconn.exec_prepared(_NAME, parameters, _BINARY, 1))
        if result.command_tuples != len(batch.bodies):
            raise StoreFailed("the head of the chain is not where this writer left it")

    def append_relayed(self, batch: Batch, before: int, after: int) -> bool:
        """See `Store.append_relayed`."""
        with _failures(), self._db.transaction():
            moved = self._db.execute("UPDATE audit_relay SET outbox_id=%s WHERE id=1 AND outbox_id=%s", (after, before))
            if moved.rowcount and batch.bodies:
                self.append(batch)
        return bool(moved.rowcount)

    def digest_of(self, event_id: int) -> bytes | None:
        """See `Store.digest_of`."""
        with _failures():
            row = self._db.execute("SELECT digest FROM audit_chain WHERE id=%s", (event_id,)).fetchone()
        return bytes(row[0]) if row else None

    def open_intents(self, writer: int, first: int, last: int) -> list[bytes]:
        """See `Store.open_intents`."""
        base = writer << SEQ_BITS
        with _failures(), self._db.transaction():
            self._db.execute("SET LOCAL statement_timeout = '60s'")
            return [bytes(row[0]) for row in self._db.execute(_OPEN_INTENTS, (base | first, base | last))]

    def nothing_open(self, head: Head) -> None:
        """See `Store.nothing_open`."""
        with _failures():
            self._db.execute(
                "UPDATE audit_head SET open_from=%s WHERE writer=%s AND seq=%s", (head.seq + 1, head.writer, head.seq)
            )

    def probe(self, writer: int) -> None:
        """See `Store.probe`; also asks whether rows may be inserted."""
        with _failures():
            self._db.execute("UPDATE audit_head SET open_from=open_from WHERE writer=%s", (writer,))
        allowed = self._one(
            "SELECT has_table_privilege('audit_chain', 'INSERT') AND has_table_privilege('audit_event', 'INSERT')", ()
        )
        if not allowed[0]:
            raise StoreFailed("the database role may not insert into the log")

    def interrupt(self) -> None:
        """See `Store.interrupt`: cuts the connection under whoever waits for it."""
        connection = self._connection
        try:
            if connection is not None:
                with socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as wire:
                    wire.shutdown(socket.SHUT_RDWR)
        except (OSError, psycopg.Error):
            pass

    @property
    def _db(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            raise StoreFailed("not connected")
        return self._connection

    def _one(self, statement: str, parameters: Sequence[object]) -> tuple[Any, ...]:
        with _failures():
            row = self._db.execute(statement, parameters).fetchone()
        if row is None:
            raise StoreFailed("the database gave no answer")
        return tuple(row)

    def _regain(self, writer: int) -> bool:
        """Take a lock back from the session this process lost; False when another process has it."""
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            with _failures():
                holder = self._db.execute(_HOLDER, (LOCK_CLASS, writer)).fetchone()
            if holder is not None and holder[0] not in self._sessions:
                return False
            if holder is not None:
                self._one("SELECT pg_terminate_backend(%s, 300)", (holder[0],))
            if self.try_lock(writer):
                return True
        raise StoreFailed("the lost session still holds the writer's lock")


def _array(items: list[bytes]) -> bytes:
    """Return the binary form of a one-dimensional `bytea[]` without nulls (array_send of PostgreSQL)."""
    parts = [b"\0\0\0\1\0\0\0\0\0\0\0\x11", len(items).to_bytes(4, "big"), b"\0\0\0\1"]
    for item in items:
        parts.append(len(item).to_bytes(4, "big"))
        parts.append(item)
    return b"".join(parts)


def _checked(result: Any) -> Any:
    if result.status == pq.ExecStatus.COMMAND_OK:
        return result
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    message = (result.error_message or b"").decode("utf-8", "replace").strip()
    # 22: a value does not fit; 23502: null where there must be none; 54: too complex (SQLSTATE classes)
    if state[:2] in ("22", "54") or state == "23502":
        raise RowsRefused(message)
    raise StoreFailed(message or "the connection to the database was lost")


@contextmanager
def _failures() -> Iterator[None]:
    """Say psycopg's errors in the words of `store`."""
    try:
        yield
    except psycopg.Error as error:
        raise StoreFailed(str(error).strip() or type(error).__name__) from error
