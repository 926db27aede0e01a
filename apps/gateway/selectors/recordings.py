"""Recordings and what they hold, for pages and the API."""

from collections.abc import Iterator
from typing import Any, cast
from uuid import UUID

import orjson
from django.db.models import Q, QuerySet

from apps.common.errors import NotFound
from apps.gateway.models import ClientSeen, RecordedMessage, Recording

LINE = ("side", "direction", "kind", "method", "rpc_id", "call_id", "server", "client", "revision", "size", "cut")
"""Members of a line beside `at` and `message`."""
_CHUNK = 500


def recordings() -> QuerySet[Recording]:
    """Return the recordings in view, the newest first."""
    return cast("QuerySet[Recording]", Recording.objects.select_related("tenant").order_by("-created_at", "-id"))


def get_recording(ref: object) -> Recording:
    """Return one recording in view by id. Raises NotFound."""
    try:
        found = recordings().filter(pk=UUID(str(ref))).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound("There is no such recording.")
    return found


def session_seen(session: str) -> ClientSeen:
    """Return the client in view whose last session this was, by the session's name in the log. Raises NotFound."""
    found = ClientSeen.objects.filter(session=session[:64]).order_by("-last_seen_at").first() if session else None
    if found is None:
        raise NotFound("No client in view has this as its last session; its name stands on the page of the client.")
    return cast("ClientSeen", found)


def messages_of(
    recording: Recording, *, side: str = "", method: str = "", call_id: str = "", kind: str = "", text: str = ""
) -> QuerySet[Any]:
    """Return what a recording holds, in the order in which it passed; each filter narrows. The caller has noted the look."""
    rows: QuerySet[Any] = RecordedMessage.objects.filter(recording=recording).order_by("at", "id")
    if side:
        rows = rows.filter(side=side)
    if method:
        rows = rows.filter(method=method)
    if call_id:
        rows = rows.filter(call_id=call_id)
    if kind:
        rows = rows.filter(kind=kind)
    if text:
        rows = rows.filter(Q(text__icontains=text) | Q(method__icontains=text) | Q(rpc_id=text))
    return rows


def methods_of(recording: Recording) -> list[str]:
    """Return the methods that a recording holds, at most 60."""
    rows = RecordedMessage.objects.filter(recording=recording).exclude(method="").order_by("method")
    return list(rows.values_list("method", flat=True).distinct()[:60])


def json_lines(recording: Recording) -> Iterator[bytes]:
    """Give what a recording holds, one message a line, as JSON. The message itself is an object where it was not cut, else text."""
    for row in messages_of(recording).iterator(chunk_size=_CHUNK):
        facts = {name: getattr(row, name) for name in LINE}
        try:
            message = orjson.loads(row.text)
        except orjson.JSONDecodeError:
            message = row.text
        yield orjson.dumps({**facts, "at": row.at, "message": message}) + b"\n"
