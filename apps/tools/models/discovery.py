"""Who discovers a server now, and what came of the last time."""

from django.db import models

from apps.common.models import TenantModel


class Discovery(TenantModel):
    """One row for a server: the claim of the discovery that runs, and the result of the last one that ended."""

    server = models.OneToOneField("servers.Server", on_delete=models.CASCADE, related_name="discovery")
    token = models.CharField(max_length=32, blank=True, editable=False)
    """Of the discovery that runs; what it found is written only while the token still stands here."""
    holder = models.CharField(max_length=80, blank=True, editable=False)
    """The process that discovers: host, process id and when it began (see `common.queue.store.owner`)."""
    lease_until = models.DateTimeField(null=True, editable=False)
    """Renewed while it runs; after this time it is taken for dead and another may start."""
    again = models.BooleanField(default=False, editable=False)
    """Somebody asked while it ran, so it is repeated."""
    started_at = models.DateTimeField(null=True, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)
    failures = models.PositiveIntegerField(default=0, editable=False)
    """Discoveries that failed, one after the other, up to now."""
    next_at = models.DateTimeField(null=True, editable=False, db_index=True)
    """Not before this time does the clock have it done again (see `services.again`)."""
    summary = models.JSONField(default=dict, editable=False)
    """Counts of the last discovery (see `services.discovery.DiscoverySummary`)."""
    refused = models.JSONField(default=list, editable=False)
    """What the last discovery could not take: objects with `kind`, `name`, `reason`; the first 200."""

    class Meta(TenantModel.Meta):
        verbose_name_plural = "discoveries"

    def __str__(self) -> str:
        return f"discovery of {self.server}"
