"""One discovery of a server at a time, over all processes: a row that names who holds it and for how long."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, connections

from apps.common.clock import monotonic, now
from apps.common.ids import short_id
from apps.common.queue.store import owner, owner_lives
from apps.tools.models import Discovery

log = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
"""A claim that was not renewed for so long is free; that of a process known to be gone is free at once."""
RENEW_SECONDS = 4.0

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 900.0
MOST_FAILURES = 1_000_000
"""Counted."""

_held: dict[str, Any] = {}
"""Token → id of the server: what runs in this process."""


def claim(server: Any) -> str:
    """Claim a server's discovery; returns the token, or nothing where another one runs (it is then repeated once it ends).

    Needs a unit of work. `kept` has to renew it.
    """
    Discovery.objects.bulk_create([Discovery(tenant_id=server.tenant_id, server_id=server.pk)], ignore_conflicts=True)
    row = Discovery.objects.select_for_update(of=("self",)).get(server_id=server.pk)
    if row.token and not abandoned(row):
        row.again = True
        row.save(update_fields=["again", "updated_at"])
        return ""
    row.token, row.holder, row.again, row.started_at = short_id(), owner(), False, now()
    row.lease_until = row.started_at + timedelta(seconds=LEASE_SECONDS)
    row.save(update_fields=["token", "holder", "lease_until", "again", "started_at", "updated_at"])
    return str(row.token)


def abandoned(row: Discovery) -> bool:
    """Tell whether whoever holds a claim has ended, or has not renewed it."""
    return row.lease_until is None or row.lease_until < now() or not owner_lives(row.holder)


@contextmanager
def kept(server: Any, token: str, *, seconds: float) -> Iterator[None]:
    """Renew a claim while the block runs, for at most `seconds`: a discovery that hangs holds up nobody."""
    over = threading.Event()
    renewal = threading.Thread(
        target=_renew, args=(server.pk, token, monotonic() + seconds, over), name="discovery-claim", daemon=True
    )
    _held[token] = server.pk
    renewal.start()
    try:
        yield
    finally:
        _held.pop(token, None)
        over.set()
        renewal.join(RENEW_SECONDS)


def held() -> list[tuple[Any, str]]:
    """Return what this process discovers now: server id and token."""
    return [(server_id, token) for token, server_id in list(_held.items())]


def _renew(server_id: Any, token: str, until: float, over: threading.Event) -> None:
    try:
        while not over.wait(RENEW_SECONDS) and monotonic() < until:
            try:
                lease = now() + timedelta(seconds=LEASE_SECONDS)
                if not Discovery.unscoped.filter(server_id=server_id, token=token).update(lease_until=lease):
                    return
            except DatabaseError:
                log.warning("The claim of a discovery could not be renewed.", exc_info=True)
                connections.close_all()
    finally:
        connections.close_all()


def pause(failures: int) -> timedelta:
    """Return how long the clock waits after so many failures: 30 s, doubled each time up to 15 minutes."""
    return timedelta(seconds=min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(max(failures, 1) - 1, 20)))


def still_mine(server_id: Any, token: str) -> bool:
    """Tell whether the claim stands, and keep others from taking it until the transaction ends."""
    return _locked(server_id, token) is not None


def release(server_id: Any, token: str, **result: Any) -> bool | None:
    """Give the claim back with the result of the discovery; returns whether somebody asked for another one meanwhile.

    None: the claim is not held under this token any more, and nothing was written.
    """
    row = _locked(server_id, token)
    if row is None:
        return None
    again = bool(row.again)
    row.token, row.holder, row.lease_until, row.again, row.finished_at = "", "", None, False, now()
    for name, value in result.items():
        setattr(row, name, value)
    failed = bool(row.summary.get("error"))
    row.failures = min(row.failures + 1, MOST_FAILURES) if failed else 0
    row.next_at = row.finished_at + pause(row.failures) if failed else None
    row.save()
    return again


def _locked(server_id: Any, token: str) -> Discovery | None:
    found: Discovery | None = (
        Discovery.objects.select_for_update(of=("self",)).filter(server_id=server_id, token=token).exclude(token="").first()
    )
    return found
