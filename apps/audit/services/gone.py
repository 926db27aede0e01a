"""Payloads that retention removed, as the log itself tells: which rows may lack their stored bytes."""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from apps.audit.domain import event_name
from apps.audit.services.reading import rows
from apps.audit.sink.record import decode

REMOVED = "audit.payloads_removed"
"""The event that announces a removal; it is committed before the first payload goes, and names every one."""
_ANNOUNCED = """
SELECT id, body FROM audit_event WHERE object_kind = 'audit' AND object_id = 'log' AND call_id IS NULL AND event_type = %s
ORDER BY time, id
"""


class Runs:
    """Rows of one chain whose payloads may be gone, as runs of seqs."""

    def __init__(self) -> None:
        self._runs: list[tuple[int, int]] = []

    def add(self, first: int, last: int) -> None:
        """Add a run."""
        self._runs.append((first, last))

    def done(self) -> None:
        """Sort and join what was added."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted(self._runs):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = merged[-1][0], max(merged[-1][1], last)
            else:
                merged.append((first, last))
        self._runs = merged

    def covers(self, seq: int) -> bool:
        """Tell whether a row is in one of the runs."""
        at = bisect_right(self._runs, (seq, 2**63)) - 1
        return at >= 0 and self._runs[at][0] <= seq <= self._runs[at][1]


class GonePayloads:
    """Everything that events of the log announce as removed. Their own bytes are checked with the rest of their chain."""

    def __init__(self) -> None:
        self.count = 0
        """Rows met without a payload that an event accounts for."""
        self.events: list[str] = []
        """Names of the events that account for them."""
        self._by_writer: dict[int, Runs] = {}
        self.load()

    def load(self) -> None:
        """Read the events, also once more when a payload is missing that was there a moment ago."""
        self._by_writer.clear()
        self.events.clear()
        for identity, details in announced():
            runs = self._by_writer.setdefault(details["writer"], Runs())
            for first, last in details["runs"]:
                runs.add(first, last)
            self.events.append(event_name(identity))
        for runs in self._by_writer.values():
            runs.done()

    def covers(self, writer: int, seq: int) -> bool:
        """Tell whether an event accounts for a payload that is not there."""
        if (runs := self._by_writer.get(writer)) is not None and runs.covers(seq):
            return True
        self.load()
        return (runs := self._by_writer.get(writer)) is not None and runs.covers(seq)


def announced() -> Iterator[tuple[int, dict[str, Any]]]:
    """Give the announcements of the log, oldest first: id and details (`writer`, `runs` of seqs)."""
    for identity, body in rows(_ANNOUNCED, [REMOVED]):
        if (details := _details(bytes(body))) is not None:
            yield identity, details


def _details(body: bytes) -> dict[str, Any] | None:
    """Return what an announcement says, None for bytes that are none: the columns beside them do not count."""
    try:
        record = decode(body)
        details = record.details or {}
        if record.event_type != REMOVED or type(details["writer"]) is not int:
            return None
        for first, last in details["runs"]:
            if type(first) is not int or type(last) is not int:
                return None
    except (ValueError, KeyError, TypeError):
        return None
    return details
