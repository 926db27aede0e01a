"""Looks at what calls carried: samples of arguments and results are sensitive, so that somebody saw them is recorded."""

from collections.abc import Iterable

from apps.audit.domain import EventFacts
from apps.common.events import ControlEvent
from apps.common.outbox import audit, unit_of_work

_SAMPLES = ("arguments", "result")
"""Members of an event's details that hold a sample of a payload."""


def note_payloads_read(events: Iterable[EventFacts]) -> bool:
    """Record that the actor in force saw the payload samples of some events; nothing where there are none. Tells whether there were."""
    seen = [event for event in events if event.details and any(name in event.details for name in _SAMPLES)]
    if not seen:
        return False
    first = seen[0]
    with unit_of_work():
        audit(
            ControlEvent(
                event_type="audit.payload_read",
                action="audit.read",
                object_kind="call",
                object_id=first.call_id or first.event_id,
                object_label=f"{first.server} · {first.tool}" if first.server and first.tool else first.event_id,
                tenant_id=first.tenant,
                server=first.server or "",
                tool=first.tool or "",
                details={"events": [event.event_id for event in seen[:50]]},
            )
        )
    return True
