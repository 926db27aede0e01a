"""One writer's chain in memory: where it stands and which intents are open."""

from collections import OrderedDict
from collections.abc import Sequence

from apps.audit.sink.record import INTENT, OUTCOME, AuditRecord, Encoded, link
from apps.audit.sink.store import Batch, Head


class Chain:
    """Makes batches of consecutive rows; moves on only when one is committed."""

    def __init__(self, head: Head) -> None:
        self.writer = head.writer
        self.seq = head.seq
        self.digest = head.digest
        self.open: OrderedDict[str, int] = OrderedDict()
        """Open intents, oldest first: call id to seq. The oldest is found and any is closed in constant time."""

    def moved_to(self, head: Head) -> None:
        """Take over what the database says, after the connection was lost."""
        self.seq, self.digest = head.seq, head.digest

    def batch(self, rows: Sequence[Encoded]) -> Batch:
        """Chain rows to the head.

        The `open_from` of the batch is the one before it: still true, only a little low, and it need not be taken back when
        the commit fails.
        """
        writer, seq, previous = self.writer, self.seq, self.digest
        batch = Batch(writer=writer, start=seq)
        previouses, digests, values, bodies = batch.previous, batch.digests, batch.values, batch.bodies
        for columns, body in rows:
            seq += 1
            previouses.append(previous)
            previous = link(writer, seq, previous, body)
            digests.append(previous)
            values.append(columns)
            bodies.append(body)
        batch.seq, batch.digest = seq, previous
        batch.open_from = next(iter(self.open.values())) if self.open else batch.start + 1
        return batch

    def committed(self, batch: Batch, records: Sequence[AuditRecord]) -> None:
        """Move the head on and note which intents are open now."""
        self.seq, self.digest = batch.seq, batch.digest
        opened = self.open
        for seq, record in enumerate(records, batch.start + 1):
            kind = record.event_type
            if kind == INTENT:
                if record.call_id is not None:
                    opened[record.call_id] = seq
            elif kind == OUTCOME and record.call_id is not None:
                opened.pop(record.call_id, None)
