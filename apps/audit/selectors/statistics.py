"""Figures about calls, read from the roll-ups alone; they lag by some seconds."""

from datetime import datetime, timedelta
from typing import Any, Literal

from django.db.models import Max, QuerySet, Sum

from apps.audit.domain import DURATION_CLASSES, CallFigures
from apps.audit.models import CallRollup
from apps.audit.selectors.events import scoped_tenant
from apps.common.clock import now

By = Literal["server", "tool", "actor_id", "tenant", "bucket"]
_SUMS = ("calls", "errors", "refused", "cancelled", "unknown", "timed", "duration_us")
_SPANS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}


def span_for(since: datetime, until: datetime) -> str:
    """Return the roll-up that a window is read from: minutes up to 6 hours, hours up to 14 days, else days.

    Minutes are kept for 48 hours and hours for 90 days, so an older window is read from the next longer one.
    """
    age, length = now() - since, until - since
    if length <= timedelta(hours=6) and age <= timedelta(hours=47):
        return "minute"
    return "hour" if length <= timedelta(days=14) and age <= timedelta(days=89) else "day"


def call_totals(
    *, since: datetime, until: datetime | None = None, tenant: str | None = None, span: str | None = None, **filters: str
) -> CallFigures:
    """Return the figures of a window as a whole; see `call_statistics`."""
    rows = _window(since, until, tenant, span, filters)
    return _figures(rows.aggregate(**_aggregates()))


def call_statistics(
    *,
    by: tuple[By, ...],
    since: datetime,
    until: datetime | None = None,
    tenant: str | None = None,
    span: str | None = None,
    limit: int = 100,
    **filters: str,
) -> list[tuple[tuple[Any, ...], CallFigures]]:
    """Return figures per server, tool, actor or tenant (most calls first), or per bucket of time (oldest first).

    `by=("server", "tool")` gives keys `(server, tool)`; calls of what is no tool are left out there. A window begins with the bucket in which `since` lies and ends before
    the one in which `until` (default: now) would begin a new one. `filters`: server, tool, actor_id.
    """
    window = _window(since, until, tenant, span, filters)
    if "tool" in by:
        window = window.exclude(tool="")
    rows = window.values(*by).annotate(**_aggregates())
    rows = rows.order_by(*by) if by == ("bucket",) else rows.order_by("-sum_calls", *by)
    return [(tuple(row[name] for name in by), _figures(row)) for row in rows[:limit]]


def call_series(
    *, since: datetime, until: datetime | None = None, tenant: str | None = None, span: str | None = None, **filters: str
) -> list[tuple[datetime, CallFigures]]:
    """Return the figures of each minute, hour or day of a window, oldest first; buckets without calls are there, empty."""
    until = until or now()
    span = span or span_for(since, until)
    step = _SPANS[span]
    found = {
        key[0]: figures
        for key, figures in call_statistics(
            by=("bucket",), since=since, until=until, tenant=tenant, span=span, limit=10_000, **filters
        )
    }
    moment = _floor(since, span)
    series: list[tuple[datetime, CallFigures]] = []
    while moment < until and len(series) < 10_000:
        series.append((moment, found.get(moment, CallFigures())))
        moment += step
    return series


def _window(
    since: datetime, until: datetime | None, tenant: str | None, span: str | None, filters: dict[str, str]
) -> "QuerySet[CallRollup]":
    until = until or now()
    span = span or span_for(since, until)
    rows = CallRollup.objects.filter(span=span, bucket__gte=_floor(since, span), bucket__lt=until)
    scoped = scoped_tenant()
    if scoped is not None:
        rows = rows.filter(tenant=scoped)
    if tenant is not None:
        rows = rows.filter(tenant=tenant)
    return rows.filter(**{name: value for name, value in filters.items() if name in ("server", "tool", "actor_id")})


def _floor(moment: datetime, span: str) -> datetime:
    moment = moment.replace(second=0, microsecond=0)
    if span == "minute":
        return moment
    return moment.replace(minute=0) if span == "hour" else moment.replace(hour=0, minute=0)


def _aggregates() -> dict[str, Any]:
    names = (*_SUMS, "request_bytes", "response_bytes", *DURATION_CLASSES)
    return {**{f"sum_{name}": Sum(name) for name in names}, "longest": Max("duration_max_us")}


def _figures(row: dict[str, Any]) -> CallFigures:
    return CallFigures(
        **{name: row[f"sum_{name}"] or 0 for name in (*_SUMS, "request_bytes", "response_bytes")},
        duration_max_us=row["longest"] or 0,
        classes=tuple(row[f"sum_{name}"] or 0 for name in DURATION_CLASSES),
    )
