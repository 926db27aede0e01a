"""The audit timeline of one object, and problems with their causes, for pages of the console."""

from datetime import datetime
from typing import Any

from django.urls import reverse

from apps.audit import selectors
from apps.audit.admin.words import CALL_STEPS, Told, tell
from apps.common.admin.panels import Panel

SHOWN = 25
LOOKED_AT = 300
"""Events among which equal problems are counted."""
BAD = ("error", "failed", "refused", "unknown")
"""Outcomes that are problems."""


def history_panel(kind: str, object_id: object, *, title: str = "History") -> Panel:
    """Return the last events about an object that the scope in force may see, as the last panel of its page."""
    return Panel(
        "history",
        title,
        "console/panels/timeline.html",
        {
            "events": [tell(row) for row in selectors.timeline(kind, object_id, limit=SHOWN)],
            "more": f"{reverse('admin:audit_auditevent_changelist')}?object_kind={kind}&object_id={object_id}",
            "empty": "Nothing has been recorded about it yet.",
        },
        90,
    )


def told(limit: int, *, since: datetime | None = None, with_details: bool = True, **filters: Any) -> list[Told]:
    """Return the newest events that fit, in words; steps of calls are left out unless `event_type` asks for them."""
    asked = limit * 3 if "event_type" not in filters else limit
    page = selectors.events(since=since, limit=asked, details=with_details, **filters)
    rows = [row for row in page.events if "event_type" in filters or row.event_type not in CALL_STEPS][:limit]
    return [tell(row) for row in rows]


def problems(limit: int, *, since: datetime | None = None, **filters: Any) -> list[Told]:
    """Return the newest problems with their causes, equal ones as one: the newest of them, with how many there are.

    Counted among the newest 300; where there are more, the numbers are said to be at least so many.
    """
    page = selectors.events(since=since, limit=LOOKED_AT, details=True, outcome=list(BAD), **filters)
    found: dict[tuple[str, ...], Told] = {}
    for row in page.events:
        if row.event_type in CALL_STEPS:
            continue
        one = tell(row)
        first = found.setdefault((one.type, one.who, one.what, one.outcome, one.cause), one)
        if first is not one:
            first.times += 1
    for one in found.values():
        one.at_least = page.next_cursor is not None
    return list(found.values())[:limit]
