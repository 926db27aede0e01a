"""The audit timeline of one object, and problems with their causes, for pages of the console."""

from datetime import datetime
from typing import Any

from django.urls import reverse

from apps.audit import selectors
from apps.audit.admin.words import CALL_STEPS, Told, tell
from apps.audit.domain import EventFacts
from apps.common.admin.panels import Panel

SHOWN = 25
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
    page = selectors.events(since=since, limit=limit * 3 if "event_type" not in filters else limit, **filters)
    rows = [row for row in page.events if "event_type" in filters or row.event_type not in CALL_STEPS][:limit]
    return [tell(_whole(row) if with_details else row) for row in rows]


def _whole(row: EventFacts) -> EventFacts:
    return selectors.event(row.id)
