"""Rows of the log. Written by the sink with SQL of its own, never by the ORM; read by selectors.

A row's id is its chain position: `writer << 40 | seq`. Its digest is SHA-256 over form, writer, seq, the previous digest and the
stored canonical bytes, so that an edit, a deletion, a reorder and (with the head) a cut tail are found.
"""

from typing import Any

from django.db import models


class ChainPosition(models.BigIntegerField):  # type: ignore[type-arg]  # not subscriptable at run time
    """A 64-bit primary key. On SQLite it is the table's own row id, so that an append costs no second tree."""

    def db_type(self, connection: Any) -> str | None:
        """Return the column's type; only `integer` makes SQLite use the row id."""
        return "integer" if connection.vendor == "sqlite" else super().db_type(connection)


class AuditChain(models.Model):
    """The chain, kept for good, also when the payload of a row has reached the end of its retention."""

    id = ChainPosition(primary_key=True)
    writer = models.IntegerField()
    seq = models.BigIntegerField()
    previous = models.BinaryField(max_length=32)
    digest = models.BinaryField(max_length=32)
    form = models.SmallIntegerField()
    """Version of the canonical form; 1 = msgspec JSON of `AuditRecord`, defaults left out."""

    class Meta:
        db_table = "audit_chain"

    def __str__(self) -> str:
        return f"{self.writer}-{self.seq}"


class AuditEvent(models.Model):
    """One event: the canonical bytes and, beside them, the columns that searches use."""

    id = ChainPosition(primary_key=True)
    event_type = models.CharField(max_length=40)
    time = models.DateTimeField()
    tenant = models.CharField(max_length=36, null=True)
    actor_kind = models.CharField(max_length=12, null=True)
    actor_id = models.CharField(max_length=40, null=True)
    actor = models.CharField(max_length=200, null=True)
    origin = models.CharField(max_length=12, null=True)
    agent = models.CharField(max_length=200, null=True)
    """The client program, as it names itself (unverified)."""
    task = models.CharField(max_length=64, null=True)
    request_id = models.CharField(max_length=64, null=True)
    session = models.CharField(max_length=64, null=True)
    trace = models.CharField(max_length=32, null=True)
    call_id = models.CharField(max_length=36, null=True)
    """Shared by the intent, the attempts and the outcome of one call."""
    action = models.CharField(max_length=40, null=True)
    object_kind = models.CharField(max_length=24, null=True)
    object_id = models.CharField(max_length=40, null=True)
    object = models.CharField(max_length=300, null=True)
    server = models.CharField(max_length=40, null=True)
    tool = models.CharField(max_length=200, null=True)
    model = models.CharField(max_length=120, null=True)
    revision = models.CharField(max_length=12, null=True)
    outcome = models.CharField(max_length=12, null=True)
    error_type = models.CharField(max_length=60, null=True)
    duration_us = models.BigIntegerField(null=True)
    request_bytes = models.BigIntegerField(null=True)
    response_bytes = models.BigIntegerField(null=True)
    tokens_in = models.BigIntegerField(null=True)
    tokens_out = models.BigIntegerField(null=True)
    cost_micros = models.BigIntegerField(null=True)
    body = models.BinaryField()

    class Meta:
        db_table = "audit_event"
        ordering = ("-time", "-id")
        indexes = (
            models.Index(fields=("time",), name="audit_time"),
            models.Index(fields=("tenant", "time"), name="audit_tenant_time"),
            models.Index(fields=("call_id",), name="audit_call", condition=models.Q(call_id__isnull=False)),
            # what was done to an object; calls are found by tool and time, and an entry for each would cost them dearly
            models.Index(
                fields=("object_kind", "object_id", "time"),
                name="audit_object",
                condition=models.Q(object_id__isnull=False, call_id__isnull=True),
            ),
        )

    def __str__(self) -> str:
        return f"{self.event_id} {self.event_type}"

    @property
    def event_id(self) -> str:
        """Return `<writer>-<seq>`, the event's name everywhere outside the database."""
        return f"{self.id >> 40}-{self.id & 0xFF_FFFF_FFFF}"


class AuditHead(models.Model):
    """The end of one writer's chain, updated in the transaction that appends to it."""

    writer = models.IntegerField(primary_key=True)
    seq = models.BigIntegerField(default=0)
    digest = models.BinaryField(max_length=32)
    open_from = models.BigIntegerField(default=1)
    """No intent before this seq is open; after a crash the sweep starts here."""

    class Meta:
        db_table = "audit_head"

    def __str__(self) -> str:
        return f"writer {self.writer} at {self.seq}"


class AuditRelay(models.Model):
    """How far the outbox has been chained; moved in the transaction that appends the events."""

    id = models.SmallIntegerField(primary_key=True)
    outbox_id = models.BigIntegerField(default=0)

    class Meta:
        db_table = "audit_relay"

    def __str__(self) -> str:
        return f"outbox {self.outbox_id}"
