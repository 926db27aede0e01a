"""Where a server is reached, and the processes that run for stdio endpoints."""

from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from apps.common.models import TenantModel
from apps.servers import rules
from apps.servers.models.server import Server


class Endpoint(TenantModel):
    """One place at which a server answers: a URL, or a command to start."""

    class State(models.TextChoices):
        """The one set of states (see the console)."""

        HEALTHY = "healthy", "Healthy"
        DEGRADED = "degraded", "Degraded"
        UNHEALTHY = "unhealthy", "Unhealthy"
        UNAUTHENTICATED = "unauthenticated", "Unauthenticated"
        PAUSED = "paused", "Paused"
        UNKNOWN = "unknown", "Unknown"

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="endpoints")
    url = models.CharField(max_length=2000, blank=True)
    command = models.CharField(max_length=500, blank=True)
    args = models.JSONField(default=list, blank=True)
    cwd = models.CharField(max_length=500, blank=True)
    from_file = models.BooleanField(default=False, editable=False)
    """The command came from a file on this machine (matters with SWITCHYARD_STDIO=files)."""
    state = models.CharField(max_length=16, choices=State, default=State.UNKNOWN, editable=False)
    state_since = models.DateTimeField(null=True, editable=False)
    state_reason = models.CharField(max_length=500, blank=True, editable=False)
    era = models.CharField(max_length=8, blank=True, editable=False)
    """`modern`, `legacy`, `dual` or empty (not found out yet)."""
    last_seen_at = models.DateTimeField(null=True, editable=False)

    class Meta(TenantModel.Meta):
        ordering = ("created_at",)
        constraints = (
            models.CheckConstraint(
                condition=(Q(url="") & ~Q(command="")) | (~Q(url="") & Q(command="")),
                name="endpoint_url_or_command",
                violation_error_message="An endpoint has a URL or a command, one of them.",
            ),
        )

    def __str__(self) -> str:
        return self.url or " ".join([self.command, *rules.hide_secrets(map(str, self.args))])

    def clean(self) -> None:
        """Check the address, or the command with its arguments; raises ValidationError by field."""
        problems: dict[str, list[str]] = {}

        def check(field: str, rule: Callable[[Any], None]) -> None:
            try:
                rule(getattr(self, field))
            except ValueError as error:
                problems[field] = [str(error)]

        if self.url:
            check("url", rules.check_url)
            if self.args or self.cwd:
                problems["args"] = ["Arguments and a working directory belong to a command, not to a URL."]
        if self.command:
            check("command", rules.check_command)
            check("args", rules.check_args)
            if self.cwd:
                check("cwd", rules.check_cwd)
        if problems:
            raise ValidationError(problems)


class UpstreamProcess(models.Model):
    """A process that some data plane started for a stdio endpoint; written by that data plane, never by hand."""

    id = models.UUIDField(primary_key=True)
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="processes")
    worker = models.CharField(max_length=120, db_index=True)
    """`<host>:<pid of the data plane>`."""
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    in_flight = models.PositiveIntegerField(default=0)
    calls = models.PositiveBigIntegerField(default=0)
    restarts = models.PositiveIntegerField(default=0)
    memory_bytes = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ("-started_at",)

    def __str__(self) -> str:
        return f"{self.worker} pid {self.pid}"
