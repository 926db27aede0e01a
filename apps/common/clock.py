"""The one place that reads the clock."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """Return the current time, in UTC and aware."""
    return datetime.now(UTC)


def now_us() -> int:
    """Return microseconds since the epoch."""
    return time.time_ns() // 1000


def monotonic() -> float:
    """Return seconds of a clock that never goes back; for durations and deadlines."""
    return time.monotonic()
