"""CSV (RFC 4180) whose cells no spreadsheet takes for a formula."""

import csv
import io
from typing import Any

import orjson
from msgspec.structs import astuple

from apps.audit.domain import event_name
from apps.audit.formats.moments import rfc3339
from apps.audit.sink.record import FIELDS, decode

COLUMNS = ("event_id", "time", "event_type", *FIELDS[2:])
_FORMULA = frozenset("=+-@\t\r\n|%\uff1d\uff0b\uff0d\uff20")
"""First characters of a text that some spreadsheet acts upon; the last four are the wide forms."""


def csv_head() -> bytes:
    """Return the line of the columns' names."""
    return _written(COLUMNS)


def csv_line(identity: int, body: bytes) -> bytes:
    """Return a row. Raises ValueError."""
    record = decode(body)
    values: tuple[Any, ...] = astuple(record)
    cells: list[Any] = [event_name(identity), rfc3339(record.time_us).decode(), harmless(record.event_type)]
    cells += [harmless(value) if value.__class__ is str else value for value in values[2:29]]
    cells.append(orjson.dumps(record.details).decode() if record.details is not None else None)
    return _written(cells)


def harmless(text: str) -> str:
    """Return the text with an apostrophe before it when a spreadsheet could read it as a formula, else as it is."""
    return "'" + text if text and text[0] in _FORMULA else text


class _Sink(io.StringIO):
    """What the csv module writes into; emptied after each line."""

    def taken(self) -> str:
        """Return what was written and forget it."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


def _written(cells: Any) -> bytes:
    sink = _Sink()
    csv.writer(sink).writerow(cells)
    return sink.taken().encode("utf-8", "replace")
