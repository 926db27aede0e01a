"""Roll-ups: equal to a recount of the log, however they were made; statistics read from them."""

import random
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections
from django.db.models import F

from apps.audit import selectors
from apps.audit.domain import DURATION_BOUNDS_US, CallFigures, percentile_us
from apps.audit.models import AuditEvent, CallRollup, RollupCursor
from apps.audit.services import rollups
from apps.audit.services.rollups import prune, rebuild, roll_up, roll_up_all
from apps.audit.sink.config import SinkConfig
from apps.audit.sink.record import AuditRecord
from apps.common.context import every_tenant, tenant_scope
from apps.common.errors import TenantRequired
from tests.audit import logs

NOW = datetime.now(UTC).replace(microsecond=0)
MEMBERS = [field.name for field in CallRollup._meta.fields if field.name != "id"]


def calls(count: int, seed: int) -> list[AuditRecord]:
    """Random calls of the last three hours."""
    chance = random.Random(seed)
    records = []
    for number in range(count):
        call_id = f"{seed}-{number}"
        when = int((NOW - timedelta(seconds=chance.randrange(10_000))).timestamp() * 1_000_000) + chance.randrange(1_000_000)
        fields = {
            "tenant": chance.choice(["t1", "t2", None]),
            "tool": chance.choice("abc"),
            "actor_id": chance.choice(["k1", "k2"]),
        }
        begun = logs.intent(call_id, **fields)
        ended = logs.outcome(
            call_id, outcome=chance.choice(["ok"] * 5 + ["error", "failed", "cancelled", "unknown", "refused"]),
            duration_us=chance.choice([None, 0, 500, 501, 3_000, 45_000_000, chance.randrange(10**7)]), **fields,
        )  # fmt: skip
        if chance.random() < 0.1:
            ended.event_type, ended.outcome = "call.refused", "refused"
        begun.time_us = ended.time_us = when
        records += [begun, ended, logs.note()]
    return records


def recount(span: str) -> Counter:
    """Count the log again, row by row, with code of its own."""
    counted: Counter = Counter()
    for event in AuditEvent.objects.filter(event_type__in=("call.outcome", "call.refused")):
        bucket = event.time.astimezone(UTC).replace(second=0, microsecond=0)
        bucket = (
            bucket if span == "minute" else bucket.replace(minute=0) if span == "hour" else bucket.replace(hour=0, minute=0)
        )
        key = (bucket, event.tenant or "", event.server or "", event.tool or "", event.actor_id or "")
        counted[key, "calls"] += 1
        counted[key, "errors"] += event.outcome in ("error", "failed")
        counted[key, "refused"] += event.outcome == "refused"
        counted[key, "cancelled"] += event.outcome == "cancelled"
        counted[key, "unknown"] += event.outcome == "unknown"
        counted[key, "duration_us"] += event.duration_us or 0
        counted[key, "request_bytes"] += event.request_bytes or 0
        if event.duration_us is not None:
            counted[key, "timed"] += 1
            number = sum(1 for bound in DURATION_BOUNDS_US if event.duration_us > bound)
            counted[key, f"class_{number:02d}"] += 1
    return +counted


def stored(span: str) -> Counter:
    """The roll-ups in the same form."""
    names = ["calls", "errors", "refused", "cancelled", "unknown", "duration_us", "request_bytes", "timed"]
    names += [f"class_{number:02d}" for number in range(16)]
    found: Counter = Counter()
    for row in CallRollup.objects.filter(span=span):
        for name in names:
            found[(row.bucket, row.tenant, row.server, row.tool, row.actor_id), name] += getattr(row, name)
    return +found


def everything() -> list[tuple]:
    """Every roll-up, in order."""
    return sorted(CallRollup.objects.values_list(*MEMBERS))


def test_rollups_equal_a_recount_and_a_rebuild(log: SinkConfig) -> None:
    for seed in range(3):
        logs.write(log, calls(150, seed))
        while roll_up(max_rows=97):
            pass
    for span in ("minute", "hour", "day"):
        assert stored(span) == recount(span)
    incremental = everything()
    assert rebuild() == AuditEvent.objects.count()
    assert everything() == incremental
    assert roll_up() == 0


def test_two_at_once_count_each_row_once(log: SinkConfig) -> None:
    logs.write(log, calls(200, 7))
    failures: list[BaseException] = []

    def run() -> None:
        try:
            for _ in range(60):
                roll_up(max_rows=23)
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    roll_up_all()
    assert stored("minute") == recount("minute")


def test_old_minutes_and_hours_go_and_events_stay(log: SinkConfig) -> None:
    logs.write(log, calls(20, 1))
    roll_up_all()
    events = AuditEvent.objects.count()
    CallRollup.objects.filter(span="minute").update(bucket=F("bucket") - timedelta(hours=49))
    days = CallRollup.objects.filter(span="day").count()
    assert prune() > 0
    assert not CallRollup.objects.filter(span="minute").exists()
    assert CallRollup.objects.filter(span="hour").exists()
    assert CallRollup.objects.filter(span="day").count() == days
    assert AuditEvent.objects.count() == events
    assert RollupCursor.objects.get().seq == events


def test_statistics_add_up_and_keep_tenants_apart(log: SinkConfig) -> None:
    logs.write(log, calls(200, 3))
    roll_up_all()
    since, until = NOW - timedelta(hours=4), NOW + timedelta(minutes=1)
    with every_tenant():
        total = selectors.call_totals(since=since, until=until)
        by_tool = selectors.call_statistics(by=("tool",), since=since, until=until)
        by_tenant = dict(selectors.call_statistics(by=("tenant",), since=since, until=until))
        series = selectors.call_series(since=since, until=until)
    ended = AuditEvent.objects.filter(event_type__in=("call.outcome", "call.refused"))
    assert total.calls == ended.count() == 200
    assert sum(figures.calls for _, figures in by_tool) == 200
    assert [figures.calls for _, figures in by_tool] == sorted((figures.calls for _, figures in by_tool), reverse=True)
    assert sum(figures.calls for _, figures in series) == 200
    assert len(series) in (241, 242)
    with tenant_scope("t1"):
        mine = selectors.call_totals(since=since, until=until)
        stolen = selectors.call_totals(since=since, until=until, tenant="t2")
    assert mine.calls == ended.filter(tenant="t1").count() == by_tenant[("t1",)].calls
    assert stolen == CallFigures()
    with pytest.raises(TenantRequired):
        selectors.call_totals(since=since)


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_lie_in_the_right_class(seed: int) -> None:
    chance = random.Random(seed)
    durations = sorted(int(chance.lognormvariate(10, 2)) for _ in range(2000))
    counts = [0] * 16
    for duration in durations:
        counts[sum(1 for bound in DURATION_BOUNDS_US if duration > bound)] += 1
    for share in (0.5, 0.95, 0.99):
        exact = durations[int(share * len(durations)) - 1]
        guess = percentile_us(counts, share, durations[-1])
        bounds = (0, *DURATION_BOUNDS_US, durations[-1])
        number = sum(1 for bound in DURATION_BOUNDS_US if exact > bound)
        assert bounds[number] * 0.8 <= guess <= max(bounds[number + 1], exact) * 1.25


def test_percentiles_at_the_edges() -> None:
    assert percentile_us([0] * 16, 0.5, 0) is None
    assert percentile_us([4] + [0] * 15, 0.99, 300) == 300
    assert percentile_us([0] * 15 + [1], 0.99, 99_000_000) <= 99_000_000


def test_others_get_their_turn_at_the_database_between_two_pieces(log: SinkConfig, monkeypatch) -> None:
    logs.write(log, [logs.outcome(str(number)) for number in range(35)])
    monkeypatch.setattr(rollups, "ROWS_AT_ONCE", 10)
    monkeypatch.setattr(rollups, "GAP_SECONDS", 0.1)
    started = time.monotonic()
    assert roll_up_all() == 35
    assert time.monotonic() - started >= 0.3, "three full pieces, and a pause after each"
    assert roll_up_all() == 0
