"""Models that every app shares."""

from apps.common.models.base import BaseModel, TenantManager, TenantModel, TenantQuerySet
from apps.common.models.idempotency import IdempotencyKey
from apps.common.models.outbox import OutboxEvent
from apps.common.models.queue import QueueMessage

__all__ = ("BaseModel", "IdempotencyKey", "OutboxEvent", "QueueMessage", "TenantManager", "TenantModel", "TenantQuerySet")
