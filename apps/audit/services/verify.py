"""The check of the log: walks every chain over its stored bytes and names the first row that is not as it was written.

Rows are read in short statements of their own, so a check never holds back the writers, and up to the head that was read first,
so what is committed meanwhile does not matter. Each chain is held against signed checkpoints: those that are kept here, and, where they
are given, those that were kept elsewhere, which somebody who owns this machine could not change.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace

from django.conf import settings
from django.db import connections

from apps.audit.checkpoints.keys import CheckpointKeys
from apps.audit.domain import SEQ_BITS, SEQ_MASK, Problem, VerificationReport, WriterState, event_name
from apps.audit.models import AuditHead, RollupCursor
from apps.audit.services.checkpoints import configured_keys
from apps.audit.services.columns import difference
from apps.audit.services.gone import GonePayloads
from apps.audit.services.marks import Marks, given_marks, own_marks
from apps.audit.services.reading import chunks
from apps.audit.sink.record import FORM, GENESIS, link
from apps.common import authorise
from apps.common.clock import monotonic
from apps.common.errors import ValidationFailed
from apps.common.events import ControlEvent
from apps.common.outbox import audit, unit_of_work

Progress = Callable[[int, int], None]
"""Called with the rows read and the rows there are, every few thousand rows."""

_END = """
SELECT h.seq, h.digest, (SELECT max(id) FROM audit_chain WHERE id >= %s AND id <= %s),
(SELECT max(id) FROM audit_event WHERE id >= %s AND id <= %s) FROM audit_head h WHERE h.writer = %s
"""


class _Bad(Exception):
    def __init__(self, event_id: int, what: str) -> None:
        super().__init__(what)
        self.problem = Problem(event_name(event_id), what)


def verify_log(
    *,
    columns: bool = True,
    progress: Progress | None = None,
    checkpoints: Iterable[str] | None = None,
    public_keys: Iterable[str] = (),
) -> VerificationReport:
    """Check every chain, note the result as an `audit.verified` event, and return it.

    `columns` compares the columns beside the stored bytes, which lists and filters show, with them; without, it is about three
    times as fast and says nothing of what they show. `checkpoints` are lines kept elsewhere; they must be signed by a key of this
    installation, or, where any are given, by one of `public_keys` (base64url). Needs the permission
    `audit.admin`, which superusers have. Raises PermissionDenied, ValidationFailed.
    """
    authorise.require("audit.admin", tenant_id=None, kind="audit", object_id="log", label="audit log")
    texts = list(public_keys)
    try:
        keys = CheckpointKeys.trusting(texts) if texts else None
    except ValueError as error:
        raise ValidationFailed(f"A public key cannot be read: {error}.", errors={"public_keys": [str(error)]}) from error
    report = check_log(columns=columns, progress=progress, checkpoints=checkpoints, keys=keys)
    with unit_of_work():
        audit(
            ControlEvent(
                event_type="audit.verified",
                action="audit.admin",
                object_kind="audit",
                object_id="log",
                object_label="audit log",
                outcome="ok" if report.ok else "failed",
                details=asdict(replace(report, writers=report.writers[:100])),
            )
        )
    return report


def check_log(
    *,
    columns: bool = True,
    progress: Progress | None = None,
    checkpoints: Iterable[str] | None = None,
    keys: CheckpointKeys | None = None,
) -> VerificationReport:
    """Check every chain and return what was found; leaves no trace. See `verify_log`."""
    started = monotonic()
    # checkpoints first: none of them can name what the heads, read after, do not have
    own = own_marks(configured_keys())
    given = given_marks(checkpoints, keys or configured_keys()) if checkpoints is not None else None
    marks = [one for one in (own, given) if one is not None]
    gone = GonePayloads()
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

    marked = {writer for one in marks for writer in one.writers}
    highest = max([*heads, *known], default=-1)
    for writer in sorted({*heads, *marked, *_writers_with_rows(), *range(highest + 1)}):
        try:
            head = heads.get(writer)
            if head is None:
                raise _Bad(_last(writer), "the head of this chain is missing")
            before = rows
            _check_chain(head, columns, advance, gone, marks)
            _check_end(head)
            if known.get(writer, 0) > head.seq:
                raise _Bad(
                    writer << SEQ_BITS | head.seq + 1,
                    f"the roll-ups count {known[writer]} rows of this chain: its end is cut off",
                )
            states.append(WriterState(writer, rows - before, head.seq, bytes(head.digest).hex()))
        except _Bad as bad:
            problems.append(bad.problem)
    for one in marks:
        problems += one.report.problems if one.report is not None else []
    shown = given if given is not None else own
    return VerificationReport(
        not problems,
        rows,
        monotonic() - started,
        columns,
        tuple(states),
        tuple(problems),
        payloads_gone=gone.count,
        removals=tuple(gone.events[-20:]) if gone.count else (),
        checkpoints=asdict(shown.report) if shown.report is not None else None,
    )


def _check_chain(
    head: AuditHead, columns: bool, advance: Callable[[int], None], gone: GonePayloads, marks: list[Marks]
) -> None:
    writer, base = head.writer, head.writer << SEQ_BITS
    seq, previous = 0, GENESIS
    for last, chain, events in chunks(base | 1, base | head.seq, columns=columns):
        stored = {row[0]: row for row in events}
        met = 0
        for identity, row_writer, row_seq, form, row_previous, digest in chain:
            seq += 1
            if identity != base | seq:
                raise _Bad(base | seq, f"the row is missing; the next one is {event_name(identity)}")
            if row_seq != seq or row_writer != writer:
                raise _Bad(identity, f"its place in the chain was altered: it says writer {row_writer}, seq {row_seq}")
            if form != FORM:
                raise _Bad(identity, f"its form {form} is not known")
            if row_previous != previous:
                raise _Bad(identity, "the digest it names for the row before it was altered, or that row was")
            event = stored.get(identity)
            if event is None:
                if not gone.covers(writer, seq):
                    raise _Bad(identity, "its payload is missing and no retention event accounts for that")
                gone.count += 1
                previous = bytes(digest)
                continue
            met += 1
            previous = link(writer, seq, previous, event[1])
            if previous != digest:
                raise _Bad(
                    identity, "its stored bytes do not give its digest: the payload, the digest or the order was altered"
                )
            if columns and (name := difference(event[2:], event[1])):
                raise _Bad(identity, f"its column {name} does not say what its stored bytes say")
        if met != len(events):
            stranger = min(stored.keys() - {row[0] for row in chain})
            raise _Bad(stranger, "the event has no place in the chain: it was inserted, or its chain row was removed")
        if base | seq != last:
            following = _value("SELECT min(id) FROM audit_chain WHERE id > %s AND id <= %s", [base | seq, base | head.seq])
            if following is not None:
                raise _Bad(base | seq + 1, f"the row is missing; the next one is {event_name(following)}")
            raise _Bad(base | seq + 1, f"the end of the chain is cut off: the head is at {head.seq}")
        for one in marks:
            if (found := one.differing(writer, chain)) is not None:
                raise _Bad(
                    found[0], f"checkpoint {found[1]} says another digest: the chain was written anew, up to here at least"
                )
        advance(len(chain))
    for one in marks:
        if (found := one.beyond(writer, seq)) is not None:
            what = f"the end of the chain is cut off: checkpoint {found[1]} was signed when it ended at row {found[0]}"
            raise _Bad(base | seq + 1, what)
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
