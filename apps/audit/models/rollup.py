"""Roll-ups: figures made from the log alone; they can be thrown away and rebuilt."""

from django.db import models


class CallRollup(models.Model):
    """Finished calls of one minute, hour or day, per tenant, server, tool and actor. All members add up."""

    bucket = models.DateTimeField()
    span = models.CharField(max_length=6)
    """`minute`, `hour` or `day`."""
    tenant = models.CharField(max_length=36, blank=True)
    server = models.CharField(max_length=40, blank=True)
    tool = models.CharField(max_length=200, blank=True)
    actor_id = models.CharField(max_length=40, blank=True)
    calls = models.BigIntegerField(default=0)
    """Every call that ended, however it did."""
    errors = models.BigIntegerField(default=0)
    """Outcomes `error` and `failed`."""
    refused = models.BigIntegerField(default=0)
    cancelled = models.BigIntegerField(default=0)
    unknown = models.BigIntegerField(default=0)
    timed = models.BigIntegerField(default=0)
    """Calls with a duration; what `duration_us` and the classes count."""
    duration_us = models.BigIntegerField(default=0)
    duration_max_us = models.BigIntegerField(default=0)
    request_bytes = models.BigIntegerField(default=0)
    response_bytes = models.BigIntegerField(default=0)
    # Calls per class of duration; the classes' upper bounds stand in `audit.domain`. Columns, so that SQL adds them up.
    class_00 = models.BigIntegerField(default=0)
    class_01 = models.BigIntegerField(default=0)
    class_02 = models.BigIntegerField(default=0)
    class_03 = models.BigIntegerField(default=0)
    class_04 = models.BigIntegerField(default=0)
    class_05 = models.BigIntegerField(default=0)
    class_06 = models.BigIntegerField(default=0)
    class_07 = models.BigIntegerField(default=0)
    class_08 = models.BigIntegerField(default=0)
    class_09 = models.BigIntegerField(default=0)
    class_10 = models.BigIntegerField(default=0)
    class_11 = models.BigIntegerField(default=0)
    class_12 = models.BigIntegerField(default=0)
    class_13 = models.BigIntegerField(default=0)
    class_14 = models.BigIntegerField(default=0)
    class_15 = models.BigIntegerField(default=0)

    class Meta:
        db_table = "audit_call_rollup"
        constraints = (
            models.UniqueConstraint(fields=("span", "bucket", "tenant", "server", "tool", "actor_id"), name="call_rollup_once"),
        )
        indexes = (models.Index(fields=("tenant", "span", "bucket"), name="call_rollup_tenant"),)

    def __str__(self) -> str:
        return f"{self.span} {self.bucket} {self.server} {self.tool}"


class RollupCursor(models.Model):
    """How far each writer's chain has been rolled up."""

    writer = models.IntegerField(primary_key=True)
    seq = models.BigIntegerField(default=0)

    class Meta:
        db_table = "audit_rollup_cursor"

    def __str__(self) -> str:
        return f"writer {self.writer} at {self.seq}"
