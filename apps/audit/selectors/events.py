"""Reading the log: events, timelines, the story of a call. Each sees what the scope in force may see."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.models import Q, QuerySet

from apps.audit.domain import EventFacts, EventPage, parse_event_name
from apps.audit.models import AuditChain, AuditEvent
from apps.audit.sink.record import FIELDS, decode
from apps.common.context import current_scope
from apps.common.errors import NotFound, TenantRequired, ValidationFailed

_FACTS = ("id", "event_type", "time", *FIELDS[2:29])
MAX_PAGE = 500
LOOKED_AT = 10_000
"""Rows that one page looks at where no index leads to them: some tens of milliseconds."""
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
    Where no index leads to what is asked for, a page looks at 10,000 rows and no more: it may then hold fewer events than `limit`, or
    none, and its cursor leads on. Raises ValidationFailed for an unknown filter or a cursor that is none.
    """
    base = filtered(scoped_events(), tenant=tenant, since=since, until=until)
    if cursor:
        base = _after(base, *_read_cursor(cursor))
    rows = filtered(base, text=text, who=who, **filters)
    limit = max(1, min(limit, MAX_PAGE))
    end = None
    if _is_scan(one_tenant=tenant is not None or scoped_tenant() is not None, text=text, who=who, **filters):
        end = base.order_by("-time").values_list("time", flat=True)[LOOKED_AT : LOOKED_AT + 1].first()
        if end is not None:
            rows = rows.filter(time__gte=end)
    found = (
        [_with_details(row) for row in rows.defer(None)[: limit + 1]]
        if details
        else [EventFacts(*row) for row in rows.values_list(*_FACTS)[: limit + 1]]
    )
    page = found[:limit]
    if len(found) > limit:
        return EventPage(tuple(page), _write_cursor(page[-1].time, page[-1].event_id))
    return EventPage(tuple(page), _write_cursor(end, "0-0") if end is not None else None)


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
    if filters.get("object_id") and not filters.get("call_id"):
        rows = rows.filter(call_id__isnull=True)  # no row of a call carries it, and the index on objects leaves them out
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


def object_events(kinds: Sequence[str], object_id: object, *, cursor: str | None = None, limit: int = 25) -> EventPage:
    """Return a page of what was done to an object, newest first, with details; `kinds` are those under which it is recorded.

    Raises ValidationFailed for a cursor that is none. Calls of a tool are found by `events(tool=…)`.
    """
    rows = scoped_events().defer(None).filter(object_kind__in=kinds, object_id=str(object_id), call_id__isnull=True)
    if cursor:
        rows = _after(rows, *_read_cursor(cursor))
    found = [_with_details(row) for row in rows[: limit + 1]]
    page = found[:limit]
    return EventPage(tuple(page), _write_cursor(page[-1].time, page[-1].event_id) if len(found) > limit else None)


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


def _after(rows: "QuerySet[AuditEvent]", time: datetime, identity: int) -> "QuerySet[AuditEvent]":
    """Narrow to what comes after a place; the second condition is the one that an index can begin with."""
    return rows.filter(Q(time__lt=time) | Q(time=time, id__lt=identity), time__lte=time)


def _is_scan(*, one_tenant: bool, **filters: Any) -> bool:
    """Tell whether rows must be read one by one to find these: there are filters, and none that an index leads to."""
    given = {name: value for name, value in filters.items() if value not in (None, "")}
    if not given or "call_id" in given or {"object_kind", "object_id"} <= given.keys():
        return False
    if connections[settings.AUDIT_DATABASE].vendor != "postgresql":
        return True
    if given.keys() & {"actor_id", "trace"}:
        return False
    if one_tenant:  # of a name or an outcome that others have too, a tenant's own rows may be few and far between
        return True
    outcome = given.get("outcome")
    trouble = outcome is not None and "ok" not in ([outcome] if isinstance(outcome, str) else outcome)
    return not (trouble or given.keys() & {"server", "tool"})


def _write_cursor(time: datetime, event_id: str) -> str:
    text = f"{time.astimezone(UTC).isoformat()}|{event_id}"
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
