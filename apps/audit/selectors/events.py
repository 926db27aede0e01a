"""Reading the log: events, timelines, the story of a call. Each sees what the scope in force may see."""

import base64
import binascii
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from django.db.models import Q, QuerySet

from apps.audit.domain import EventFacts, EventPage, parse_event_name
from apps.audit.models import AuditChain, AuditEvent
from apps.audit.sink.record import FIELDS, decode
from apps.common.context import current_scope
from apps.common.errors import NotFound, TenantRequired, ValidationFailed

_FACTS = ("id", "event_type", "time", *FIELDS[2:29])
MAX_PAGE = 500
FILTERS = (
    "actor_kind", "actor_id", "actor", "origin", "action", "event_type", "object_kind", "object_id", "server", "tool", "outcome",
    "error_type", "call_id", "request_id", "session", "trace", "task", "revision",
)  # fmt: skip
"""Columns that `events` compares with one value or, given a list, with several."""
_SEARCHED = ("actor", "object", "server", "tool", "event_type", "call_id", "agent")


def scoped_tenant() -> str | None:
    """Return the tenant in force, None when all may be seen. Raises TenantRequired without a scope."""
    scope = current_scope()
    if scope is None or (scope.tenant_id is None and not scope.every_tenant):
        raise TenantRequired("Audit events were asked for without a tenant.")
    return None if scope.every_tenant else scope.tenant_id


def scoped_events() -> "QuerySet[AuditEvent]":
    """Return the events that the scope in force may see, newest first, without their bodies."""
    rows = AuditEvent.objects.order_by("-time", "-id").defer("body")
    tenant = scoped_tenant()
    return rows if tenant is None else rows.filter(tenant=tenant)


def events(
    *,
    tenant: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    text: str = "",
    who: str = "",
    cursor: str | None = None,
    limit: int = 50,
    details: bool = False,
    **filters: Any,
) -> EventPage:
    """Return events, newest first, and the cursor of the next page.

    `since` is inclusive, `until` exclusive; `text` is the beginning of an actor, object, server, tool, event type, call id or
    agent, or an event id; `who` is the beginning of an actor's name; with `details` each
    event has its details; `filters` name columns of `FILTERS` (an `event_type` that ends with `.` is a prefix).
    Raises ValidationFailed for an unknown filter or a cursor that is none.
    """
    rows = filtered(scoped_events(), tenant=tenant, since=since, until=until, text=text, who=who, **filters)
    limit = max(1, min(limit, MAX_PAGE))
    if cursor:
        time, identity = _read_cursor(cursor)
        rows = rows.filter(Q(time__lt=time) | Q(time=time, id__lt=identity))
    found = (
        [_with_details(row) for row in rows.defer(None)[: limit + 1]]
        if details
        else [EventFacts(*row) for row in rows.values_list(*_FACTS)[: limit + 1]]
    )
    page = found[:limit]
    following = _write_cursor(page[-1]) if len(found) > limit else None
    return EventPage(tuple(page), following)


def filtered(
    rows: "QuerySet[AuditEvent]",
    *,
    tenant: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    text: str = "",
    who: str = "",
    **filters: Any,
) -> "QuerySet[AuditEvent]":
    """Narrow a query set of events; see `events`."""
    unknown = sorted(filters.keys() - set(FILTERS))
    if unknown:
        raise ValidationFailed("Unknown filter.", errors={name: ["There is no such filter."] for name in unknown})
    if who:
        rows = rows.filter(actor__startswith=who)
    for name, value in filters.items():
        if value is None or value == "":
            continue
        if isinstance(value, list | tuple | set | frozenset):
            rows = rows.filter(**{f"{name}__in": list(value)})
        elif name == "event_type" and value.endswith("."):
            rows = rows.filter(event_type__startswith=value)
        else:
            rows = rows.filter(**{name: value})
    if tenant is not None:
        rows = rows.filter(tenant=tenant)
    if since is not None:
        rows = rows.filter(time__gte=since)
    if until is not None:
        rows = rows.filter(time__lt=until)
    if text:
        matches = Q(*((f"{name}__startswith", text) for name in _SEARCHED), _connector=Q.OR)
        identity = parse_event_name(text)
        rows = rows.filter(matches | Q(id=identity) if identity is not None else matches)
    return rows


def event(event_id: str | int) -> EventFacts:
    """Return one event with its details and digests, by `<writer>-<seq>` or number. Raises NotFound."""
    identity = parse_event_name(event_id) if isinstance(event_id, str) else event_id
    row = scoped_events().defer(None).filter(id=identity).first() if identity is not None else None
    if row is None:
        raise NotFound("There is no such audit event.")
    return _chained([row])[0]


def timeline(object_kind: str, object_id: object, *, limit: int = 100) -> tuple[EventFacts, ...]:
    """Return what was done to an object, newest first, with details. Calls of a tool are found by `events(tool=…)`."""
    rows = scoped_events().defer(None).filter(object_kind=object_kind, object_id=str(object_id), call_id__isnull=True)
    return tuple(_with_details(row) for row in rows[:limit])


def call_story(call_id: str) -> tuple[EventFacts, ...]:
    """Return every event of a call in the order in which they were written, with details and digests; raises NotFound without any."""
    rows = scoped_events().defer(None).filter(call_id=call_id).order_by("time", "id")
    found = list(rows[:MAX_PAGE])
    if not found:
        raise NotFound("There is no such call.")
    return _chained(found)


def last_verification() -> EventFacts | None:
    """Return the event of the last check of the log, with its report as details; None when it was never checked."""
    rows = AuditEvent.objects.filter(
        object_kind="audit", object_id="log", call_id__isnull=True, event_type="audit.verified"
    ).order_by("-time", "-id")
    row = rows.first()
    return None if row is None else _chained([row])[0]


def _chained(rows: list[AuditEvent]) -> tuple[EventFacts, ...]:
    """Return events with their details and their places in the chain."""
    chain = AuditChain.objects.in_bulk([row.pk for row in rows])
    return tuple(
        replace(_with_details(row), digest=bytes(place.digest).hex(), previous=bytes(place.previous).hex())
        if (place := chain.get(row.pk))
        else _with_details(row)
        for row in rows
    )


def _with_details(row: AuditEvent) -> EventFacts:
    values: dict[str, Any] = {name: getattr(row, name) for name in _FACTS}
    return EventFacts(**values, details=_details(row))


def _details(row: AuditEvent) -> dict[str, Any] | None:
    try:
        return decode(bytes(row.body)).details
    except ValueError:
        return {"unreadable": "the stored bytes are not an audit record; run a verification"}


def _write_cursor(row: EventFacts) -> str:
    text = f"{row.time.astimezone(UTC).isoformat()}|{row.event_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[datetime, int]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        time, _, name = text.partition("|")
        moment, identity = datetime.fromisoformat(time), parse_event_name(name)
    except (binascii.Error, ValueError) as error:
        raise ValidationFailed("The cursor is not one of ours.", errors={"cursor": ["Not a cursor."]}) from error
    if identity is None or moment.tzinfo is None:
        raise ValidationFailed("The cursor is not one of ours.", errors={"cursor": ["Not a cursor."]})
    return moment, identity
