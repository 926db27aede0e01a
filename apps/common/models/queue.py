"""The queue of the embedded default: Celery messages as rows."""

from django.db import models


class QueueMessage(models.Model):
    """A message on its way to a worker; leased while a worker has it, deleted when it is acknowledged."""

    id = models.BigAutoField(primary_key=True)
    queue = models.CharField(max_length=120)
    body = models.TextField()
    leased_until = models.DateTimeField(null=True)
    lease_owner = models.CharField(max_length=64, blank=True)
    deliveries = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = (models.Index(fields=("queue", "leased_until", "id"), name="queue_next"),)

    def __str__(self) -> str:
        return f"{self.queue} {self.id}"
