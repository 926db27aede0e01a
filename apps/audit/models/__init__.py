"""The append-only log: chain, events, heads, and the roll-ups made from them."""

from apps.audit.models.event import AuditChain, AuditEvent, AuditHead, AuditRelay
from apps.audit.models.rollup import CallRollup, RollupCursor

__all__ = ("AuditChain", "AuditEvent", "AuditHead", "AuditRelay", "CallRollup", "RollupCursor")
