"""Retention: payloads of a family of events go after so many days; the chain stays, and its digests still verify.

What goes is announced first, by events that name every row. Only when such an event stands in the log are the payloads deleted, in
small batches, and the database itself lets nothing else go (see the migrations). A crash in between is made up for by the next run.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connections, transaction
from django.db.models import Q, QuerySet

from apps.audit.domain import FAMILIES, SEQ_BITS, SEQ_MASK
from apps.audit.models import AuditEvent, AuditRemoval, AuditRetention, RollupCursor
from apps.audit.services.gone import REMOVED, announced
from apps.audit.services.relay import relayed_up_to
from apps.common import authorise
from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant
from apps.common.errors import ValidationFailed
from apps.common.events import AUDIT, ControlEvent
from apps.common.models import OutboxEvent
from apps.common.outbox import audit, unit_of_work

LONGEST = 36_500
RUNS = 1_500
"""Runs of rows that one event announces: it must fit into 64 kB."""
ROWS_AT_ONCE = 100_000
"""Rows that are announced in one go."""
BATCH = 250
"""Rows that are deleted in one transaction, which on SQLite holds the log's write lock for some milliseconds."""
GAP_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """One rule."""

    family: str
    tenant: str
    days: int


def retention_rules() -> list[RetentionRule]:
    """Return the rules; what has none stays for good."""
    rows = AuditRetention.objects.order_by("tenant", "family").values_list("family", "tenant", "days")
    return [RetentionRule(*row) for row in rows]


def set_retention(family: str, days: int | None, *, tenant: str = "") -> list[RetentionRule]:
    """Set or, with None, remove the days of a family, for every tenant or for one. Superusers alone; an event.

    Raises PermissionDenied, ValidationFailed.
    """
    authorise.require("audit.admin", tenant_id=None, kind="audit", object_id="log", label="audit log")
    if family not in FAMILIES:
        raise ValidationFailed("There is no such family of events.", errors={"family": [f"Use one of: {', '.join(FAMILIES)}."]})
    if days is not None and not 1 <= days <= LONGEST:
        raise ValidationFailed("The number of days is not valid.", errors={"days": [f"Use 1 to {LONGEST:,} days, or none."]})
    with unit_of_work():
        row = AuditRetention.objects.select_for_update().filter(family=family, tenant=tenant).first()
        before = row.days if row else None
        if days == before:
            return retention_rules()
        if days is None:
            AuditRetention.objects.filter(family=family, tenant=tenant).delete()
        else:
            AuditRetention.objects.update_or_create(family=family, tenant=tenant, defaults={"days": days})
        audit(
            ControlEvent(
                event_type="audit.retention_set", action="audit.admin", object_kind="audit", object_id="log", object_label="audit log",
                details={"before": {family: before}, "after": {family: days}, "tenant": tenant or None},
            )
        )  # fmt: skip
    return retention_rules()


def retain() -> tuple[int, int]:
    """Carry out what was announced, then announce what has come of age since; return (payloads removed, rows announced).

    Nothing is announced while an announcement is on its way into the log.
    """
    if _under_way():
        return 0, 0
    return carry_out(), announce()


def announce() -> int:
    """Announce what has come of age, at most 100,000 rows; return how many rows that were."""
    total = 0
    rules = retention_rules()
    for rule in rules:
        cutoff = now() - timedelta(days=rule.days)
        for writer, seq in RollupCursor.objects.order_by("writer").values_list("writer", "seq"):
            if total >= ROWS_AT_ONCE:
                return total
            base = writer << SEQ_BITS
            # what the roll-ups have not counted yet stays
            old = _of_rule(rule, rules).filter(id__gt=base, id__lte=base | seq, time__lt=cutoff).order_by("id")
            ids = list(old.values_list("id", flat=True)[: ROWS_AT_ONCE - total])
            runs = list(_runs(identity & SEQ_MASK for identity in ids))
            for start in range(0, len(runs), RUNS):
                _announce(rule, writer, cutoff, runs[start : start + RUNS])
            total += len(ids)
    return total


def carry_out() -> int:
    """Delete the payloads that events of the log announce; return how many."""
    done = set(AuditRemoval.objects.values_list("event", flat=True))
    total = 0
    for event, details in announced():
        if event in done:
            continue
        rows = sum(_remove(event, details["writer"], first, last) for first, last in details["runs"])
        AuditRemoval.objects.get_or_create(event=event, defaults={"rows": rows, "done_at": now()})
        total += rows
    return total


def _of_rule(rule: RetentionRule, rules: list[RetentionRule]) -> "QuerySet[AuditEvent]":
    rows = AuditEvent.objects.exclude(event_type__startswith="audit.")
    prefixes = FAMILIES[rule.family]
    if prefixes:
        rows = rows.filter(Q(*(("event_type__startswith", f"{prefix}.") for prefix in prefixes), _connector=Q.OR))
    else:  # the rest
        known = [prefix for others in FAMILIES.values() for prefix in others]
        rows = rows.exclude(Q(*(("event_type__startswith", f"{prefix}.") for prefix in known), _connector=Q.OR))
    if rule.tenant:
        return rows.filter(tenant=rule.tenant)
    own = [other.tenant for other in rules if other.tenant and other.family == rule.family]
    return rows.exclude(tenant__in=own) if own else rows


def _runs(seqs: Iterable[int]) -> Iterable[tuple[int, int]]:
    """Put numbers in rising order into runs without gaps."""
    first = last = None
    for seq in seqs:
        if last is not None and seq == last + 1:
            last = seq
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = seq
    if first is not None and last is not None:
        yield first, last


def _announce(rule: RetentionRule, writer: int, cutoff: datetime, runs: list[tuple[int, int]]) -> None:
    with every_tenant(SYSTEM), unit_of_work():
        audit(
            ControlEvent(
                event_type=REMOVED,
                action="audit.admin",
                object_kind="audit",
                object_id="log",
                object_label="audit log",
                details={
                    "family": rule.family,
                    "tenant": rule.tenant or None,
                    "days": rule.days,
                    "before": cutoff.isoformat(),
                    "writer": writer,
                    "rows": sum(last - first + 1 for first, last in runs),
                    "runs": [list(run) for run in runs],
                },
            )
        )


def _under_way() -> bool:
    waiting = OutboxEvent.objects.filter(id__gt=relayed_up_to(), topic=AUDIT, payload__event_type=REMOVED)
    return waiting.exists()


def _remove(event: int, writer: int, first: int, last: int) -> int:
    """Delete the payloads of one run, batch by batch, leaving others their turns."""
    connection = connections[settings.AUDIT_DATABASE]
    base, removed = writer << SEQ_BITS, 0
    for start in range(first, last + 1, BATCH):
        lowest, highest = base | start, base | min(start + BATCH - 1, last)
        with transaction.atomic(using=settings.AUDIT_DATABASE), connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("SELECT audit_remove(%s, %s, %s)", [event, lowest, highest])
                removed += cursor.fetchone()[0]
            else:
                there = "SELECT %s, %s, %s WHERE NOT EXISTS (SELECT 1 FROM audit_gone WHERE first = %s)"
                cursor.execute(f"INSERT INTO audit_gone (first, last, event) {there}", [lowest, highest, event, lowest])
                cursor.execute("DELETE FROM audit_event WHERE id BETWEEN %s AND %s", [lowest, highest])
                removed += cursor.rowcount
        if last - first >= BATCH:
            time.sleep(GAP_SECONDS)
    return removed
