"""Whether the columns beside a row's stored bytes say what the bytes say."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import astuple

from apps.audit.sink.record import FIELDS, decode

COLUMNS = ("event_type", "time", *FIELDS[2:29])
"""Columns in the order in which `difference` takes them."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def difference(columns: Sequence[Any], body: bytes) -> str | None:
    """Return the name of the first column that differs from the bytes, or None."""
    try:
        values = astuple(decode(body))
    except ValueError:
        return "body"
    if columns[0] == values[0] and tuple(columns[2:]) == values[2:29] and _same_time(columns[1], values[1]):
        return None
    for name, column, value in zip(COLUMNS, columns, values[:29], strict=True):
        if name == "time":
            if not _same_time(column, value):
                return name
        elif column != value:
            return name
    return None


def _same_time(column: Any, time_us: int) -> bool:
    if not isinstance(column, datetime):
        return False
    if column.tzinfo is None:
        column = column.replace(tzinfo=UTC)
    return bool(column - _EPOCH == timedelta(microseconds=time_us))
