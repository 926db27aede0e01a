"""The relay: chains the control plane's events, which wait in the outbox, each exactly once.

The position is kept beside the log and moves in the transaction that appends the events, on the condition that nobody moved it
before: several processes may try, one wins, and a crash leaves both done or neither.
"""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Any, Protocol

from django.conf import settings
from django.db import connections
from django.db.models import Max
from django.db.utils import Error as DatabaseError

from apps.audit.models import AuditRelay
from apps.audit.sink.record import AuditRecord
from apps.common.clock import now_us
from apps.common.errors import AuditUnavailable
from apps.common.events import AUDIT
from apps.common.models import OutboxEvent
from apps.common.outbox import on_commit_bell, remove_bell
from apps.common.redaction import redact

_log = logging.getLogger(__name__)
_ROWS = 256
_ANSWER_SECONDS = 10.0
_POLL_SECONDS = 0.4
_LONGEST_PAUSE = 2.0
_TEXTS = ("actor_kind", "actor_id", "origin", "request_id", "action", "object_kind", "object_id", "server", "tool", "outcome")


class RelayedSink(Protocol):
    """The part of the sink that the relay uses."""

    def submit_relayed(self, records: Sequence[AuditRecord], before: int, after: int) -> "Future[bool]":
        """See `DurableSink.submit_relayed`."""
        ...


def relayed_up_to() -> int:
    """Return the id of the last outbox row that the log has taken over."""
    row = AuditRelay.objects.filter(pk=1).values_list("outbox_id", flat=True).first()
    return row or 0


def to_record(payload: dict[str, Any]) -> AuditRecord:
    """Turn an outbox payload (fields of ControlEvent, actor, `at`) into a record; details are redacted once more."""
    details = redact(payload.get("details") or {})
    if payload.get("address"):
        details["address"] = payload["address"]
    texts = {name: payload.get(name) or None for name in _TEXTS}
    return AuditRecord(
        event_type=payload["event_type"],
        time_us=_microseconds(payload.get("at")),
        tenant=payload.get("tenant_id") or None,
        actor=payload.get("actor_label") or None,
        object=payload.get("object_label") or None,
        details=details or None,
        **texts,
    )


class Relay:
    """Moves events from the outbox to a sink, batch by batch."""

    def __init__(self, sink: RelayedSink) -> None:
        self._sink = sink
        self._position: int | None = None
        self._seen = 0
        """Up to here the outbox holds nothing new; the position itself moves with events only."""

    def step(self) -> int:
        """Chain the next events and return how many; 0 = nothing left. Raises AuditUnavailable and Django's database errors."""
        if self._position is None:
            self._position = self._seen = relayed_up_to()
            self._rewind_if_restored()
        while True:
            rows = list(OutboxEvent.objects.filter(id__gt=self._seen).order_by("id")[:_ROWS])
            if not rows:
                return 0
            records = [to_record(row.payload) for row in rows if row.topic == AUDIT]
            after = rows[-1].pk
            # a long stretch without events is passed over in the log's books too, so that it can be pruned
            if not records and after - self._position < 4 * _ROWS:
                self._seen = after
                continue
            return len(records) if self._move(records, after) else self.step()

    def run_until_empty(self) -> int:
        """Chain everything that waits; return how many events that were."""
        total = 0
        while count := self.step():
            total += count
        return total

    def _move(self, records: Sequence[AuditRecord], after: int) -> bool:
        assert self._position is not None
        position, self._position = self._position, None
        try:
            moved = self._sink.submit_relayed(records, position, after).result(_ANSWER_SECONDS)
        except TimeoutError as error:
            raise AuditUnavailable("The audit log did not answer in time.") from error
        if moved:
            self._position = self._seen = after
        return moved

    def _rewind_if_restored(self) -> None:
        """Begin again when the outbox is older than the log's books: its database was restored or made anew.

        Events of the last day may then be in the log twice, which an event says; none is left out.
        """
        newest = OutboxEvent.objects.aggregate(newest=Max("id"))["newest"]
        if newest is None or not self._position or newest >= self._position:
            return
        _log.warning("the outbox ends at %d, the log's books at %d: relaying from its beginning", newest, self._position)
        details = {"outbox_end": newest, "position": self._position}
        told = AuditRecord("audit.relay_rewound", now_us(), actor_kind="system", actor="system", details=details)
        self._move([told], 0)
        self._position = self._seen = relayed_up_to()


class RelayThread(threading.Thread):
    """Runs the relay: at once after a commit of this process, and every 400 ms for those of others."""

    def __init__(self, sink: RelayedSink) -> None:
        super().__init__(name="audit-relay", daemon=True)
        self._relay = Relay(sink)
        self._wake = threading.Event()
        self._stopping = False

    def start(self) -> None:
        """Start."""
        on_commit_bell(self._ring)
        super().start()

    def stop(self, timeout: float = 5.0) -> None:
        """Chain what waits, as far as that goes within `timeout` seconds, and end."""
        remove_bell(self._ring)
        self._stopping = True
        self._wake.set()
        self.join(timeout)

    def run(self) -> None:
        """Relay until stopped; whatever fails is tried again."""
        pause = _POLL_SECONDS
        while True:
            stopping = self._stopping
            self._wake.clear()
            try:
                self._relay.run_until_empty()
                pause = _POLL_SECONDS
            except (AuditUnavailable, DatabaseError) as error:
                if pause == _POLL_SECONDS:
                    _log.warning("events wait in the outbox: %s", error)
                pause = min(pause * 2, _LONGEST_PAUSE)
                _let_go()
            if stopping:
                _let_go()
                return
            if connections["default"].vendor == "postgresql":
                _let_go()
            self._wake.wait(pause)

    def _ring(self, _last: int) -> None:
        self._wake.set()


def _let_go() -> None:
    """Give this thread's connections back to the pool, or end them."""
    for alias in {"default", settings.AUDIT_DATABASE}:
        connections[alias].close()


def _microseconds(at: str | None) -> int:
    if not at:
        return now_us()
    moment = datetime.fromisoformat(at)
    return round(moment.timestamp() * 1_000_000)
