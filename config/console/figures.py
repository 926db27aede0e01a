"""Figures of calls for the console's pages: from the roll-ups, compared with the period before, and what is in flight now."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from apps.audit import selectors as audit
from apps.audit.admin.history import problems, told
from apps.audit.domain import CallFigures
from apps.audit.selectors import call_series, call_statistics, call_totals
from apps.common.admin.format import change, compact, microseconds, share
from apps.common.admin.spark import sparkline
from apps.common.clock import now

DAY = timedelta(hours=24)
IN_FLIGHT_ROWS = 500
"""Intents looked at when calls in flight are counted; more are said to be at least so many."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure with its comparison and the way to the rows behind it."""

    name: str
    value: str
    trend: str
    tone: str
    """`good`, `bad` or nothing: whether the change is welcome."""
    note: str
    href: str
    spark: Any = ""


def audit_url(**filters: Any) -> str:
    """Return the address of the audit page with filters."""
    query = urlencode({name: value for name, value in filters.items() if value not in (None, "")}, doseq=True)
    return f"{reverse('admin:audit_auditevent_changelist')}?{query}" if query else reverse("admin:audit_auditevent_changelist")


def today_by_server(tenants: Iterable[Any]) -> dict[tuple[str, str], CallFigures]:
    """Return figures since midnight UTC by tenant and server slug."""
    midnight = now().replace(hour=0, minute=0, second=0, microsecond=0)
    found = call_statistics(by=("tenant", "server"), since=midnight, span="hour", limit=5000)
    return {(str(tenant), server): figures for (tenant, server), figures in found}


def by_tool(*, since: timedelta = DAY, limit: int = 5000) -> dict[tuple[str, str, str], CallFigures]:
    """Return figures by tenant, server slug and tool."""
    found = call_statistics(by=("tenant", "server", "tool"), since=now() - since, limit=limit)
    return {(str(tenant), server, tool): figures for (tenant, server, tool), figures in found}


def in_flight(server: Any) -> int:
    """Count the calls of a server that have begun and not ended, looking back no further than a call may take."""
    since = now() - timedelta(seconds=min(server.timeout_seconds + 5, 3700))
    about = {"since": since, "tenant": str(server.tenant_id), "server": server.slug, "limit": IN_FLIGHT_ROWS}
    begun = {row.call_id for row in audit.events(event_type="call.intent", **about).events}
    if not begun:
        return 0
    ended = {row.call_id for row in audit.events(event_type="call.outcome", **about).events}
    return len(begun - ended)


def spark(series: list[tuple[Any, CallFigures]], label: str) -> Any:
    """Draw calls and, in the error colour, those that failed."""
    return sparkline(
        [figures.calls for _, figures in series], marks=[figures.errors + figures.unknown for _, figures in series], label=label
    )


def overview_figures(held: int, held_url: str) -> list[Figure]:
    """Return calls, errors and p95 of the last 24 hours against the 24 before, and what waits for review."""
    moment = now()
    current, before = call_totals(since=moment - DAY, until=moment), call_totals(since=moment - 2 * DAY, until=moment - DAY)
    series = call_series(since=moment - DAY, until=moment, span="hour")
    bad, bad_before = current.errors + current.unknown, before.errors + before.unknown
    calls_trend, _ = change(current.calls, before.calls)
    bad_trend, bad_direction = change(bad, bad_before)
    p95, p95_before = current.p95_us, before.p95_us
    p95_trend, p95_direction = (
        change(p95 or 0, p95_before or 0) if p95_before else ("nothing to compare with" if p95 else "", "same")
    )
    tones = {"up": "bad", "down": "good"}
    bad_series = [figures.errors + figures.unknown for _, figures in series]
    return [
        Figure(
            "Calls, last 24 h",
            compact(current.calls),
            calls_trend,
            "",
            "against the day before",
            audit_url(event_type="call.outcome"),
            spark(series, f"{current.calls} calls in 24 hours, by hour"),
        ),
        Figure(
            "Errors, last 24 h",
            compact(bad),
            bad_trend if bad_before else "none the day before" if bad else "as before",
            tones.get(bad_direction, ""),
            f"{share(bad, current.calls)} of calls" if current.calls else "",
            audit_url(event_type="call.outcome", outcome=["error", "failed", "unknown"]),
            sparkline(bad_series, marks=bad_series, label=f"{bad} errors in 24 hours, by hour"),
        ),
        Figure(
            "p95 duration",
            microseconds(p95),
            p95_trend,
            tones.get(p95_direction, ""),
            f"half take {microseconds(current.p50_us)} or less" if current.calls else "",
            audit_url(event_type="call.outcome"),
            sparkline([figures.p95_us or 0 for _, figures in series], label="p95 by hour"),
        ),
        Figure(
            "Held for review",
            compact(held),
            "",
            "",
            "definitions you have not seen yet" if held else "nothing waits for you",
            held_url,
        ),
    ]


def now_panel(*, server: Any, tool: Any = None) -> dict[str, Any]:
    """Return what happens now: figures and sparkline of a day, the last calls, the last problems."""
    moment = now()
    names = {"server": server.slug, **({"tool": tool.name} if tool is not None else {})}
    tenant = str(server.tenant_id)
    series = call_series(since=moment - DAY, until=moment, span="hour", tenant=tenant, **names)
    totals = call_totals(since=moment - DAY, until=moment, tenant=tenant, **names)
    recent = told(
        8, since=moment - 7 * DAY, with_details=False, tenant=tenant, event_type=["call.outcome", "call.refused"], **names
    )
    bad_ones = problems(5, since=moment - DAY, tenant=tenant, event_type=["call.outcome", "call.refused"], **names)
    bad = totals.errors + totals.unknown
    return {
        "spark": spark(series, f"{totals.calls} calls in 24 hours, by hour"),
        "figures": [
            ("calls in 24 h", compact(totals.calls)),
            ("failed", f"{compact(bad)} ({share(bad, totals.calls)})"),
            ("p50", microseconds(totals.p50_us)),
            ("p95", microseconds(totals.p95_us)),
            ("refused", compact(totals.refused)),
        ],
        "table": [
            (when, figures.calls, figures.errors + figures.unknown, figures.p95_us) for when, figures in series if figures.calls
        ],
        "recent": recent,
        "problems": bad_ones,
        "all": audit_url(**names),
    }
