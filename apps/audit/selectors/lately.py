"""What happened lately, counted from the newest rows alone: bounded, however long the log is."""

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Max, QuerySet

from apps.audit.models import AuditEvent
from apps.audit.selectors.events import scoped_events
from apps.common.clock import now

LOOKED_AT = 20_000
"""Rows that are looked at, newest first."""


def counted_lately(
    *by: str, event_types: tuple[str, ...], since: timedelta = timedelta(hours=24), limit: int = 500, **filters: Any
) -> tuple[list[tuple[tuple[Any, ...], int, datetime]], bool]:
    """Count events by columns among the newest 20,000 rows of a time; return ((values, number, the last one), …), most first, and
    whether the whole time was looked at.

    `filters` are columns with the value they must have, or a list of values.
    """
    newest = scoped_events().filter(time__gte=now() - since)
    whole = not newest.values("pk")[LOOKED_AT : LOOKED_AT + 1]
    rows: QuerySet[Any] = AuditEvent.objects.filter(pk__in=newest.values("pk")[:LOOKED_AT], event_type__in=event_types)
    for name, value in filters.items():
        rows = rows.filter(**({f"{name}__in": list(value)} if isinstance(value, list | tuple | set) else {name: value}))
    found = rows.order_by().values_list(*by).annotate(number=Count("pk"), last=Max("time")).order_by("-number", *by)
    return [(tuple(row[:-2]), row[-2], row[-1]) for row in found[:limit]], whole
