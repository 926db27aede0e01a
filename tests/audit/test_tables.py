"""The log's tables: guarded against change, as wide as the sink cuts, one writer's statement each."""

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.db.utils import DatabaseError

from apps.audit.models import AuditEvent
from apps.audit.sink.config import SinkConfig
from apps.audit.sink.record import EVENT_TYPE_WIDTH, FIELDS, NUMBERS, TEXTS, WIDTHS
from tests.audit import logs


def test_the_sink_cuts_texts_to_the_widths_of_the_columns() -> None:
    columns = {field.name: field for field in AuditEvent._meta.fields}
    assert tuple(columns) == ("id", "event_type", "time", *FIELDS[2:29], "body")
    assert {name: columns[name].max_length for name in TEXTS} == dict(zip(TEXTS, WIDTHS, strict=True))
    assert columns["event_type"].max_length == EVENT_TYPE_WIDTH
    assert {columns[name].get_internal_type() for name in NUMBERS} == {"BigIntegerField"}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET tool = 'x'", "UPDATE audit_event SET body = '{}' WHERE id = 1", "DELETE FROM audit_event",
        "UPDATE audit_chain SET seq = 9", "DELETE FROM audit_chain WHERE id = 1", "DELETE FROM audit_head",
    ],
)  # fmt: skip
def test_rows_cannot_be_changed_or_removed(log: SinkConfig, statement: str) -> None:
    logs.write(log, [logs.note()])
    with (
        pytest.raises(DatabaseError, match="kept as they were written"),
        connections[settings.AUDIT_DATABASE].cursor() as cursor,
    ):
        cursor.execute(statement)
    assert logs.chain_is_whole(log) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "REPLACE INTO audit_event SELECT * FROM audit_event",
        "INSERT OR REPLACE INTO audit_chain SELECT * FROM audit_chain",
        "UPDATE OR REPLACE audit_event SET id = 1 WHERE id = 2",
        "INSERT INTO audit_event SELECT * FROM audit_event WHERE true ON CONFLICT (id) DO UPDATE SET actor = 'mallory'",
    ],
)
def test_rows_cannot_be_replaced(sqlite_config: SinkConfig, statement: str) -> None:
    import sqlite3

    logs.write(sqlite_config, [logs.note(), logs.note()])
    with logs.raw(sqlite_config) as connection, pytest.raises(sqlite3.IntegrityError, match="kept as they were written"):
        connection.execute(statement)
    with logs.raw(sqlite_config) as connection:
        connection.execute("REPLACE INTO audit_head (writer, seq, digest, open_from) VALUES (0, 0, x'00', 1)")
    assert logs.chain_is_whole(sqlite_config) == 2


@pytest.mark.parametrize("table", ["audit_event", "audit_chain", "audit_head"])
def test_rows_cannot_be_truncated(postgres_config: SinkConfig, table: str) -> None:
    import psycopg

    with logs.raw(postgres_config) as connection:
        connection.execute(f"TRUNCATE {table}")
    logs.write(postgres_config, [logs.note()])
    with logs.raw(postgres_config) as connection, pytest.raises(psycopg.Error, match="kept as they were written"):
        connection.execute(f"TRUNCATE {table} CASCADE")


def test_the_guards_go_and_come_with_their_migration(sqlite_config: SinkConfig, postgres_config: SinkConfig) -> None:
    for config in (sqlite_config, postgres_config):
        url = config.postgres or f"sqlite:///{config.sqlite}"
        logs.migrate(url, "0001")
        logs.migrate(url)
        assert logs.write(config, [logs.note()]) == [1]


@pytest.mark.django_db
def test_the_models_have_no_change_without_a_migration() -> None:
    call_command("makemigrations", "audit", check=True, dry_run=True, verbosity=0)


def test_appending_on_sqlite_needs_the_rows_own_tree_only(sqlite_config: SinkConfig) -> None:
    made = logs.rows(sqlite_config, "SELECT sql FROM sqlite_master WHERE name IN ('audit_event', 'audit_chain')")
    assert all('"id" integer NOT NULL PRIMARY KEY' in statement for (statement,) in made)
