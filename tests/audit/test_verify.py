"""The check of the log finds every kind of tampering, and names the first row that is not as it was written."""

import asyncio
import threading

import pytest
from django.conf import settings
from django.db import connections, transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from apps.audit.domain import event_name, parse_event_name
from apps.audit.models import RollupCursor
from apps.audit.services.verify import check_log, verify_log
from apps.audit.sink.config import SinkConfig
from apps.common import authorise
from apps.common.context import Actor, every_tenant, tenant_scope
from apps.common.errors import PermissionDenied
from apps.common.models import OutboxEvent
from apps.common.policy import Principal
from tests.audit import logs

ROWS = 12
MUTATIONS = [
    "body", "column", "digest", "previous", "form", "seq", "writer", "delete event", "delete chain", "delete both", "tail",
    "swap bodies", "swap rows", "insert event", "copy row", "head digest", "head back", "head on", "head gone", "whole writer",
    "move row",
]  # fmt: skip
OTHER_COLUMNS = ["tenant", "actor", "tool", "outcome", "event_type", "time", "duration_us", "cost_micros"]


class Tamper:
    """Changes a log as somebody with the database's rights could; each method returns the row that must be named."""

    def __init__(self) -> None:
        self.connection = connections[settings.AUDIT_DATABASE]

    def run(self, statement: str, *parameters: object) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, parameters)

    def one(self, statement: str, *parameters: object) -> tuple:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchone()

    def apply(self, kind: str, row: int, other: int, column: str) -> int | None:
        if kind == "body":
            body = bytearray(self.one("SELECT body FROM audit_event WHERE id = %s", row)[0])
            body[other % len(body)] ^= 1
            self.run("UPDATE audit_event SET body = %s WHERE id = %s", bytes(body), row)
        elif kind == "column":
            value = {"time": "2001-01-01 00:00:00+00", "duration_us": 987, "cost_micros": 5}.get(column, "forged")
            self.run(f"UPDATE audit_event SET {column} = %s WHERE id = %s", value, row)
        elif kind in ("digest", "previous"):
            self.run(f"UPDATE audit_chain SET {kind} = %s WHERE id = %s", bytes(31) + b"x", row)
        elif kind == "form":
            self.run("UPDATE audit_chain SET form = 2 WHERE id = %s", row)
        elif kind in ("seq", "writer"):
            self.run(f"UPDATE audit_chain SET {kind} = {kind} + 5 WHERE id = %s", row)
        elif kind == "delete event":
            self.run("DELETE FROM audit_event WHERE id = %s", row)
        elif kind == "delete chain":
            self.run("DELETE FROM audit_chain WHERE id = %s", row)
        elif kind == "delete both":
            self.run("DELETE FROM audit_event WHERE id = %s", row)
            self.run("DELETE FROM audit_chain WHERE id = %s", row)
        elif kind == "tail":
            self.run("DELETE FROM audit_event WHERE id >= %s AND id < %s", row, (row >> 40) + 1 << 40)
            self.run("DELETE FROM audit_chain WHERE id >= %s AND id < %s", row, (row >> 40) + 1 << 40)
        elif kind in ("swap bodies", "swap rows"):
            neighbour = row - 1 if (row & 0xFFFF) > 1 else row + 1
            row = min(row, neighbour)
            for table in ("audit_event",) if kind == "swap bodies" else ("audit_event", "audit_chain"):
                for before, after in ((row, -1), (row + 1, row), (-1, row + 1)):
                    self.run(f"UPDATE {table} SET id = %s WHERE id = %s", after, before)
        elif kind == "insert event":
            row = (row & ~0xFFFF) + 900 + other
            self.run(
                "INSERT INTO audit_event (id, event_type, time, body) VALUES (%s, 'x', '2026-01-01 00:00:00+00', %s)",
                row,
                b"{}",
            )
            return (row & ~0xFFFF) + ROWS + 1
        elif kind == "copy row":
            end = (row & ~0xFFFF) + ROWS + 1
            self.run(
                "INSERT INTO audit_chain (id, writer, seq, previous, digest, form) SELECT %s, writer, %s, previous, digest, form "
                "FROM audit_chain WHERE id = %s", end, ROWS + 1, row,
            )  # fmt: skip
            return end
        elif kind == "head digest":
            self.run("UPDATE audit_head SET digest = %s WHERE writer = %s", bytes(32), row >> 40)
            return (row & ~0xFFFF) + ROWS
        elif kind == "head back":
            seq = row & 0xFFFF
            if seq == ROWS:
                return None
            self.run("UPDATE audit_head SET seq = %s, digest = (SELECT digest FROM audit_chain WHERE id = %s) WHERE writer = %s", seq, row, row >> 40)  # fmt: skip
            return row + 1
        elif kind == "head on":
            self.run("UPDATE audit_head SET seq = seq + %s WHERE writer = %s", 1 + other % 5, row >> 40)
            return (row & ~0xFFFF) + ROWS + 1
        elif kind == "head gone":
            self.run("DELETE FROM audit_head WHERE writer = %s", row >> 40)
            return (row & ~0xFFFF) + ROWS
        elif kind == "whole writer":
            # the second one is what the first cannot hide: writers are numbered without gaps
            for table in ("audit_chain", "audit_event"):
                self.run(f"DELETE FROM {table} WHERE id < %s", 1 << 40)
            self.run("DELETE FROM audit_head WHERE writer = 0")
            return 1
        elif kind == "move row":
            target = 7 << 40 | (row & 0xFFFF)
            for table in ("audit_event", "audit_chain"):
                self.run(f"UPDATE {table} SET id = %s WHERE id = %s", target, row)
        return row


@pytest.fixture
def written(log: SinkConfig) -> SinkConfig:
    """A log with two chains of ROWS rows each."""

    async def fill() -> None:
        async with logs.running(log) as first, logs.running(log) as second:
            for sink in (first, second):
                for number in range(ROWS // 2):
                    await sink.append(logs.intent(f"c{number}"))
                    await sink.append(logs.outcome(f"c{number}"))

    asyncio.run(fill())
    return log


@hypothesis_settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(MUTATIONS),
    writer=st.integers(0, 1),
    seq=st.integers(1, ROWS),
    other=st.integers(0, 400),
    column=st.sampled_from(OTHER_COLUMNS),
)
def _every_mutation(kind: str, writer: int, seq: int, other: int, column: str) -> None:
    tamper = Tamper()
    with transaction.atomic(using=settings.AUDIT_DATABASE):
        with logs.unguarded(tamper.connection):
            bad = tamper.apply(kind, writer << 40 | seq, other, column)
        report = check_log()
        transaction.set_rollback(True, using=settings.AUDIT_DATABASE)
    if bad is None:
        return
    assert not report.ok, kind
    assert event_name(bad) in {problem.event_id for problem in report.problems}, (kind, report.problems)
    if kind != "column":
        assert report.what


def test_every_kind_of_tampering_is_found(written: SinkConfig) -> None:
    _every_mutation()
    report = check_log()
    assert report.ok, report.problems
    assert report.rows == 2 * ROWS


def test_each_kind_of_tampering_is_found_without_columns_too(written: SinkConfig) -> None:
    tamper = Tamper()
    for kind in MUTATIONS:
        with transaction.atomic(using=settings.AUDIT_DATABASE):
            with logs.unguarded(tamper.connection):
                bad = tamper.apply(kind, 1 << 40 | 4, 3, "actor")
            report = check_log(columns=False)
            whole = check_log() if kind == "column" else None
            transaction.set_rollback(True, using=settings.AUDIT_DATABASE)
        assert report.ok is (kind == "column"), kind
        assert whole is None or "column actor" in whole.what, "an altered column must not pass unless it was asked for"
        if kind != "column":
            assert event_name(bad) in {problem.event_id for problem in report.problems}, (kind, report.problems)


def test_a_cut_tail_with_its_head_is_betrayed_by_the_rollups(written: SinkConfig) -> None:
    RollupCursor.objects.create(writer=1, seq=ROWS)
    tamper = Tamper()
    with logs.unguarded(tamper.connection):
        tamper.apply("tail", 1 << 40 | 9, 0, "")
        tamper.run(
            "UPDATE audit_head SET seq = 8, digest = (SELECT digest FROM audit_chain WHERE id = %s) WHERE writer = 1",
            1 << 40 | 8,
        )
    report = check_log()
    assert report.first_bad == "1-9"
    assert "cut off" in report.what


def test_an_empty_log_is_whole(log: SinkConfig) -> None:
    assert check_log().ok


def test_it_is_right_while_rows_are_appended(log: SinkConfig) -> None:
    stop = threading.Event()
    counted: list[int] = []

    async def load() -> None:
        async with logs.running(log) as sink:
            while not stop.is_set():
                counted.append(await sink.append(logs.note(details={"x": "y" * 50})))

    thread = threading.Thread(target=lambda: asyncio.run(load()))
    thread.start()
    try:
        for _ in range(15):
            report = check_log()
            assert report.ok, report.problems
    finally:
        stop.set()
        thread.join()
    assert check_log().rows == len(counted)


def test_progress_is_told(written: SinkConfig) -> None:
    told: list[tuple[int, int]] = []
    check_log(progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (2 * ROWS, 2 * ROWS)


def test_a_check_leaves_an_event_and_needs_the_right(written: SinkConfig) -> None:
    root = Actor(kind="system", id="cli", label="command line", is_superuser=True, origin="cli")
    with every_tenant(root):
        report = verify_log()
    assert report.ok
    payload = OutboxEvent.objects.get(topic="audit").payload
    assert payload["event_type"] == "audit.verified"
    assert payload["actor_label"] == "command line"
    assert payload["details"]["rows"] == 2 * ROWS


def test_a_check_is_for_superusers(written: SinkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = Principal(kind="user", id="u", label="ann", tenant_id="t1", permissions=frozenset({"*.*"}))
    monkeypatch.setattr(authorise, "_source", lambda: admin)
    tenant = "0193b1f2-aaaa-7bbb-8ccc-1234567890ab"
    with tenant_scope(tenant, Actor(kind="user", id="u", label="ann", origin="admin")), pytest.raises(PermissionDenied):
        verify_log()
    assert OutboxEvent.objects.get(topic="audit").payload["event_type"] == "access.refused"


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "a-b", "1-2-3", "١-2", "99999999-1", f"0-{2**40}", "0--1"])
def test_names_that_are_none(text: str) -> None:
    assert parse_event_name(text) is None


def test_names_go_both_ways() -> None:
    assert parse_event_name(event_name(3 << 40 | 77)) == 3 << 40 | 77
