"""How long payloads stay, and which have gone."""

from django.db import models

from apps.audit.models.event import ChainPosition


class AuditRetention(models.Model):
    """Days for which the payloads of a family of events stay; without a rule they stay for good."""

    family = models.CharField(max_length=16)
    tenant = models.CharField(max_length=36, blank=True)
    """Id; empty = every tenant without a rule of its own, and what stands above tenants."""
    days = models.PositiveIntegerField()

    class Meta:
        db_table = "audit_retention"
        constraints = (models.UniqueConstraint(fields=("family", "tenant"), name="audit_retention_once"),)

    def __str__(self) -> str:
        return f"{self.family}: {self.days} days"


class AuditGone(models.Model):
    """Ids whose payloads may be deleted, because an event of the log announced it; the guards let only those go."""

    first = ChainPosition(primary_key=True)
    last = models.BigIntegerField()
    event = models.BigIntegerField()
    """The announcement's id."""

    class Meta:
        db_table = "audit_gone"

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"


class AuditRemoval(models.Model):
    """An announcement that was carried out."""

    event = models.BigIntegerField(primary_key=True)
    rows = models.BigIntegerField()
    done_at = models.DateTimeField()

    class Meta:
        db_table = "audit_removal"

    def __str__(self) -> str:
        return f"removal {self.event}"
