"""The append-only log: chain, events, heads, and the roll-ups made from them."""

from apps.audit.models.checkpoint import AuditCheckpoint, CheckpointState, CheckpointTarget
from apps.audit.models.event import AuditChain, AuditEvent, AuditHead, AuditRelay
from apps.audit.models.retention import AuditGone, AuditRemoval, AuditRetention
from apps.audit.models.rollup import CallRollup, RollupCursor

__all__ = (
    "AuditChain",
    "AuditCheckpoint",
    "AuditEvent",
    "AuditGone",
    "AuditHead",
    "AuditRelay",
    "AuditRemoval",
    "AuditRetention",
    "CallRollup",
    "CheckpointState",
    "CheckpointTarget",
    "RollupCursor",
)
