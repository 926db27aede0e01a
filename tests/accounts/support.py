"""Reads what the services left in the outbox."""

from apps.common.models import OutboxEvent


def audited(event_type=None):
    """Return the audit payloads written so far, oldest first."""
    rows = OutboxEvent.objects.filter(topic="audit").order_by("id")
    return [row.payload for row in rows if event_type in (None, row.payload["event_type"])]


def changes():
    """Return the (kind, id) pairs announced so far."""
    return [(row.payload["kind"], row.payload["id"]) for row in OutboxEvent.objects.filter(topic="changed").order_by("id")]


def everything():
    """Return all payloads as one text, to look for what must not be there."""
    return repr([row.payload for row in OutboxEvent.objects.all()])
