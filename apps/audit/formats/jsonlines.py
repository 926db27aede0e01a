"""JSON lines: the stored bytes as they are, with the event's name and time before them."""

from apps.audit.domain import event_name
from apps.audit.formats.moments import rfc3339
from apps.audit.sink.record import decode

_START = b'{"event_type":'


def json_line(identity: int, body: bytes) -> bytes:
    """Return `{"event_id", "time", …every member as stored}`. Raises ValueError."""
    record = decode(body)
    if not body.startswith(_START):
        raise ValueError("not in the canonical form")
    return b'{"event_id":"%b","time":"%b",%b\n' % (event_name(identity).encode(), rfc3339(record.time_us), body[1:])
