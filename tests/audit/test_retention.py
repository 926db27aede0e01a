"""Payloads go at their age, announced before; the chain still verifies, and nothing else can be made to go."""

import io

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections, transaction
from django.db.utils import DatabaseError

from apps.audit.models import AuditChain, AuditEvent, AuditGone, AuditRemoval, CallRollup
from apps.audit.services import retention
from apps.audit.services.retention import carry_out, retain, retention_rules, set_retention
from apps.audit.services.rollups import rebuild, roll_up_all
from apps.audit.services.verify import check_log
from apps.audit.sink.config import SinkConfig
from apps.common import authorise
from apps.common.clock import now_us
from apps.common.context import SYSTEM, Actor, every_tenant, tenant_scope
from apps.common.errors import Conflict, PermissionDenied, ValidationFailed
from apps.common.models import OutboxEvent
from apps.common.policy import Principal
from tests.audit import logs

DAY = 86_400_000_000
ONE, OTHER = "0193b1f2-aaaa-7bbb-8ccc-1234567890ab", "0193b1f2-aaaa-7bbb-8ccc-1234567890ac"


def aged(record, days: float):
    """The same, so many days ago."""
    record.time_us = now_us() - int(days * DAY)
    return record


@pytest.fixture
def filled(log: SinkConfig) -> SinkConfig:
    """Old and new calls of two tenants, a sign-in, a change, a check of the log."""
    records = []
    for number, days in enumerate((40, 40, 20, 1)):
        for tenant in (ONE, OTHER):
            call = f"{number}-{tenant[-2:]}"
            records += [aged(logs.intent(call, tenant=tenant), days), aged(logs.outcome(call, tenant=tenant), days)]
    records += [aged(logs.note(kind), 40) for kind in ("auth.login", "server.updated", "audit.verified", "session.ended")]
    logs.write(log, records)
    roll_up_all()
    return log


def apply() -> str:
    """Let everything go that is of age, as the command does."""
    out = io.StringIO()
    call_command("audit", "retention", "--apply", stdout=out)
    return out.getvalue()


def left() -> list[str]:
    """Types and tenants of what is left, but for what the removal itself wrote."""
    rows = AuditEvent.objects.exclude(event_type__in=("audit.payloads_removed", "audit.retention_set")).order_by("id")
    return [f"{row.event_type} {(row.tenant or '')[-2:]}".strip() for row in rows]


def test_old_calls_go_and_the_log_still_verifies(filled: SinkConfig) -> None:
    with every_tenant(SYSTEM):
        set_retention("calls", 30)
    assert "Removed 8 payloads" in apply()
    assert len([one for one in left() if one.startswith("call.")]) == 8
    assert {"auth.login", "server.updated", "audit.verified", "session.ended"} <= set(left())
    assert AuditChain.objects.count() == AuditEvent.objects.count() + 8
    for columns in (True, False):
        report = check_log(columns=columns)
        assert report.ok, report.problems
        assert report.payloads_gone == 8
        assert len(report.removals) == 1
    announced = AuditEvent.objects.get(event_type="audit.payloads_removed")
    assert AuditRemoval.objects.get().event == announced.pk
    assert "Removed 0 payloads" in apply()
    out = io.StringIO()
    call_command("audit", "verify", stdout=out)
    assert f"payload gone by retention: 8 (last event {announced.event_id})" in out.getvalue()
    assert CallRollup.objects.filter(span="day").exists()
    with pytest.raises(Conflict):
        rebuild()


def test_a_tenants_own_rule_holds_for_it_alone(filled: SinkConfig) -> None:
    with every_tenant(SYSTEM):
        set_retention("calls", 30)
        set_retention("calls", 10, tenant=ONE)
        set_retention("calls", 9_000, tenant=OTHER)
        set_retention("security", 30)
        set_retention("administration", 30)
    apply()
    assert [one for one in left() if one.startswith("call.")].count("call.outcome ab") == 1
    assert [one for one in left() if one.startswith("call.")].count("call.outcome ac") == 4
    assert {"auth.login", "server.updated"}.isdisjoint(left())
    assert {"audit.verified", "session.ended"} <= set(left())
    assert check_log().ok


def test_what_is_announced_goes_only_when_it_stands_in_the_log(filled: SinkConfig) -> None:
    with every_tenant(SYSTEM):
        set_retention("calls", 30)
    before = AuditEvent.objects.count()
    assert retain() == (0, 8)
    assert retain() == (0, 0), "the announcement is on its way"
    assert AuditEvent.objects.count() == before
    call_command("audit", "relay", stdout=io.StringIO())
    assert check_log().ok
    assert carry_out() == 8
    assert carry_out() == 0
    assert check_log().ok


def test_rows_that_the_figures_lack_stay(log: SinkConfig) -> None:
    logs.write(log, [aged(logs.intent("a"), 9), aged(logs.outcome("a"), 9)])
    with every_tenant(SYSTEM):
        set_retention("calls", 1)
    assert retain() == (0, 0)


def test_many_rows_take_several_announcements_and_batches(log: SinkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "RUNS", 5)
    monkeypatch.setattr(retention, "BATCH", 4)
    monkeypatch.setattr(retention, "GAP_SECONDS", 0)
    records = [aged(logs.note("call.refused" if number % 5 else "server.updated", tenant=ONE), 9) for number in range(100)]
    logs.write(log, records)
    roll_up_all()
    with every_tenant(SYSTEM):
        set_retention("calls", 1)
    apply()
    assert set(left()) == {"server.updated ab"}
    assert AuditEvent.objects.filter(event_type="audit.payloads_removed").count() == 4
    report = check_log()
    assert report.ok, report.problems
    assert report.payloads_gone == 80


def refused(statement: str, *parameters: object) -> None:
    """The database lets it not happen."""
    alias = settings.AUDIT_DATABASE
    with pytest.raises(DatabaseError), transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        cursor.execute(statement, parameters)


def test_nothing_else_can_be_made_to_go(filled: SinkConfig) -> None:
    with every_tenant(SYSTEM):
        set_retention("calls", 30)
    retain()
    call_command("audit", "relay", stdout=io.StringIO())
    announced = AuditEvent.objects.get(event_type="audit.payloads_removed").pk
    gone = "INSERT INTO audit_gone (first, last, event) VALUES (%s, %s, %s)"
    refused("DELETE FROM audit_event WHERE id = 1")
    refused(gone, 1, 2, 3)  # another event
    refused(gone, 1, 2, 99)  # none
    refused(gone, 1, 20, announced)  # more than it announces
    refused(gone, 13, 14, announced)  # something else
    refused(gone, 2, 1, announced)
    if connections[settings.AUDIT_DATABASE].vendor == "postgresql":
        refused("SELECT audit_remove(%s, 1, 20)", announced)
    carry_out()
    refused("DELETE FROM audit_event WHERE id = 13")
    refused("UPDATE audit_gone SET last = 20")
    refused("DELETE FROM audit_gone")
    refused("DELETE FROM audit_chain WHERE id = 1")
    assert check_log().ok


def test_a_payload_that_is_gone_without_an_event_is_found(filled: SinkConfig) -> None:
    with every_tenant(SYSTEM):
        set_retention("calls", 30)
    apply()
    connection = connections[settings.AUDIT_DATABASE]
    with logs.unguarded(connection), connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_event WHERE id = 14")
    report = check_log()
    assert report.first_bad == "0-14"
    assert "no retention event" in report.what
    with logs.unguarded(connection), connection.cursor() as cursor:
        cursor.execute("UPDATE audit_gone SET last = last + 500")  # the books beside the log do not count
    assert not check_log().ok


def test_a_digest_of_a_payload_that_is_gone_cannot_be_altered(filled: SinkConfig) -> None:
    with every_tenant(SYSTEM):
        set_retention("calls", 30)
    apply()
    connection = connections[settings.AUDIT_DATABASE]
    with logs.unguarded(connection), connection.cursor() as cursor:
        cursor.execute("UPDATE audit_chain SET digest = %s WHERE id = 3", [b"x" * 32])
    assert check_log().first_bad == "0-4"


def test_who_may_set_it_and_what_is_refused(log: SinkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with every_tenant(SYSTEM):
        for family, days in (("everything", 3), ("calls", 0), ("calls", 99_999)):
            with pytest.raises(ValidationFailed):
                set_retention(family, days)
        assert [(rule.family, rule.days) for rule in set_retention("calls", 30)] == [("calls", 30)]
        set_retention("calls", 30)
        assert set_retention("calls", None) == retention_rules() == []
    events = [row.payload for row in OutboxEvent.objects.filter(topic="audit").order_by("id")]
    assert [event["details"]["after"] for event in events] == [{"calls": 30}, {"calls": None}]
    admin = Principal(kind="user", id="u", label="ann", tenant_id=ONE, permissions=frozenset({"*.*"}))
    monkeypatch.setattr(authorise, "_source", lambda: admin)
    with tenant_scope(ONE, Actor(kind="user", id="u", label="ann", origin="rest")), pytest.raises(PermissionDenied):
        set_retention("calls", 1, tenant=ONE)
    assert not AuditGone.objects.exists()
