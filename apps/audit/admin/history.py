"""The audit timeline of one object, and problems with their causes, for pages of the console."""

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from apps.audit import selectors
from apps.audit.admin.words import CALL_STEPS, Told, tell
from apps.common.admin.panels import Panel
from apps.common.authorise import decide
from apps.common.context import current_scope

SHOWN = 25
"""Events of a page."""
_ALSO = {"user": ("membership",)}
"""Kinds whose events are about another kind's object: what roles a user has."""
LOOKED_AT = 300
"""Events among which equal problems are counted."""
BAD = ("error", "failed", "refused", "unknown")
"""Outcomes that are problems."""


def history_panel(kind: str, object_id: object, *, title: str = "History") -> Panel:
    """Return the events about an object that the scope in force may see, page by page, as the last panel of its page."""
    scope = current_scope()
    context = {
        "more": f"{reverse('admin:audit_auditevent_changelist')}?object_kind={kind}&object_id={object_id}",
        "empty": "Nothing has been recorded about it "
        + ("in this tenant yet." if scope is not None and scope.tenant_id is not None else "yet."),
    }
    if decide("audit.read", tenant_id=scope.tenant_id if scope else None).allowed:
        context |= history_context(kind, object_id)
    else:
        context |= {"more": "", "empty": "You may not read the audit log."}
    return Panel("history", title, "console/panels/timeline.html", context, 90)


def history_context(kind: str, object_id: object, cursor: str | None = None) -> dict[str, Any]:
    """Return a page of an object's events and the address of the next one. Raises ValidationFailed for a cursor that is none."""
    page = selectors.object_events((kind, *_ALSO.get(kind, ())), object_id, cursor=cursor, limit=SHOWN)
    older = ""
    if page.next_cursor:
        older = f"{reverse('admin:audit_history', args=(kind, object_id))}?{urlencode({'cursor': page.next_cursor})}"
    return {"events": [tell(row) for row in page.events], "older": older}


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
