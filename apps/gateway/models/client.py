"""Clients of the gateway, as they name themselves."""

from django.db import models

from apps.common.models import TenantModel


class ClientSeen(TenantModel):
    """A client program that spoke to the gateway: with one key, at one address of it, in one revision.

    Name, version and declared capabilities are the client's own words; nobody vouches for them.
    """

    api_key = models.ForeignKey("accounts.APIKey", on_delete=models.CASCADE, related_name="+")
    toolset = models.CharField(max_length=40, blank=True)
    """Slug of where it speaks; empty = every server."""
    door = models.CharField(max_length=4, default="/mcp")
    """`/mcp`, or `/sse` where it comes over HTTP+SSE."""
    name = models.CharField(max_length=120, blank=True)
    version = models.CharField(max_length=60, blank=True)
    revision = models.CharField(max_length=12)
    declared = models.JSONField(default=list)
    """Short names of what it declares (see `compat.declared`)."""
    streams = models.BooleanField(default=True)
    """It takes event streams."""
    address = models.CharField(max_length=64, blank=True)
    """Where it last came from."""
    session = models.CharField(max_length=64, blank=True)
    """Its last session, as the audit log names it; empty where it has none."""
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    calls = models.PositiveBigIntegerField(default=0)

    class Meta(TenantModel.Meta):
        ordering = ("-last_seen_at",)
        verbose_name = "client"
        verbose_name_plural = "clients seen"
        constraints = (
            models.UniqueConstraint(
                fields=("api_key", "door", "toolset", "name", "version", "revision"), name="client_seen_once"
            ),
        )
        indexes = (
            models.Index(fields=("tenant", "last_seen_at"), name="client_seen_tenant"),
            models.Index(fields=("tenant", "toolset"), name="client_seen_toolset"),
        )

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip() or "a client without a name"

    @property
    def path(self) -> str:
        """Return the address at which it speaks."""
        return f"{self.door}/{self.toolset}" if self.toolset else self.door
