"""Helpers for tests of the audit log: configurations of fresh logs, records, raw reads, tampering."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connections

from apps.audit.sink.config import SinkConfig
from apps.audit.sink.record import INTENT, OUTCOME, AuditRecord
from apps.audit.sink.sink import DurableSink, open_sink
from apps.audit.sink.stores import make_store
from apps.common.ids import new_id

ROOT = Path(__file__).resolve().parent.parent.parent
GUARDED = ("audit_chain", "audit_event", "audit_gone", "audit_head")


_MIGRATE = """
import sys
from urllib.parse import urlsplit
import django
from django.conf import settings
at = urlsplit(sys.argv[1])
database = {
    "ENGINE": "django.db.backends.postgresql", "NAME": at.path[1:], "USER": at.username, "PASSWORD": at.password,
    "HOST": at.hostname, "PORT": at.port,
} if at.scheme.startswith("postgres") else {"ENGINE": "django.db.backends.sqlite3", "NAME": at.path[1:]}
settings.configure(
    INSTALLED_APPS=["apps.common", "apps.audit"], DATABASES={"default": database}, AUDIT_DATABASE="default",
    DATABASE_ROUTERS=["apps.audit.router.AuditRouter"], USE_TZ=True,
)
django.setup()
from django.core.management import call_command
call_command("migrate", "audit", *sys.argv[2:], verbosity=0, skip_checks=True)
"""


def migrate(url: str, *target: str) -> None:
    """Make the log's tables in the database of an address; the rest of the product is not needed for that."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", _MIGRATE, url, *target], check=True, cwd=ROOT)


def intent(call_id: str | None = None, **fields: Any) -> AuditRecord:
    """An intent as the gateway writes it."""
    values = {
        "tenant": "t1",
        "actor_kind": "api_key",
        "actor_id": "k1",
        "actor": "key one",
        "origin": "mcp",
        "action": "tool.call",
    }
    values |= {"object_kind": "tool", "object": "echo__say", "server": "echo", "tool": "say", "request_bytes": 10}
    return AuditRecord(INTENT, time.time_ns() // 1000, call_id=call_id or str(new_id()), **{**values, **fields})


def outcome(call_id: str, **fields: Any) -> AuditRecord:
    """The outcome of a call."""
    record = intent(call_id, **{"outcome": "ok", "duration_us": 1500, "response_bytes": 20, **fields})
    record.event_type = OUTCOME
    return record


def note(event_type: str = "test.noted", **fields: Any) -> AuditRecord:
    """An event that is no call."""
    return AuditRecord(event_type, time.time_ns() // 1000, **fields)


@asynccontextmanager
async def running(config: SinkConfig, *, ready: bool = True) -> AsyncIterator[DurableSink]:
    """A started sink, closed at the end."""
    sink = open_sink(config)
    sink.start(asyncio.get_running_loop())
    try:
        if ready:
            assert await sink.ready(), sink.failure
        yield sink
    finally:
        await sink.aclose()


@contextmanager
def raw(config: SinkConfig) -> Iterator[Any]:
    """A connection of its own to a log; `.execute(sql)` in autocommit, with `?` for parameters on neither."""
    if config.postgres:
        import psycopg

        with psycopg.connect(config.postgres, autocommit=True) as connection:
            yield connection
    else:
        import sqlite3

        connection = sqlite3.connect(config.sqlite, isolation_level=None, timeout=10)
        with contextlib.closing(connection):
            yield connection


def rows(config: SinkConfig, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with raw(config) as connection:
        return [tuple(row) for row in connection.execute(statement).fetchall()]


def open_calls(config: SinkConfig) -> list[bytes]:
    """Bodies of every intent without an outcome."""
    store = make_store(config)
    store.open()
    try:
        return [body for head in store.heads() for body in store.open_intents(head.writer, 0, head.seq)]
    finally:
        store.close()


def chain_is_whole(config: SinkConfig) -> int:
    """Check every chain of a log with code of its own (not the product's) and return the number of rows."""
    import hashlib
    import struct

    heads = {writer: (seq, bytes(digest)) for writer, seq, digest in rows(config, "SELECT writer, seq, digest FROM audit_head")}
    found = rows(
        config,
        "SELECT c.id, c.writer, c.seq, c.previous, c.digest, e.body FROM audit_chain c JOIN audit_event e ON e.id = c.id ORDER BY c.id",
    )
    ends = dict.fromkeys(heads, (0, bytes(32)))
    for identity, writer, seq, previous, digest, body in found:
        assert identity == writer << 40 | seq
        assert seq == ends[writer][0] + 1, f"gap before {writer}-{seq}"
        assert bytes(previous) == ends[writer][1]
        assert bytes(digest) == hashlib.sha256(struct.pack(">hiq", 1, writer, seq) + bytes(previous) + bytes(body)).digest()
        ends[writer] = seq, bytes(digest)
    assert ends == heads
    assert rows(config, "SELECT count(*) FROM audit_event") == [(len(found),)]
    return len(found)


@contextmanager
def unguarded(connection: Any) -> Iterator[None]:
    """Take the guards of a log away (as somebody who owns the database could) and put them back."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            for table in GUARDED:
                cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            made = []
        else:
            cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'audit%_no_%'")
            made = cursor.fetchall()
            for name, _ in made:
                cursor.execute(f"DROP TRIGGER {name}")
        try:
            yield
        finally:
            if connection.vendor == "postgresql":
                for table in GUARDED:
                    cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
            for _, statement in made:
                cursor.execute(statement)


def wipe() -> None:
    """Empty the log of the test database."""
    connection = connections[settings.AUDIT_DATABASE]
    with unguarded(connection), connection.cursor() as cursor:
        for table in (*GUARDED, "audit_relay"):
            cursor.execute(f"DELETE FROM {table}")


def write(config: SinkConfig, records: list[AuditRecord]) -> list[int]:
    """Append records through a sink of their own and return their ids."""

    async def append() -> list[int]:
        async with running(config) as sink:
            return list(await asyncio.gather(*(sink.append(record) for record in records)))

    return asyncio.run(append())
