"""What a request left behind: rows and notices, without what must differ between two that did the same."""

import json
import re
from typing import Any

from django.apps import apps
from django.db import connections, models, transaction

from apps.common.models import OutboxEvent, QueueMessage

OURS = ("accounts", "servers", "tools")
OWN_TO_EACH = {"created_at", "updated_at", "digest", "prefix", "sealed", "last_login", "password"}
"""Columns that are never the same twice."""
MEASURED = {"duration_ms", "prefix"}
"""Members of events and of stored JSON that differ by time or by chance."""
OF_THE_DOOR = {"origin", "request_id", "at", "address"}
"""Members of an event that tell of the door it came through."""
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_KEY = re.compile(r"sy_[a-z0-9]{8}_")


class Undone:
    """Undoes what a block wrote, in every database."""

    def __enter__(self) -> None:
        self._points = [(alias, transaction.savepoint(using=alias)) for alias in connections]

    def __exit__(self, *_: object) -> None:
        for alias, point in self._points:
            transaction.savepoint_rollback(point, using=alias)


def _value(row: models.Model, field: Any) -> Any:
    value = getattr(row, field.attname)
    if isinstance(field, models.DateTimeField):
        return value is not None
    return value.hex() if isinstance(value, bytes | memoryview) else _unmeasured(value)


def _unmeasured(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unmeasured(item) for name, item in value.items() if name not in MEASURED}
    return [_unmeasured(item) for item in value] if isinstance(value, list) else value


def _rows() -> list[Any]:
    found = []
    for model in apps.get_models():
        if model._meta.app_label in OURS:
            fields = [field for field in model._meta.concrete_fields if field.name not in OWN_TO_EACH]
            found += [
                {"model": model._meta.label} | {field.name: _value(row, field) for field in fields}
                for row in model._base_manager.order_by("pk")
            ]
    return found


def _notices() -> list[Any]:
    found = []
    for row in OutboxEvent.objects.order_by("id"):
        payload = {name: _unmeasured(value) for name, value in row.payload.items() if name not in OF_THE_DOOR}
        found.append({"topic": row.topic, "tenant": row.tenant_id, **payload})
    return found


class Left:
    """What a block changed, with each new id replaced by its number in the order of appearance."""

    def __enter__(self) -> "Left":
        self._known = set(_ID.findall(json.dumps([_rows(), _notices()], default=str)))
        self._before = [json.dumps(row, sort_keys=True, default=str) for row in _rows()]
        self._notices = len(_notices())
        self._messages = QueueMessage.objects.count()
        return self

    def __exit__(self, *_: object) -> None:
        after = [json.dumps(row, sort_keys=True, default=str) for row in _rows()]
        gone = [row for row in self._before if row not in set(after)]
        new = [row for row in after if row not in set(self._before)]
        notices = _notices()[self._notices :]
        numbers: dict[str, str] = {}

        def number(match: re.Match[str]) -> str:
            one = match.group()
            return one if one in self._known else numbers.setdefault(one, f"NEW-{len(numbers) + 1}")

        plain = _KEY.sub("sy_KEY_", _ID.sub(number, json.dumps([notices, gone, new], sort_keys=True, default=str)))
        self.notices, self.gone, self.new = json.loads(plain)
        self.messages = QueueMessage.objects.count() - self._messages

    @property
    def events(self) -> list[str]:
        """The types of the control events, in order."""
        return [notice["event_type"] for notice in self.notices if notice["topic"] == "audit"]

    @property
    def all(self) -> dict[str, Any]:
        """Everything, to be compared."""
        return {"notices": self.notices, "gone": self.gone, "new": self.new, "messages": self.messages}
