"""What signed checkpoints say about the chains, to hold against the log: a cut tail, an old copy, a rewritten stretch show."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from apps.audit.checkpoints.document import Checkpoint, NoCheckpoint, genuine, read
from apps.audit.checkpoints.keys import CheckpointKeys
from apps.audit.domain import SEQ_MASK, Problem
from apps.audit.models import AuditCheckpoint, CheckpointState

_Mark = tuple[bytes, int]
"""Digest, number of the checkpoint that says it."""
MOST_PROBLEMS = 20
_CHECKED = 1_000


@dataclass(slots=True)
class CheckpointReport:
    """What the checkpoints themselves are like."""

    read: int = 0
    first: int | None = None
    last: int | None = None
    last_time: str | None = None
    longest_gap_seconds: float | None = None
    """The longest time between two of them."""
    unreadable_lines: int = 0
    problems: list[Problem] = field(default_factory=list)


class Marks:
    """Digests that rows of the chains must have."""

    def __init__(self) -> None:
        self.report: CheckpointReport | None = None
        self._by_writer: dict[int, dict[int, _Mark]] = {}

    @property
    def writers(self) -> set[int]:
        """Return the chains that a checkpoint knows."""
        return set(self._by_writer)

    def add(self, writer: int, seq: int, digest: str, number: int) -> None:
        """Note what a checkpoint says of a row; of the empty chain nothing can be said."""
        if seq:
            self._by_writer.setdefault(writer, {}).setdefault(seq, (bytes.fromhex(digest), number))

    def differing(self, writer: int, chain: list[tuple[Any, ...]]) -> tuple[int, int] | None:
        """Return id and checkpoint of the first of consecutive rows that differ from a mark, or None."""
        marks = self._by_writer.get(writer)
        if not marks or not chain:
            return None
        first = chain[0][0] & SEQ_MASK
        wanted = marks.keys() & range(first, first + len(chain)) if len(marks) > len(chain) else marks.keys()
        for seq in sorted(wanted):
            if first <= seq < first + len(chain) and chain[seq - first][5] != marks[seq][0]:
                return chain[seq - first][0], marks[seq][1]
        return None

    def beyond(self, writer: int, end: int) -> tuple[int, int] | None:
        """Return seq and checkpoint of the last mark after the end of a chain, or None."""
        later = [(seq, mark[1]) for seq, mark in self._by_writer.get(writer, {}).items() if seq > end]
        return max(later) if later else None


def own_marks(keys: CheckpointKeys) -> Marks:
    """Return the highest end of each chain among the checkpoints that are kept here.

    Checked are the signatures of those that say it and of the newest thousand: a month of all would take many seconds.
    """
    marks, report = Marks(), CheckpointReport()
    highest: dict[int, tuple[int, str, Checkpoint]] = {}
    newest: deque[Checkpoint] = deque(maxlen=_CHECKED)
    for line in AuditCheckpoint.objects.order_by("number").values_list("line", flat=True).iterator(chunk_size=2_000):
        try:
            checkpoint = read(line)
        except NoCheckpoint:
            report.unreadable_lines += 1
            report.problems.append(Problem("checkpoint", "a checkpoint that is kept here cannot be read"))
            continue
        newest.append(checkpoint)
        report.read += 1
        report.first = report.first or checkpoint.number
        report.last, report.last_time = checkpoint.number, checkpoint.time
        for writer, seq, digest in checkpoint.heads:
            if seq >= highest.get(writer, (0,))[0]:
                highest[writer] = seq, digest, checkpoint
    for checkpoint in {one.number: one for one in (*newest, *(mark[2] for mark in highest.values()))}.values():
        if not genuine(checkpoint, keys):
            report.problems.append(_foreign(checkpoint))
    for writer, (seq, digest, checkpoint) in highest.items():
        marks.add(writer, seq, digest, checkpoint.number)
    del report.problems[MOST_PROBLEMS:]
    marks.report = report if report.read or report.problems else None
    return marks


def given_marks(lines: Iterable[str], keys: CheckpointKeys) -> Marks:
    """Check checkpoints that were kept elsewhere, one a line, in any order, and return what they say of the log."""
    marks, report = Marks(), CheckpointReport()
    found: dict[int, Checkpoint] = {}
    for line in lines:
        if not line.strip():
            continue
        try:
            checkpoint = read(line)
        except NoCheckpoint:
            report.unreadable_lines += 1
            continue
        if not genuine(checkpoint, keys):
            report.problems.append(_foreign(checkpoint))
            continue
        known = found.setdefault(checkpoint.number, checkpoint)
        if known != checkpoint:
            what = f"two different checkpoints carry this number ({known.time} and {checkpoint.time}): the log was set back to an older copy"
            report.problems.append(Problem(f"checkpoint {checkpoint.number}", what))
    ordered = [found[number] for number in sorted(found)]
    _check_row(ordered, report)
    for checkpoint in ordered:
        for writer, seq, digest in checkpoint.heads:
            marks.add(writer, seq, digest, checkpoint.number)
    report.read = len(ordered)
    if ordered:
        report.first, report.last, report.last_time = ordered[0].number, ordered[-1].number, ordered[-1].time
        _check_state(ordered[-1], report)
    elif not report.problems:
        report.problems.append(Problem("checkpoints", "there is no checkpoint in what was given"))
    del report.problems[MOST_PROBLEMS:]
    marks.report = report
    return marks


def _check_row(ordered: list[Checkpoint], report: CheckpointReport) -> None:
    """Compare each checkpoint with the one before it."""
    for before, after in pairwise(ordered):
        name = f"checkpoint {after.number}"
        if after.installation != before.installation:
            report.problems.append(Problem(name, "it is of another log than the one before it"))
        if after.number != before.number + 1:
            missing = f"{before.number + 1} to {after.number - 1}"
            report.problems.append(Problem(f"checkpoint {before.number + 1}", f"checkpoints {missing} are missing"))
        elif after.previous != before.digest:
            report.problems.append(Problem(name, "it was not made after the one before it: one of the two was replaced"))
        ends = {writer: seq for writer, seq, _ in after.heads}
        for writer, seq, _ in before.heads:
            if ends.get(writer, 0) < seq:
                end = ends.get(writer, 0)
                what = f"the end of the chain was cut off between the checkpoints {before.number} (row {seq}) and {after.number} (row {end})"
                report.problems.append(Problem(f"{writer}-{end + 1}", what))
        gap = (_moment(after) - _moment(before)).total_seconds()
        report.longest_gap_seconds = max(report.longest_gap_seconds or 0.0, gap)
        if len(report.problems) > MOST_PROBLEMS:
            return


def _check_state(newest: Checkpoint, report: CheckpointReport) -> None:
    """Compare the newest checkpoint with what the database knows of its own."""
    state = CheckpointState.objects.filter(pk=1).first()
    name = f"checkpoint {newest.number}"
    if state is None or state.installation != newest.installation:
        report.problems.append(Problem(name, "it is of another log than this one: the database was made anew, or replaced"))
    elif state.number < newest.number:
        what = f"the database knows checkpoints up to {state.number} only: it is an older copy"
        report.problems.append(Problem(name, what))
    else:
        kept = AuditCheckpoint.objects.filter(number=newest.number).values_list("line", flat=True).first()
        if kept is not None and kept != newest.line.decode():
            report.problems.append(
                Problem(name, "the database has another one of this number: it was set back, or this one replaced")
            )


def _foreign(checkpoint: Checkpoint) -> Problem:
    return Problem(
        f"checkpoint {checkpoint.number}", f"its signature is not of a key of this installation (key {checkpoint.key[:16]})"
    )


def _moment(checkpoint: Checkpoint) -> datetime:
    return datetime.fromisoformat(checkpoint.time)
