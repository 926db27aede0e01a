"""Units of work and the outbox: a change and the notice of it are committed together, or neither is."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from typing import Any

from django.db import connections, transaction

from apps.common.context import current_actor, current_scope
from apps.common.events import AUDIT, CHANGED, CONTROL, ControlEvent

OUTBOX_LOCK = 0x5357_4F42
"""Key of the PostgreSQL advisory lock that keeps outbox ids in commit order."""

_pending: ContextVar[list[tuple[str, str | None, dict[str, Any]]] | None] = ContextVar("switchyard_outbox", default=None)
_refusals: ContextVar[list[dict[str, Any]] | None] = ContextVar("switchyard_refusals", default=None)
_listeners: list[Callable[[int], None]] = []
_lock = threading.Lock()


def on_commit_bell(listener: Callable[[int], None]) -> None:
    """Call `listener(last_outbox_id)` in this process after each commit that wrote to the outbox."""
    with _lock:
        _listeners.append(listener)


def remove_bell(listener: Callable[[int], None]) -> None:
    """Undo `on_commit_bell`."""
    with _lock:
        if listener in _listeners:
            _listeners.remove(listener)


@contextmanager
def unit_of_work() -> Iterator[None]:
    """Run a verb of the control plane in one transaction; its notices are written last, just before the commit.

    Nested units join the outermost one. The notices come last so that the lock which keeps them in commit order
    is never held while another row is waited for.
    """
    outer = _pending.get()
    if outer is not None:
        before = len(outer)
        try:
            with transaction.atomic():
                yield
        except BaseException:
            del outer[before:]
            raise
        return
    token = _pending.set([])
    refusals: list[dict[str, Any]] = []
    refusal_token = _refusals.set(refusals)
    try:
        with transaction.atomic():
            yield
            last = _flush()
            if last is not None:
                transaction.on_commit(lambda: _ring(last))
    finally:
        _refusals.reset(refusal_token)
        _pending.reset(token)
        _write_refusals(refusals)


def publish(topic: str, payload: dict[str, Any], *, tenant_id: object = None) -> None:
    """Add a notice to the unit of work in progress; raises RuntimeError outside one."""
    pending = _pending.get()
    if pending is None:
        raise RuntimeError("publish() needs a unit_of_work().")
    pending.append((topic, None if tenant_id is None else str(tenant_id), payload))


def changed(kind: str, id: object, *, tenant_id: object = None) -> None:
    """Tell every data plane that an object it holds has changed (see `events.SNAPSHOT_KINDS`)."""
    publish(
        CHANGED, {"kind": kind, "id": str(id), "tenant_id": None if tenant_id is None else str(tenant_id)}, tenant_id=tenant_id
    )


def order(name: str, **payload: Any) -> None:
    """Send an order to the data plane of every process."""
    publish(CONTROL, {"order": name, **payload})


def audit(event: ControlEvent) -> None:
    """Record what the actor in force did, in the transaction in which they did it."""
    fields = _fields(event)
    publish(AUDIT, fields, tenant_id=fields["tenant_id"])


def audit_apart(event: ControlEvent) -> None:
    """Record something that must be in the log even if the unit of work in progress is rolled back: a refusal, a failed login."""
    refusals = _refusals.get()
    fields = _fields(event)
    if refusals is not None:
        refusals.append(fields)
    else:
        _write_refusals([fields])


def _fields(event: ControlEvent) -> dict[str, Any]:
    actor = current_actor()
    scope = current_scope()
    tenant_id = event.tenant_id or (scope.tenant_id if scope else None)
    fields = asdict(event) | {
        "tenant_id": tenant_id,
        "actor_kind": actor.kind,
        "actor_id": actor.id,
        "actor_label": actor.label,
        "origin": actor.origin,
        "address": actor.address,
        "request_id": actor.request_id,
    }
    storable: dict[str, Any] = _storable(fields)
    return storable


def _storable(value: Any) -> Any:
    """Return the value without what a database cannot store as JSON (NUL, lone surrogates): a refusal of it must be recorded."""
    if isinstance(value, str):
        return (
            value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
            if not value.isascii() or "\x00" in value
            else value
        )
    if isinstance(value, dict):
        return {_storable(str(key)): _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_storable(item) for item in value]
    return value


def _write_refusals(refusals: list[dict[str, Any]]) -> None:
    if not refusals:
        return
    with unit_of_work():
        for fields in refusals:
            publish(AUDIT, fields, tenant_id=fields["tenant_id"])


def _flush() -> int | None:
    from django.utils import timezone

    from apps.common.models import OutboxEvent

    pending = _pending.get() or []
    if not pending:
        return None
    connection = connections["default"]
    if connection.vendor == "postgresql":
        # Foreign keys are checked at the commit, and wait there for rows that others hold: have that done before the lock is held.
        connection.check_constraints()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [OUTBOX_LOCK])
    now = timezone.now()
    for _, _, payload in pending:
        payload.setdefault("at", now.isoformat())
    rows = OutboxEvent.objects.bulk_create(
        [OutboxEvent(topic=topic, tenant_id=tenant, payload=payload) for topic, tenant, payload in pending]
    )
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify('switchyard_outbox', %s)", [str(rows[-1].pk)])
    return int(rows[-1].pk)


def _ring(last: int) -> None:
    for listener in tuple(_listeners):
        listener(last)
