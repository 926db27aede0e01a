"""The role that serves on PostgreSQL: it appends and reads, and cannot change the log even where no trigger stands in the way."""

import io
import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connections

from apps.audit.services.verify import check_log
from apps.audit.sink.config import SinkConfig
from tests import services
from tests.audit import logs


@pytest.fixture
def served(log: SinkConfig) -> Iterator[tuple[SinkConfig, str]]:
    """The log as the serving role sees it, and that role's name."""
    if log.postgres is None:
        pytest.skip("SQLite has no roles")
    name, password = f"app_{secrets.token_hex(4)}", secrets.token_hex(8)
    with logs.raw(log) as owner:
        facts = owner.info
        at = {"host": facts.host, "port": facts.port, "dbname": facts.dbname}
        above = psycopg.conninfo.make_conninfo(**at, user="postgres", password=services.postgres().password)
        with psycopg.connect(above, autocommit=True) as administrator:
            administrator.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
            call_command("audit", "grant", name, stdout=io.StringIO())
            yield SinkConfig(postgres=psycopg.conninfo.make_conninfo(**at, user=name, password=password)), name
            administrator.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_it_appends_and_cannot_change_even_without_triggers(served: tuple[SinkConfig, str], log: SinkConfig) -> None:
    config, _ = served
    assert logs.write(config, [logs.intent("a"), logs.outcome("a"), logs.note()]) == [1, 2, 3]
    with logs.unguarded(connections[settings.AUDIT_DATABASE]), logs.raw(config) as app:
        assert app.execute("SELECT current_user = tableowner FROM pg_tables WHERE tablename = 'audit_event'").fetchone() == (
            False,
        )
        for statement in (
            "UPDATE audit_event SET actor = 'x'", "DELETE FROM audit_event", "TRUNCATE audit_event", "UPDATE audit_chain SET form = 2",
            "DELETE FROM audit_chain", "TRUNCATE audit_chain CASCADE", "DELETE FROM audit_head", "TRUNCATE audit_head",
            "INSERT INTO audit_gone VALUES (1, 2, 3)", "UPDATE audit_gone SET last = 5", "UPDATE audit_checkpoint SET line = ''",
            "ALTER TABLE audit_event DISABLE TRIGGER ALL", "DROP TRIGGER audit_event_keep_rows ON audit_event", "DROP TABLE audit_event",
            "CREATE RULE r AS ON INSERT TO audit_event DO INSTEAD NOTHING", "SET session_replication_role = replica",
            "CREATE OR REPLACE FUNCTION audit_keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(statement)
    with logs.raw(config) as app, pytest.raises(psycopg.errors.IntegrityConstraintViolation):
        app.execute("SELECT audit_remove(3, 1, 2)")
    assert check_log().ok


def test_retention_works_for_it(served: tuple[SinkConfig, str], log: SinkConfig) -> None:
    config, _ = served
    details = {"writer": 0, "runs": [[1, 2]]}
    logs.write(config, [logs.intent("a"), logs.outcome("a"), logs.note("audit.payloads_removed", object_kind="audit", object_id="log", details=details)])  # fmt: skip
    with logs.raw(config) as app:
        assert app.execute("SELECT audit_remove(3, 1, 2)").fetchone() == (2,)
    report = check_log()
    assert report.ok, report.problems
    assert report.payloads_gone == 2


def test_who_owns_the_log_is_not_for_serving(served: tuple[SinkConfig, str]) -> None:
    with pytest.raises(CommandError, match="owns the log"):
        call_command("audit", "grant", str(connections[settings.AUDIT_DATABASE].settings_dict["USER"]), stdout=io.StringIO())
    with pytest.raises(CommandError, match="has no role"):
        call_command("audit", "grant", 'x"; DROP TABLE audit_event; --', stdout=io.StringIO())


def test_sqlite_has_no_roles(log: SinkConfig) -> None:
    if log.postgres is not None:
        pytest.skip("PostgreSQL has")
    with pytest.raises(CommandError, match="PostgreSQL"):
        call_command("audit", "grant", "app", stdout=io.StringIO())


def test_export_on_the_command_line(log: SinkConfig, tmp_path: Path) -> None:
    logs.write(log, [logs.note(server="a"), logs.note(server="b")])
    call_command(
        "audit", "export", "jsonl", str(tmp_path / "out"), "--filter", "server=a", "--since", "2020-01-01", stderr=io.StringIO()
    )
    assert len((tmp_path / "out").read_text().splitlines()) == 1
    with pytest.raises(CommandError, match="cannot be written"):
        call_command("audit", "export", "csv", str(tmp_path / "no" / "out"), stderr=io.StringIO())
    with pytest.raises(CommandError, match="Unknown filter"):
        call_command("audit", "export", "csv", str(tmp_path / "out"), "--filter", "body=x", stderr=io.StringIO())
