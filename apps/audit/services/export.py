"""Taking events away: streamed row by row in flat memory, with an event before the first byte and one after the last."""

import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from typing import Any

from django.db.models import Q

from apps.audit.domain import event_name
from apps.audit.formats import FORMATS, Format
from apps.audit.selectors import filtered, scoped_events
from apps.common.authorise import require
from apps.common.clock import monotonic, now
from apps.common.context import current_scope
from apps.common.errors import Overloaded, ValidationFailed
from apps.common.events import ControlEvent
from apps.common.outbox import audit, unit_of_work

Progress = Callable[[int], None]
"""Called with the rows so far, every few thousand."""

AT_ONCE = 4
"""Exports of one process at a time."""
_ROWS = 1_000
_FLUSH = 65_536
_slots = threading.BoundedSemaphore(AT_ONCE)


class Export:
    """One export of what the scope in force may see. Made and read in one context; `chunks` may be read in another thread."""

    def __init__(
        self,
        format: str,
        filters: dict[str, Any],
        *,
        progress: Progress | None = None,
        ended: Callable[[int, str], None] | None = None,
    ) -> None:
        """Check, and note that it begins. Raises PermissionDenied, ValidationFailed (also for a wrong format), Overloaded."""
        scope = current_scope()
        require("audit.read", tenant_id=scope.tenant_id if scope else None, kind="audit", object_id="log", label="audit log")
        if format not in FORMATS:
            raise ValidationFailed("There is no such format.", errors={"format": [f"Use one of: {', '.join(FORMATS)}."]})
        self.format: Format = FORMATS[format]
        self.rows = 0
        self._filters = {**filters, "until": min(filters.get("until") or now(), now())}
        self._rows = filtered(scoped_events(), **self._filters).values_list("id", "body")
        self._progress, self._ended = progress, ended
        if not _slots.acquire(blocking=False):
            raise Overloaded(f"{AT_ONCE} exports run in this process already; try again when one has ended.")
        # given back at the end, and also when nobody ever reads what this would give
        self._release = weakref.finalize(self, _slots.release)
        try:
            self._note("audit.export_started", "ok", {})
        except BaseException:
            self._release()
            raise

    @property
    def filename(self) -> str:
        """Return a name for the file."""
        return f"audit-{now():%Y%m%d-%H%M%S}.{self.format.extension}"

    def chunks(self) -> Generator[bytes]:
        """Give the file in pieces of about 64 kB, newest event first. Closing it early is noted as cancelled."""
        outcome, started = "cancelled", monotonic()
        try:
            parts: list[bytes] = [self.format.head] if self.format.head else []
            size = 0
            for identity, body in self._stored():
                line = self._line(identity, body)
                self.rows += 1
                parts.append(line)
                size += len(line)
                if size >= _FLUSH:
                    yield b"".join(parts)
                    parts, size = [], 0
                    if self._progress is not None:
                        self._progress(self.rows)
            if parts:
                yield b"".join(parts)
            outcome = "ok"
        except GeneratorExit:
            raise
        except BaseException:
            outcome = "failed"
            raise
        finally:
            self._release()
            self._note("audit.exported", outcome, {"rows": self.rows, "seconds": round(monotonic() - started, 3)})
            if self._ended is not None:
                self._ended(self.rows, outcome)

    def _line(self, identity: int, body: bytes) -> bytes:
        try:
            return self.format.line(identity, body)
        except (ValueError, TypeError):
            # a row that was tampered with is not left out in silence; its form is the plainest one
            text = f"{event_name(identity)},unreadable: the stored bytes are not an audit record; run a verification\r\n"
            return (
                text.encode()
                if self.format.name == "csv"
                else b'{"event_id":"%b","unreadable":true}\n' % event_name(identity).encode()
            )

    def _stored(self) -> Iterator[tuple[int, bytes]]:
        """Give ids and stored bytes page by page, each page where the last one ended."""
        after: tuple[datetime, int] | None = None
        while True:
            rows = self._rows
            if after is not None:
                rows = rows.filter(Q(time__lt=after[0]) | Q(time=after[0], id__lt=after[1]), time__lte=after[0])
            page = list(rows[:_ROWS])
            for identity, body in page:
                yield identity, bytes(body)
            if len(page) < _ROWS:
                return
            # asked for once a page: to turn every row's time into Python's costs a third of the whole
            last = page[-1][0]
            after = self._rows.filter(id=last).values_list("time", flat=True)[0], last

    def _note(self, event_type: str, outcome: str, more: dict[str, Any]) -> None:
        shown = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in self._filters.items()}
        shown = {name: value for name, value in shown.items() if value not in (None, "")}
        with unit_of_work():
            audit(
                ControlEvent(
                    event_type=event_type,
                    action="audit.read",
                    object_kind="audit",
                    object_id="log",
                    object_label="audit log",
                    outcome=outcome,
                    details={"format": self.format.name, "filters": shown, **more},
                )
            )
