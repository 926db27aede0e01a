"""What the tests of writes share."""

from typing import Any

from apps.common.models import OutboxEvent


class Recorded:
    """Audit events since the start of a block."""

    def __enter__(self) -> "Recorded":
        self._from = OutboxEvent.objects.order_by("-id").values_list("id", flat=True).first() or 0
        return self

    def __exit__(self, *_: Any) -> None:
        rows = OutboxEvent.objects.filter(topic="audit", id__gt=self._from).order_by("id")
        self.events = [row.payload for row in rows]

    @property
    def types(self) -> list[str]:
        return [event["event_type"] for event in self.events]


def server_form(**fields: Any) -> dict[str, Any]:
    form = {
        "slug": "billing", "name": "", "description": "", "transport": "http", "url": "https://billing.example.com/mcp", "command": "", "args": "",
        "cwd": "", "review": "hold-changed", "timeout_seconds": "60", "max_concurrency": "256", "idle_seconds": "600",
    }  # fmt: skip
    return {**form, **fields}
