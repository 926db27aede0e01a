"""Random tampering with a log, each way that somebody with the database's rights has, and the row that a check must name.

Used by the tests at small scale and by `make proof` at full scale. Every mutation happens in a transaction that is rolled back.
"""

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import connections, transaction

from apps.audit.domain import SEQ_BITS, SEQ_MASK, event_name
from apps.audit.models import AuditCheckpoint, CheckpointState
from apps.audit.services.checkpoints import configured_keys, make_checkpoint
from apps.audit.services.columns import COLUMNS
from apps.audit.services.verify import check_log
from apps.audit.sink.config import SinkConfig
from apps.audit.sink.record import NUMBERS, link
from tests.audit import logs

ROWS = 20
"""Rows of each chain; checkpoints are made at a half, at three quarters and at the end."""
WRITERS = 2


def write(config: SinkConfig) -> list[str]:
    """Fill an empty log; return its checkpoints' lines, as a place outside keeps them."""
    lines: list[str] = []

    async def some(count: int) -> None:
        async with logs.running(config) as first, logs.running(config) as second:
            for number in range(count):
                for sink in (first, second):
                    await sink.append(
                        logs.note(
                            f"test.event_{number}", tenant=f"t{number}", actor="ann", tool="say", outcome="ok", duration_us=number,
                            details={"number": number, "text": "x" * random.randrange(40)},
                        )
                    )  # fmt: skip

    for count in (ROWS // 2, ROWS // 4, ROWS // 4):
        asyncio.run(some(count))
        made = make_checkpoint(configured_keys())
        assert made is not None
        lines.append(made.line.decode())
    return lines


@dataclass
class Result:
    """What a run of mutations came to."""

    done: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    misnamed: list[str] = field(default_factory=list)


def run(lines: list[str], count: int, seed: int) -> Result:
    """Make mutations, each kind in turn, and check the log after each."""
    dice, result = random.Random(seed), Result()
    forger = Forger(dice)
    kinds = [name for name in dir(Forger) if name.startswith("do_")]
    for number in range(count):
        kind = kinds[number % len(kinds)]
        with transaction.atomic(using=settings.AUDIT_DATABASE), transaction.atomic():
            with logs.unguarded(forger.connection):
                expected = getattr(forger, kind)()
            report = check_log(checkpoints=lines)
            transaction.set_rollback(True, using=settings.AUDIT_DATABASE)
            transaction.set_rollback(True)
        name = kind.removeprefix("do_").replace("_", " ")
        result.done[name] += 1
        told = f"{name} (seed {seed}, number {number}): {expected}, told {[(p.event_id, p.what) for p in report.problems]}"
        if report.ok:
            result.missed.append(told)
        elif expected is not None and expected not in {problem.event_id for problem in report.problems}:
            result.misnamed.append(told)
    return result


class Forger:
    """Changes the log; each method returns the name of the row that must be named, None where any will do."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.connection = connections[settings.AUDIT_DATABASE]

    # Edits

    def do_edit_a_column(self) -> str:
        row, column = self.row(), self.dice.choice(COLUMNS)
        value: object = "forged" + str(self.dice.random())[:4]
        if column in NUMBERS:
            value = self.dice.randrange(1_000, 2**40)
        elif column == "time":
            value = f"20{self.dice.randrange(10, 25)}-03-04 05:06:07.000008+00"
        self.sql(f"UPDATE audit_event SET {column} = %s WHERE id = %s", value, row)
        return event_name(row)

    def do_empty_a_column(self) -> str:
        row, column = self.row(), self.dice.choice(["tenant", "actor", "tool", "outcome", "duration_us"])
        self.sql(f"UPDATE audit_event SET {column} = NULL WHERE id = %s", row)
        return event_name(row)

    def do_flip_a_bit_of_the_stored_bytes(self) -> str:
        row = self.row()
        body = bytearray(self.body(row))
        body[self.dice.randrange(len(body))] ^= 1 << self.dice.randrange(8)
        self.sql("UPDATE audit_event SET body = %s WHERE id = %s", bytes(body), row)
        return event_name(row)

    def do_rewrite_the_stored_bytes_and_the_columns_alike(self) -> str:
        row = self.row()
        found = {**json.loads(self.body(row)), "actor": "mallory"}
        body = json.dumps(found, separators=(",", ":")).encode()
        self.sql("UPDATE audit_event SET body = %s, actor = 'mallory' WHERE id = %s", body, row)
        return event_name(row)

    def do_rewrite_with_a_matching_digest(self) -> str:
        row = self.row()
        body = self.body(row).replace(b'"ann"', b'"bob"')
        (previous,) = self.one("SELECT previous FROM audit_chain WHERE id = %s", row)
        digest = link(row >> SEQ_BITS, row & SEQ_MASK, bytes(previous), body)
        self.sql("UPDATE audit_event SET body = %s, actor = 'bob' WHERE id = %s", body, row)
        self.sql("UPDATE audit_chain SET digest = %s WHERE id = %s", digest, row)
        return event_name(row + 1 if row & SEQ_MASK < ROWS else row)

    def do_edit_the_chain(self) -> str:
        row, column = self.row(), self.dice.choice(["digest", "previous", "form", "seq", "writer"])
        value = self.dice.randbytes(32) if column in ("digest", "previous") else self.dice.randrange(100, 30_000)
        self.sql(f"UPDATE audit_chain SET {column} = %s WHERE id = %s", value, row)
        return event_name(row)

    # Deletions

    def do_delete_an_event(self) -> str:
        row = self.row()
        self.sql("DELETE FROM audit_event WHERE id = %s", row)
        return event_name(row)

    def do_delete_a_chain_row(self) -> str:
        row = self.row()
        self.sql("DELETE FROM audit_chain WHERE id = %s", row)
        return event_name(row)

    def do_delete_both(self) -> str:
        row = self.row()
        self.delete(row, row)
        return event_name(row)

    def do_delete_a_stretch(self) -> str:
        row = self.row()
        self.delete(row, min(row + self.dice.randrange(1, 9), row & ~SEQ_MASK | ROWS))
        return event_name(row)

    def do_delete_a_whole_chain(self) -> str | None:
        writer = self.dice.randrange(WRITERS)
        self.delete(writer << SEQ_BITS, writer << SEQ_BITS | SEQ_MASK)
        self.sql("DELETE FROM audit_head WHERE writer = %s", writer)
        return f"{writer}-1"

    # Order

    def do_swap_two_events(self) -> str:
        one, other = self.pair()
        self.swap("audit_event", one, other)
        return event_name(one)

    def do_swap_two_rows(self) -> str:
        one, other = self.pair()
        for table in ("audit_event", "audit_chain"):
            self.swap(table, one, other)
        return event_name(one)

    def do_swap_events_between_chains(self) -> str:
        one = self.row(0)
        other = 1 << SEQ_BITS | (one & SEQ_MASK)
        self.swap("audit_event", one, other)
        return event_name(self.dice.choice([one, other]))

    def do_swap_rows_between_chains(self) -> str:
        one, other = self.row(0), self.row(1)
        for table in ("audit_event", "audit_chain"):
            self.swap(table, one, other)
        return event_name(one)

    def do_move_a_row_elsewhere(self) -> str:
        row = self.row()
        target = self.dice.randrange(2, 9) << SEQ_BITS | row & SEQ_MASK
        for table in ("audit_event", "audit_chain"):
            self.sql(f"UPDATE {table} SET id = %s WHERE id = %s", target, row)
        return event_name(row)

    # Insertions

    def do_insert_an_event_without_a_chain_row(self) -> str | None:
        row = self.dice.choice([5, 900, -3]) << SEQ_BITS | self.dice.randrange(1, 50) if self.dice.random() < 0.5 else ROWS + 1
        self.sql(
            "INSERT INTO audit_event (id, event_type, time, body) VALUES (%s, 'x', '2026-01-01 00:00:00+00', %s)", row, b"{}"
        )
        return None

    def do_append_a_row_and_leave_the_head(self) -> str:
        self.append_one(0, ROWS)
        return event_name(ROWS + 1)

    # Tails

    def do_cut_the_tail(self) -> str:
        row = self.row()
        self.delete(row, row | SEQ_MASK)
        return event_name(row)

    def do_cut_the_tail_with_its_head(self) -> str:
        row = self.row()
        self.delete(row, row | SEQ_MASK)
        self.set_head(row >> SEQ_BITS, (row & SEQ_MASK) - 1)
        return event_name(row)

    def do_cut_the_tail_with_its_head_and_our_checkpoints(self) -> str:
        named = self.do_cut_the_tail_with_its_head()
        AuditCheckpoint.objects.all().delete()
        return named

    def do_cut_the_tail_and_write_another(self) -> str | None:
        row = self.row()
        self.delete(row, row | SEQ_MASK)
        seq = (row & SEQ_MASK) - 1
        self.set_head(row >> SEQ_BITS, seq)
        for at in range(seq, ROWS + 3):
            self.append_one(row >> SEQ_BITS, at)
            self.set_head(row >> SEQ_BITS, at + 1)
        AuditCheckpoint.objects.all().delete()
        first_mark = next(mark for mark in (ROWS // 2, ROWS * 3 // 4, ROWS) if mark > seq)
        return event_name(row & ~SEQ_MASK | first_mark)

    def do_replay_an_old_copy(self) -> str:
        """The state of every table at one of the earlier checkpoints, as an old file or dump brings it."""
        number = self.dice.choice([1, 2])
        seq = {1: ROWS // 2, 2: ROWS * 3 // 4}[number]
        for writer in range(WRITERS):
            self.delete(writer << SEQ_BITS | seq + 1, writer << SEQ_BITS | SEQ_MASK)
            self.set_head(writer, seq)
        AuditCheckpoint.objects.filter(number__gt=number).delete()
        CheckpointState.objects.update(number=number)
        return event_name(self.dice.randrange(WRITERS) << SEQ_BITS | seq + 1)

    def do_empty_everything(self) -> str:
        for writer in range(WRITERS):
            self.delete(writer << SEQ_BITS, writer << SEQ_BITS | SEQ_MASK)
        self.sql("DELETE FROM audit_head")
        AuditCheckpoint.objects.all().delete()
        CheckpointState.objects.all().delete()
        return event_name(1)

    # Heads

    def do_move_the_head(self) -> str:
        writer, back = self.dice.randrange(WRITERS), self.dice.random() < 0.5
        seq = self.dice.randrange(1, ROWS) if back else ROWS + self.dice.randrange(1, 2**30)
        self.sql("UPDATE audit_head SET seq = %s WHERE writer = %s", seq, writer)
        return event_name(writer << SEQ_BITS | (seq + 1 if back else ROWS + 1))

    def do_change_the_heads_digest(self) -> str:
        writer = self.dice.randrange(WRITERS)
        self.sql("UPDATE audit_head SET digest = %s WHERE writer = %s", self.dice.randbytes(32), writer)
        return event_name(writer << SEQ_BITS | ROWS)

    def do_remove_the_head(self) -> str:
        writer = self.dice.randrange(WRITERS)
        self.sql("DELETE FROM audit_head WHERE writer = %s", writer)
        return event_name(writer << SEQ_BITS | ROWS)

    # The means

    def row(self, writer: int | None = None) -> int:
        """Any row."""
        return (self.dice.randrange(WRITERS) if writer is None else writer) << SEQ_BITS | self.dice.randrange(1, ROWS + 1)

    def pair(self) -> tuple[int, int]:
        """Two rows of one chain, in order."""
        base = self.dice.randrange(WRITERS) << SEQ_BITS
        one, other = sorted(self.dice.sample(range(1, ROWS + 1), 2))
        return base | one, base | other

    def sql(self, statement: str, *parameters: object) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)

    def one(self, statement: str, *parameters: object) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchone()

    def body(self, row: int) -> bytes:
        return bytes(self.one("SELECT body FROM audit_event WHERE id = %s", row)[0])

    def delete(self, first: int, last: int) -> None:
        for table in ("audit_event", "audit_chain"):
            self.sql(f"DELETE FROM {table} WHERE id BETWEEN %s AND %s", first, last)

    def swap(self, table: str, one: int, other: int) -> None:
        for before, after in ((one, -1), (other, one), (-1, other)):
            self.sql(f"UPDATE {table} SET id = %s WHERE id = %s", after, before)

    def digest(self, writer: int, seq: int) -> bytes:
        return (
            bytes(self.one("SELECT digest FROM audit_chain WHERE id = %s", writer << SEQ_BITS | seq)[0]) if seq else bytes(32)
        )

    def set_head(self, writer: int, seq: int) -> None:
        self.sql("UPDATE audit_head SET seq = %s, digest = %s WHERE writer = %s", seq, self.digest(writer, seq), writer)

    def append_one(self, writer: int, seq: int) -> None:
        """A row after `seq` that is linked as the sink would have linked it."""
        previous, body, row = (
            self.digest(writer, seq),
            b'{"event_type":"forged","time_us":1767225600000000}',
            writer << SEQ_BITS | seq + 1,
        )
        self.sql(
            "INSERT INTO audit_chain (id, writer, seq, previous, digest, form) VALUES (%s, %s, %s, %s, %s, 1)",
            row, writer, seq + 1, previous, link(writer, seq + 1, previous, body),
        )  # fmt: skip
        self.sql(
            "INSERT INTO audit_event (id, event_type, time, body) VALUES (%s, 'forged', '2026-01-01 00:00:00+00', %s)",
            row,
            body,
        )
