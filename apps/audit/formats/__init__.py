"""The forms in which the log can be taken away: CSV, JSON lines, OCSF. Pure: bytes of a row in, bytes of a line out."""

from collections.abc import Callable
from dataclasses import dataclass

from apps.audit.formats.csvtext import csv_head, csv_line
from apps.audit.formats.jsonlines import json_line
from apps.audit.formats.ocsf import ocsf_line

Line = Callable[[int, bytes], bytes]
"""Makes the line of a row from its id and stored bytes. Raises ValueError for bytes that are no record."""


@dataclass(frozen=True, slots=True)
class Format:
    """One form."""

    name: str
    title: str
    content_type: str
    extension: str
    line: Line
    head: bytes = b""


FORMATS = {
    one.name: one
    for one in (
        Format("csv", "CSV, for spreadsheets", "text/csv; charset=utf-8", "csv", csv_line, csv_head()),
        Format("jsonl", "JSON lines, every field as stored", "application/x-ndjson", "jsonl", json_line),
        Format("ocsf", "OCSF 1.5 as JSON lines, for a SIEM", "application/x-ndjson", "ocsf.jsonl", ocsf_line),
    )
}

__all__ = ("FORMATS", "Format")
