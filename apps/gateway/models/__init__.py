"""What the gateway keeps of its own: the clients it has seen, limits, and recordings of messages."""

from apps.gateway.models.client import ClientSeen
from apps.gateway.models.limit import Limit, LimitUse
from apps.gateway.models.recording import RecordedMessage, Recording

__all__ = ("ClientSeen", "Limit", "LimitUse", "RecordedMessage", "Recording")
