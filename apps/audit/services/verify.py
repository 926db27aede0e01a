"""The check of the log: walks every chain over its stored bytes and names the first row that is not as it was written.

Rows are read in short statements of their own, so a check never holds back the writers, and up to the head that was read first,
so what is committed meanwhile does not matter. What only a signature outside the machine can show (a tail cut together with
its head and all roll-ups) is not found here.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.db import connections

from apps.audit.domain import SEQ_BITS, SEQ_MASK, Problem, VerificationReport, WriterState, event_name
from apps.audit.models import AuditHead, RollupCursor
from apps.audit.services.columns import COLUMNS, difference
from apps.audit.sink.record import FORM, GENESIS, link
from apps.common import authorise
from apps.common.clock import monotonic
from apps.common.events import ControlEvent
from apps.common.outbox import audit, unit_of_work

Progress = Callable[[int, int], None]
"""Called with the rows read and the rows there are, every few thousand rows."""

_ROWS = 4_000
_READ = """
SELECT c.id, c.writer, c.seq, c.previous, c.digest, c.form, e.body{columns}
FROM audit_chain c LEFT JOIN audit_event e ON e.id = c.id WHERE c.id > %s AND c.id <= %s ORDER BY c.id LIMIT {rows}
"""
_END = """
SELECT h.seq, h.digest, (SELECT max(id) FROM audit_chain WHERE id >= %s AND id <= %s),
(SELECT max(id) FROM audit_event WHERE id >= %s AND id <= %s) FROM audit_head h WHERE h.writer = %s
"""
_COUNT = "SELECT count(*) FROM audit_event WHERE id > %s AND id <= %s"
_STRANGER = """
SELECT min(e.id) FROM audit_event e LEFT JOIN audit_chain c ON c.id = e.id WHERE e.id > %s AND e.id <= %s AND c.id IS NULL
"""


class _Bad(Exception):
    def __init__(self, event_id: int, what: str) -> None:
        super().__init__(what)
        self.problem = Problem(event_name(event_id), what)


def verify_log(*, columns: bool = True, progress: Progress | None = None) -> VerificationReport:
    """Check every chain, note the result as an `audit.verified` event, and return it.

    `columns` compares the columns beside the stored bytes, which lists and filters show, with them; without, it is about three
    times as fast and says nothing of what they show. Needs the permission
    `audit.admin`, which superusers have. Raises PermissionDenied.
    """
    authorise.require("audit.admin", tenant_id=None, kind="audit", object_id="log", label="audit log")
    report = check_log(columns=columns, progress=progress)
    with unit_of_work():
        audit(
            ControlEvent(
                event_type="audit.verified",
                action="audit.admin",
                object_kind="audit",
                object_id="log",
                object_label="audit log",
                outcome="ok" if report.ok else "failed",
                details=asdict(report),
            )
        )
    return report


def check_log(*, columns: bool = True, progress: Progress | None = None) -> VerificationReport:
    """Check every chain and return what was found; leaves no trace."""
    started = monotonic()
    heads = {head.writer: head for head in AuditHead.objects.order_by("writer")}
    known = dict(RollupCursor.objects.values_list("writer", "seq"))
    total = sum(head.seq for head in heads.values())
    states: list[WriterState] = []
    problems: list[Problem] = []
    rows = 0

    def advance(count: int) -> None:
        nonlocal rows
        rows += count
        if progress is not None:
            progress(rows, total)

    for writer in sorted({*heads, *_writers_with_rows(), *range(max([*heads, *known], default=-1) + 1)}):
        try:
            head = heads.get(writer)
            if head is None:
                raise _Bad(_last(writer), "the head of this chain is missing")
            before = rows
            _check_chain(head, columns, advance)
            _check_end(head)
            if known.get(writer, 0) > head.seq:
                raise _Bad(
                    writer << SEQ_BITS | head.seq + 1,
                    f"the roll-ups count {known[writer]} rows of this chain: its end is cut off",
                )
            states.append(WriterState(writer, rows - before, head.seq, bytes(head.digest).hex()))
        except _Bad as bad:
            problems.append(bad.problem)
    return VerificationReport(not problems, rows, monotonic() - started, columns, tuple(states), tuple(problems))


def _check_chain(head: AuditHead, columns: bool, advance: Callable[[int], None]) -> None:
    writer, base = head.writer, head.writer << SEQ_BITS
    seq, previous = 0, GENESIS
    for first, last, rows in _chunks(base, base | head.seq, columns):
        for row in rows:
            identity, row_writer, row_seq, row_previous, digest, form, body = row[:7]
            seq += 1
            if identity != base | seq:
                raise _Bad(base | seq, f"the row is missing; the next one is {event_name(identity)}")
            if row_writer != writer or row_seq != seq:
                raise _Bad(identity, f"its place in the chain was altered: it says writer {row_writer}, seq {row_seq}")
            if form != FORM:
                raise _Bad(identity, f"its form {form} is not known")
            if bytes(row_previous) != previous:
                raise _Bad(identity, "the digest it names for the row before it was altered, or that row was")
            if body is None:
                raise _Bad(identity, "its payload is missing and no retention event accounts for that")
            previous = link(writer, seq, previous, bytes(body))
            if previous != bytes(digest):
                raise _Bad(
                    identity, "its stored bytes do not give its digest: the payload, the digest or the order was altered"
                )
            if columns and (name := difference(row[7:], bytes(body))):
                raise _Bad(identity, f"its column {name} does not say what its stored bytes say")
        if _value(_COUNT, [first, last]) != len(rows):
            stranger = _value(_STRANGER, [first, last])
            if stranger is not None:
                raise _Bad(stranger, "the event has no place in the chain: it was inserted, or its chain row was removed")
        advance(len(rows))
    if seq < head.seq:
        raise _Bad(base | seq + 1, f"the end of the chain is cut off: the head is at {head.seq}")
    if previous != bytes(head.digest):
        raise _Bad(base | max(seq, 1), "the head does not name the digest of its row: the head or the row was altered")


def _check_end(head: AuditHead) -> None:
    """Look, in one statement, whether there is anything after the head, which may have moved on."""
    lowest, highest = head.writer << SEQ_BITS, head.writer << SEQ_BITS | SEQ_MASK
    with connections[settings.AUDIT_DATABASE].cursor() as cursor:
        cursor.execute(_END, [lowest, highest, lowest, highest, head.writer])
        row = cursor.fetchone()
    if row is None:
        raise _Bad(lowest | head.seq, "the head of this chain is missing")
    seq, _, *found = row
    beyond = [identity for identity in found if identity is not None and identity > lowest | seq]
    if beyond:
        raise _Bad(lowest | seq + 1, f"rows stand after the head of the chain, up to {event_name(max(beyond))}")
    if seq < head.seq:
        raise _Bad(lowest | seq + 1, "the head went back while the chain was read")


def _chunks(base: int, end: int, columns: bool) -> Iterator[tuple[int, int, list[tuple[Any, ...]]]]:
    """Give the rows of a chain in order, some thousand at a time, each with the range of ids that it covers."""
    statement = _READ.format(rows=_ROWS, columns="".join(f", e.{name}" for name in COLUMNS) if columns else "")
    after = base - 1
    while after < end:
        with connections[settings.AUDIT_DATABASE].cursor() as cursor:
            cursor.execute(statement, [after, end])
            rows = cursor.fetchall()
        last = rows[-1][0] if len(rows) == _ROWS else end
        yield after, last, rows
        after = last


def _writers_with_rows() -> set[int]:
    """Return the writers that any row claims to be of, by skipping from one to the next."""
    found = set()
    for table in ("audit_chain", "audit_event"):
        after: int | None = -(2**62)
        while after is not None:
            identity = _value(f"SELECT min(id) FROM {table} WHERE id >= %s", [after])  # noqa: S608 - a constant
            if identity is None:
                break
            found.add(identity >> SEQ_BITS)
            after = (identity >> SEQ_BITS) + 1 << SEQ_BITS
    return found


def _last(writer: int) -> int:
    lowest = writer << SEQ_BITS
    last = _value("SELECT max(id) FROM audit_chain WHERE id >= %s AND id <= %s", [lowest, lowest | SEQ_MASK])
    return last if last is not None else lowest | 1


def _value(statement: str, parameters: list[int]) -> int | None:
    with connections[settings.AUDIT_DATABASE].cursor() as cursor:
        cursor.execute(statement, parameters)
        row = cursor.fetchone()
    return row[0] if row else None
