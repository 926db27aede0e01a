"""The routes of the audit log under `/api/v1/`."""

from apps.audit.api.checkpoints import AuditCheckpointsViewSet
from apps.audit.api.events import AuditEventsViewSet
from apps.audit.api.retention import AuditRetentionViewSet
from apps.common.api.routers import ApiRouter


def register(router: ApiRouter) -> None:
    """Add the routes."""
    router.register("audit-events", AuditEventsViewSet, "audit-event")
    router.register("audit-checkpoints", AuditCheckpointsViewSet, "audit-checkpoint")
    router.register("audit-retention", AuditRetentionViewSet, "audit-retention")
