"""Reading the stored rows in bulk, past the ORM: the chain and the events in two scans of the same ranges of ids."""

from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.db import connections

from apps.audit.services.columns import COLUMNS

ROWS = 2_000
"""Rows of one chunk; at most 147 MB where every row is as long as it can be, 1.4 MB as rows usually are."""
_CHAIN = "SELECT id, writer, seq, form, previous, digest FROM audit_chain WHERE id > %s AND id <= %s ORDER BY id"
_EVENTS = "SELECT id, body{columns} FROM audit_event WHERE id > %s AND id <= %s ORDER BY id"

Chunk = tuple[int, list[tuple[Any, ...]], list[tuple[Any, ...]]]
"""The last id that it covers, the rows of the chain, the events (id, body, and columns where they were asked for)."""


def chunks(first: int, last: int, *, columns: bool) -> Iterator[Chunk]:
    """Give the rows with ids from `first` to `last`, in order."""
    events = _EVENTS.format(columns="".join(f", {name}" for name in COLUMNS) if columns else "")
    before = first - 1
    while before < last:
        after = min(before + ROWS, last)
        yield after, rows(_CHAIN, (before, after)), rows(events, (before, after))
        before = after


def rows(statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return the rows of a query in the form that costs least: binary on PostgreSQL."""
    connection = connections[settings.AUDIT_DATABASE]
    if connection.vendor != "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found
    from psycopg import Cursor

    connection.ensure_connection()
    # Django's own cursors put values into the text of a query, and get text back
    with connection.wrap_database_errors, Cursor(connection.connection) as raw:
        raw.execute(statement, parameters, binary=True)
        return raw.fetchall()
