"""Recordings of messages, switched on by an operator for a time."""

from datetime import datetime

from django.db import models

from apps.common.clock import now
from apps.common.models import TenantModel


class Recording(TenantModel):
    """What passes of one server, toolset, key or session, from now until a time; ends by itself, and is deleted a day later."""

    class Kind(models.TextChoices):
        """Whose messages."""

        SERVER = "server", "Server"
        TOOLSET = "toolset", "Toolset"
        API_KEY = "api_key", "API key"
        SESSION = "session", "Session"

    kind = models.CharField(max_length=8, choices=Kind)
    object_id = models.CharField(max_length=64)
    label = models.CharField(max_length=200)
    """What it was called when the recording began."""
    started_by = models.CharField(max_length=200)
    until = models.DateTimeField()
    stopped_at = models.DateTimeField(null=True)
    stopped_by = models.CharField(max_length=200, blank=True)
    messages = models.PositiveIntegerField(default=0)
    bytes = models.PositiveBigIntegerField(default=0)
    """Characters of all that is kept."""
    dropped = models.PositiveBigIntegerField(default=0)
    """Messages that there was no room for."""

    class Meta(TenantModel.Meta):
        ordering = ("-created_at",)
        indexes = (models.Index(fields=("until",), name="recording_until"),)

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.label}"

    @property
    def on(self) -> bool:
        """Tell whether it records."""
        return self.stopped_at is None and self.until > now()

    @property
    def ended_at(self) -> datetime | None:
        """Return when it ended; None while it records."""
        return None if self.on else self.stopped_at or self.until


class RecordedMessage(models.Model):
    """One message of a recording: redacted, and cut at 8 kB."""

    recording = models.ForeignKey(Recording, on_delete=models.CASCADE, related_name="+")
    at = models.DateTimeField()
    side = models.CharField(max_length=6)
    """`client` or `server`: which side of the gateway it passed on."""
    direction = models.CharField(max_length=3)
    """`in`: to the gateway; `out`: from it."""
    kind = models.CharField(max_length=12)
    """`request`, `notification`, `result` or `error`."""
    method = models.CharField(max_length=60, blank=True)
    """Of an answer that of its request."""
    rpc_id = models.CharField(max_length=80, blank=True)
    call_id = models.CharField(max_length=36, blank=True)
    server = models.CharField(max_length=40, blank=True)
    client = models.CharField(max_length=120, blank=True)
    revision = models.CharField(max_length=12, blank=True)
    size = models.PositiveBigIntegerField()
    text = models.TextField()
    cut = models.BooleanField(default=False)

    class Meta:
        ordering = ("at", "id")
        indexes = (
            models.Index(fields=("recording", "at", "id"), name="recorded_message_time"),
            models.Index(fields=("recording", "call_id"), name="recorded_message_call"),
        )

    def __str__(self) -> str:
        return f"{self.at:%H:%M:%S.%f} {self.side} {self.direction} {self.method}"
