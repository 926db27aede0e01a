"""Roll-ups: counts per minute, hour and day, made from the log alone, each row once.

The database adds the new rows up by minute; the sums go into the roll-ups in the transaction that moves the cursor, on the
condition that nobody moved it before.
"""

import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connections, transaction

from apps.audit.domain import DURATION_BOUNDS_US, DURATION_CLASSES, SEQ_BITS
from apps.audit.models import AuditHead, AuditRemoval, CallRollup, RollupCursor
from apps.common.clock import now
from apps.common.errors import Conflict

MINUTES_KEPT = timedelta(hours=48)
HOURS_KEPT = timedelta(days=90)
_KEYS = ("span", "bucket", "tenant", "server", "tool", "actor_id")
_SUMS = ("calls", "errors", "refused", "cancelled", "unknown", "timed", "duration_us", "request_bytes", "response_bytes")
_MAXIMUM = "duration_max_us"
_MEMBERS = (*_SUMS, *DURATION_CLASSES, _MAXIMUM)
_KIND = """
CASE WHEN event_type = 'call.refused' OR outcome = 'refused' THEN 'refused' WHEN outcome IN ('error', 'failed') THEN 'errors'
WHEN outcome IN ('cancelled', 'unknown') THEN outcome ELSE '' END"""
_TOOL = "CASE WHEN server IS NULL THEN '' ELSE coalesce(tool, '') END"
"""A name that no server has is the caller's invention: counted, but not as a tool."""
_CLASS = "CASE WHEN duration_us IS NULL THEN -1 {} ELSE {} END".format(
    " ".join(f"WHEN duration_us <= {bound} THEN {number}" for number, bound in enumerate(DURATION_BOUNDS_US)),
    len(DURATION_BOUNDS_US),
)
_MINUTE = {"sqlite": "substr(time, 1, 16)", "postgresql": "to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')"}
_ADD_UP = f"""
SELECT {{minute}}, coalesce(tenant, ''), coalesce(server, ''), {_TOOL}, coalesce(actor_id, ''), {_KIND}, {_CLASS},
count(*), coalesce(sum(duration_us), 0), coalesce(max(duration_us), 0), coalesce(sum(request_bytes), 0),
coalesce(sum(response_bytes), 0)
FROM audit_event WHERE id > %s AND id <= %s AND event_type IN ('call.outcome', 'call.refused') GROUP BY 1, 2, 3, 4, 5, 6, 7
"""  # noqa: S608 - made of constants
_UPSERT = f"""
INSERT INTO audit_call_rollup ({", ".join((*_KEYS, *_MEMBERS))}) VALUES ({", ".join(["%s"] * (len(_KEYS) + len(_MEMBERS)))})
ON CONFLICT ({", ".join(_KEYS)}) DO UPDATE SET
{", ".join(f"{name} = audit_call_rollup.{name} + excluded.{name}" for name in (*_SUMS, *DURATION_CLASSES))},
{_MAXIMUM} = CASE WHEN excluded.{_MAXIMUM} > audit_call_rollup.{_MAXIMUM} THEN excluded.{_MAXIMUM}
ELSE audit_call_rollup.{_MAXIMUM} END
"""  # noqa: S608 - made of constants

ROWS_AT_ONCE = 10_000
"""Rows of one chain that are added in one transaction: the roll-ups share the write lock of SQLite with everything else."""
GAP_SECONDS = 0.15
"""Between two such transactions: longer than a writer that waits for the lock sleeps between two tries (100 ms)."""

_Sums = dict[tuple[Any, ...], list[int]]


def roll_up(max_rows: int | None = None) -> int:
    """Add the next rows of each chain, at most `max_rows` of it (10,000), to the roll-ups; return how many rows were looked at.

    May run in several processes at once: whoever moves a chain's cursor second adds nothing.
    """
    seen = 0
    most = max_rows or ROWS_AT_ONCE
    cursors = dict(RollupCursor.objects.values_list("writer", "seq"))
    for writer, head in AuditHead.objects.order_by("writer").values_list("writer", "seq"):
        before = cursors.get(writer, 0)
        after = min(head, before + most)
        if after > before:
            sums = _add_up(writer, before, after)
            seen += after - before if _store(writer, before, after, sums) else 0
    return seen


def roll_up_all() -> int:
    """Roll up until nothing is left, leaving others their turns; return how many rows were looked at."""
    total = 0
    while seen := roll_up():
        total += seen
        if seen >= ROWS_AT_ONCE:
            time.sleep(GAP_SECONDS)
    return total


def rebuild() -> int:
    """Throw the roll-ups away and make them anew from the log; return how many rows were looked at.

    Raises Conflict when payloads of calls have gone by retention: the figures would lack them.
    """
    if AuditRemoval.objects.exists():
        raise Conflict("Payloads have gone by retention: figures made anew from the log would lack them.")
    with transaction.atomic():
        RollupCursor.objects.update(seq=0)
        CallRollup.objects.all().delete()
    return roll_up_all()


def prune() -> int:
    """Remove minutes after 48 hours and hours after 90 days, never events; return how many roll-ups went."""
    removed = 0
    for span, kept in (("minute", MINUTES_KEPT), ("hour", HOURS_KEPT)):
        removed += CallRollup.objects.filter(span=span, bucket__lt=now() - kept).delete()[0]
    return removed


def _add_up(writer: int, before: int, after: int) -> _Sums:
    connection = connections[settings.AUDIT_DATABASE]
    base = writer << SEQ_BITS
    sums: _Sums = defaultdict(lambda: [0] * len(_MEMBERS))
    with connection.cursor() as cursor:
        cursor.execute(_ADD_UP.format(minute=_MINUTE[connection.vendor]), [base | before, base | after])
        for minute, *names, kind, number, count, duration, longest, asked, answered in cursor.fetchall():
            moment = datetime.strptime(minute, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
            buckets = (("minute", moment), ("hour", moment.replace(minute=0)), ("day", moment.replace(hour=0, minute=0)))
            for span, bucket in buckets:
                row = sums[(span, bucket, *names)]
                row[0] += count
                if kind:
                    row[_MEMBERS.index(kind)] += count
                if number >= 0:
                    row[_MEMBERS.index("timed")] += count
                    row[_MEMBERS.index(DURATION_CLASSES[number])] += count
                row[_MEMBERS.index("duration_us")] += int(duration)
                row[_MEMBERS.index("request_bytes")] += int(asked)
                row[_MEMBERS.index("response_bytes")] += int(answered)
                row[-1] = max(row[-1], int(longest))
    return sums


def _store(writer: int, before: int, after: int, sums: _Sums) -> bool:
    """Add the sums and move the cursor, or do neither and return False when it is not at `before`."""
    connection = connections["default"]
    RollupCursor.objects.get_or_create(writer=writer)
    with transaction.atomic():
        if not RollupCursor.objects.filter(writer=writer, seq=before).update(seq=after):
            return False
        # in one order everywhere, so that two processes that add to the same roll-ups wait instead of blocking each other
        rows = [
            [span, connection.ops.adapt_datetimefield_value(bucket), *names, *sums[(span, bucket, *names)]]
            for span, bucket, *names in sorted(sums)
        ]
        with connection.cursor() as cursor:
            cursor.executemany(_UPSERT, rows)
    return True
