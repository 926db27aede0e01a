"""The outbox: what happened, in the order in which it was committed."""

from django.db import models


class OutboxEvent(models.Model):
    """One notice, written in the transaction of the change it tells of; ids are in commit order."""

    id = models.BigAutoField(primary_key=True)
    topic = models.CharField(max_length=32)
    tenant_id = models.UUIDField(null=True)
    payload = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.topic} {self.id}"
