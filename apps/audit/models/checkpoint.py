"""Checkpoints as they were signed, and how far each place has got them. They stand in `default`, away from the log's write lock."""

from django.db import models


class AuditCheckpoint(models.Model):
    """One signed checkpoint; kept for 30 days, and longer while a place has not got it."""

    number = models.BigIntegerField(primary_key=True)
    time = models.DateTimeField(db_index=True)
    key = models.CharField(max_length=16)
    line = models.TextField()
    """The document, byte for byte as it was signed (ASCII)."""

    class Meta:
        db_table = "audit_checkpoint"

    def __str__(self) -> str:
        return f"checkpoint {self.number}"


class CheckpointState(models.Model):
    """The end of the row of checkpoints: one row, moved on the condition that nobody moved it before."""

    id = models.SmallIntegerField(primary_key=True)
    installation = models.CharField(max_length=36)
    """Names this log in its checkpoints; made with the first one."""
    number = models.BigIntegerField(default=0)
    digest = models.CharField(max_length=64)
    made_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "audit_checkpoint_state"

    def __str__(self) -> str:
        return f"checkpoint {self.number}"


class CheckpointTarget(models.Model):
    """How far one place has got the checkpoints, and who delivers to it now."""

    name = models.CharField(max_length=300, primary_key=True)
    delivered = models.BigIntegerField(default=0)
    """The number of the last checkpoint that it took."""
    delivered_at = models.DateTimeField(null=True)
    failures = models.IntegerField(default=0)
    """Tries in a row that failed."""
    failing_since = models.DateTimeField(null=True)
    error = models.CharField(max_length=300, blank=True)
    next_try = models.DateTimeField(null=True)
    holder = models.CharField(max_length=36, blank=True)
    """The process that delivers, until `held_until`."""
    held_until = models.DateTimeField(null=True)

    class Meta:
        db_table = "audit_checkpoint_target"

    def __str__(self) -> str:
        return self.name
