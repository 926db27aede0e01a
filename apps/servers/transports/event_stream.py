"""An incremental reader of `text/event-stream` (WHATWG HTML §9.2.6), bounded in memory."""

from dataclasses import dataclass

from apps.common.errors import UpstreamTooLarge


@dataclass(slots=True)
class Event:
    """One dispatched event. `id` is the last id seen on the stream, None when there was none yet."""

    name: str
    data: bytes
    id: str | None


class EventStream:
    """Takes bytes as they come, gives whole events. Lines end with LF, CR or CRLF; comments are skipped.

    `limit` bounds one event (and one line) in bytes: UpstreamTooLarge. `retry` is the server's wish in milliseconds.
    """

    __slots__ = ("_begun", "_buffer", "_data", "_name", "_size", "_skip_lf", "last_id", "limit", "retry")
    _data: bytes | bytearray | None
    """The event's lines so far: the one line as it is, several joined, since each apart would cost 40 bytes more."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._data = None
        self._size = 0
        self._name = ""
        self._skip_lf = False
        self._begun = False
        self.last_id: str | None = None
        self.retry: int | None = None

    @property
    def held(self) -> int:
        """Return how many bytes of an event that is not complete are kept."""
        return len(self._buffer) + self._size

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that `chunk` completes."""
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        buffer = self._buffer
        if b"\n" not in chunk and b"\r" not in chunk:
            # A drip of small pieces must not make us look at the same bytes again.
            buffer += chunk
            if len(buffer) + self._size > self.limit:
                raise UpstreamTooLarge(f"One event of the server has more than {self.limit} bytes.")
            return []
        buffer += chunk
        if not self._begun:
            self._begun = True
            if buffer.startswith(b"\xef\xbb\xbf"):
                del buffer[:3]
        if chunk.endswith(b"\r"):
            # Its LF, if any, comes with the next chunk.
            self._skip_lf = True
        text = bytes(buffer)
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._buffer = bytearray(rest)
        events: list[Event] = []
        for line in lines:
            if line:
                self._field(line)
            elif self._data is not None:
                data = self._data if type(self._data) is bytes else bytes(self._data)
                events.append(Event(self._name or "message", data, self.last_id))
                self._data, self._size, self._name = None, 0, ""
            else:
                self._name = ""
        if len(rest) + self._size > self.limit:
            raise UpstreamTooLarge(f"One event of the server has more than {self.limit} bytes.")
        return events

    def _field(self, line: bytes) -> None:
        """Take one line that is not empty."""
        name, colon, value = line.partition(b":")
        if not name and colon:
            return
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            if self._data is None:
                self._data = value
            elif type(self._data) is bytes:
                self._data = bytearray(self._data) + b"\n" + value
            else:
                self._data += b"\n" + value
            self._size += len(value) + 1
            if self._size > self.limit:
                raise UpstreamTooLarge(f"One event of the server has more than {self.limit} bytes.")
        elif name == b"event":
            self._name = value[:200].decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value and len(value) <= 4096:
                self.last_id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= 9:
            self.retry = int(value)
