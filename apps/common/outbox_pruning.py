"""Takes old rows out of the outbox, never one that a durable reader has still to read."""

from collections.abc import Callable
from datetime import datetime

from django.db.models import Max

from apps.common.models import OutboxEvent

_BATCH = 5000
"""Rows per transaction, so that none keeps the write lock for long."""
_readers: list[Callable[[], int]] = []


def register_outbox_reader(position: Callable[[], int]) -> None:
    """Tell how far a durable reader has come (the id of the last row it is done with); the audit relay does, at start-up."""
    _readers.append(position)


def prune_outbox(older_than: datetime, *, up_to: int | None = None) -> int:
    """Delete rows made before `older_than` with ids up to `up_to` (default: what every durable reader is done with).

    The newest row stays, whatever its age: followers know by the row at their cursor that they have missed nothing.
    Returns how many rows were deleted.
    """
    newest = OutboxEvent.objects.aggregate(newest=Max("id"))["newest"] or 0
    last = min([newest - 1, *([up_to] if up_to is not None else [position() for position in _readers])])
    pruned = 0
    while True:
        ids = list(
            OutboxEvent.objects.filter(id__lte=last, created_at__lt=older_than)
            .order_by("id")
            .values_list("id", flat=True)[:_BATCH]
        )
        if not ids:
            return pruned
        pruned += OutboxEvent.objects.filter(id__lte=ids[-1], created_at__lt=older_than).delete()[0]
