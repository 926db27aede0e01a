"""Reading the log and the figures made from it; everything is narrowed to what the scope in force may see."""

from apps.audit.selectors.events import (
    FILTERS,
    call_story,
    event,
    events,
    filtered,
    last_verification,
    object_events,
    scoped_events,
)
from apps.audit.selectors.lately import counted_lately
from apps.audit.selectors.statistics import call_series, call_statistics, call_totals, span_for

__all__ = (
    "FILTERS",
    "call_series",
    "call_statistics",
    "call_story",
    "call_totals",
    "counted_lately",
    "event",
    "events",
    "filtered",
    "last_verification",
    "object_events",
    "scoped_events",
    "span_for",
)
