"""Pure rules of the log: event ids, classes of duration, what a check of the chain found."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

SEQ_BITS = 40
SEQ_MASK = (1 << SEQ_BITS) - 1

FAMILIES: dict[str, tuple[str, ...]] = {
    "calls": ("call",),
    "sessions": ("session", "list", "client", "recording"),
    "security": (
        "auth", "access", "user", "api_key", "role", "membership", "grant", "tenant", "credential", "connection", "limit",
    ),
    "administration": (),
}  # fmt: skip
"""Retention classes: what event types begin with; the last has all the rest. Events about the log itself (`audit.`) stay for good."""

DURATION_BOUNDS_US = (
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000, 30_000_000,
)  # fmt: skip
"""Upper bounds (inclusive) of the classes of duration; one more class holds what is longer."""
DURATION_CLASSES = tuple(f"class_{number:02d}" for number in range(len(DURATION_BOUNDS_US) + 1))
"""Names of the columns that count them."""


def event_name(event_id: int) -> str:
    """Return `<writer>-<seq>`, an event's name everywhere outside the database."""
    return f"{event_id >> SEQ_BITS}-{event_id & SEQ_MASK}"


def parse_event_name(name: str) -> int | None:
    """Return the id that `<writer>-<seq>` names, or None when the text is no name."""
    writer, dash, seq = name.partition("-")
    if not dash or not (writer.isascii() and writer.isdigit() and seq.isascii() and seq.isdigit()):
        return None
    if len(writer) > 7 or len(seq) > 13 or int(writer) >= 1 << 23 or int(seq) > SEQ_MASK:
        return None
    return int(writer) << SEQ_BITS | int(seq)


def percentile_us(counts: Sequence[int], share: float, longest_us: int) -> int | None:
    """Estimate a percentile in microseconds from the counts per class, None without any.

    Within a class durations count as evenly spread; the last class ends at the longest one seen, and nothing is longer.
    """
    total = sum(counts)
    if total == 0:
        return None
    wanted = share * total
    below = 0
    for number, count in enumerate(counts):
        if count and below + count >= wanted:
            start = DURATION_BOUNDS_US[number - 1] if number else 0
            end = DURATION_BOUNDS_US[number] if number < len(DURATION_BOUNDS_US) else max(longest_us, start)
            return min(round(start + (end - start) * (wanted - below) / count), longest_us)
        below += count
    return longest_us


@dataclass(frozen=True, slots=True)
class CallFigures:
    """Finished calls of a window, added up."""

    calls: int = 0
    errors: int = 0
    refused: int = 0
    cancelled: int = 0
    unknown: int = 0
    timed: int = 0
    duration_us: int = 0
    duration_max_us: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    classes: tuple[int, ...] = (0,) * len(DURATION_CLASSES)

    @property
    def error_rate(self) -> float:
        """Return the share of calls that failed: errors and those whose end is not known."""
        return (self.errors + self.unknown) / self.calls if self.calls else 0.0

    @property
    def mean_us(self) -> int | None:
        """Return the mean duration in microseconds."""
        return round(self.duration_us / self.timed) if self.timed else None

    @property
    def p50_us(self) -> int | None:
        """Return the estimated median duration in microseconds."""
        return percentile_us(self.classes, 0.50, self.duration_max_us)

    @property
    def p95_us(self) -> int | None:
        """Return the estimated 95th percentile in microseconds."""
        return percentile_us(self.classes, 0.95, self.duration_max_us)

    @property
    def p99_us(self) -> int | None:
        """Return the estimated 99th percentile in microseconds."""
        return percentile_us(self.classes, 0.99, self.duration_max_us)


@dataclass(frozen=True, slots=True)
class EventFacts:
    """One event as selectors give it; `details` only where the whole event was asked for."""

    id: int
    event_type: str
    time: datetime
    tenant: str | None
    actor_kind: str | None
    actor_id: str | None
    actor: str | None
    origin: str | None
    agent: str | None
    task: str | None
    request_id: str | None
    session: str | None
    trace: str | None
    call_id: str | None
    action: str | None
    object_kind: str | None
    object_id: str | None
    object: str | None
    server: str | None
    tool: str | None
    model: str | None
    revision: str | None
    outcome: str | None
    error_type: str | None
    duration_us: int | None
    request_bytes: int | None
    response_bytes: int | None
    tokens_in: int | None
    tokens_out: int | None
    cost_micros: int | None
    details: dict[str, Any] | None = None
    digest: str | None = None
    """The row's digest in hexadecimal, where the whole event was asked for."""
    previous: str | None = None
    """The digest before it."""

    @property
    def event_id(self) -> str:
        """Return `<writer>-<seq>`."""
        return event_name(self.id)


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, newest first, and where the next page begins."""

    events: tuple[EventFacts, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a chain, and at which row."""

    event_id: str
    what: str


@dataclass(frozen=True, slots=True)
class WriterState:
    """One chain as it was checked: the rows read and where it ends."""

    writer: int
    rows: int
    seq: int
    digest: str


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """The result of a check; `problems` has the first bad row of every chain that is not whole."""

    ok: bool
    rows: int
    seconds: float
    columns: bool
    """Whether the columns beside the stored bytes were compared as well; see `mode`."""
    writers: tuple[WriterState, ...] = ()
    problems: tuple[Problem, ...] = field(default=())
    payloads_gone: int = 0
    """Rows whose payload reached the end of its retention: their digests are in the chain, their bytes are not."""
    removals: tuple[str, ...] = ()
    """The last events (up to 20) that account for them."""
    checkpoints: dict[str, Any] | None = None
    """What the signed checkpoints were like that the chains were held against; None without any."""

    @property
    def mode(self) -> str:
        """Return in words what was compared."""
        return "stored bytes and columns" if self.columns else "stored bytes alone, columns not compared"

    @property
    def first_bad(self) -> str | None:
        """Return the id of the first bad row, or None."""
        return self.problems[0].event_id if self.problems else None

    @property
    def what(self) -> str | None:
        """Return what is wrong with the first bad row, or None."""
        return self.problems[0].what if self.problems else None
