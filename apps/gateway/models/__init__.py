"""What the gateway keeps of its own: the clients it has seen, and recordings of messages."""

from apps.gateway.models.client import ClientSeen
from apps.gateway.models.recording import RecordedMessage, Recording

__all__ = ("ClientSeen", "RecordedMessage", "Recording")
