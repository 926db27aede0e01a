"""Servers that are discovered again without anybody asking: those that could not be, and those that were not for long."""

from datetime import timedelta
from typing import Any

from django.db.models import Q, QuerySet

from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant
from apps.common.outbox import unit_of_work
from apps.servers.selectors import never_discovered
from apps.tools.models import Discovery
from apps.tools.services.claim import pause
from apps.tools.tasks import discover_later

STALE_SECONDS = 900.0
"""After which an HTTP or SSE server is asked again: it may have been restarted with other definitions and told nobody."""
RUN_SECONDS = 15.0
"""How often the clock looks (see the schedule in the settings)."""
FAILED_AT_ONCE = 20
"""Servers that failed, in one run."""
STALE_AT_ONCE = 20
"""Servers that were not asked for long, in one run; fewer where there are few servers, so that they spread over the 15 minutes."""


def discover_due() -> int:
    """Enqueue the discovery of servers whose time has come; returns how many.

    Never discovered, or failed the last time: after a pause that grows with the failures. HTTP and SSE servers: 15 minutes after the
    last time. Not paused ones, and none that is being discovered. Safe to run in several processes: each server is taken by one.
    """
    with every_tenant(SYSTEM):
        _note_new()
        at = now()
        idle = Discovery.objects.filter(Q(next_at=None) | Q(next_at__lte=at), token="", server__paused_at=None)
        failed = Q(failures__gt=0) | Q(server__discovered_at=None) | ~Q(server__discovery_error="")
        stale = Q(server__transport__in=("http", "sse"), server__discovered_at__lt=at - timedelta(seconds=STALE_SECONDS))
        count = sum(_take(row, pause(row.failures)) for row in idle.filter(failed).order_by("next_at", "pk")[:FAILED_AT_ONCE])
        asked = idle.filter(stale).exclude(failed).order_by("server__discovered_at")[: _share()]
        return count + sum(_take(row, timedelta(seconds=STALE_SECONDS)) for row in asked)


def wants_discovery(endpoint_id: object) -> str:
    """Return the id of the endpoint's server if it was never discovered and is not being discovered, else nothing."""
    with every_tenant(SYSTEM):
        found = never_discovered(endpoint_id=endpoint_id)
        busy = Discovery.objects.filter(server_id__in=[id for id, _, _ in found]).exclude(token="").exists()
        return "" if busy or not found else str(found[0][0])


def _note_new() -> None:
    """Begin rows for servers whose first discovery has not begun; it is enqueued with their registration, and may be on its way."""
    known = Discovery.objects.values_list("server_id", flat=True)
    Discovery.objects.bulk_create(
        [
            Discovery(tenant_id=tenant_id, server_id=id, next_at=created_at + pause(1))
            for id, tenant_id, created_at in never_discovered(without=known, most=FAILED_AT_ONCE)
        ],
        ignore_conflicts=True,
    )


def _share() -> int:
    """Return how many stale servers one run takes, for all to have their turn in 15 minutes."""
    rows: QuerySet[Discovery] = Discovery.objects.filter(server__paused_at=None, server__transport__in=("http", "sse"))
    return min(STALE_AT_ONCE, int(rows.count() * RUN_SECONDS / STALE_SECONDS) + 1)


def _take(row: Any, until: timedelta) -> int:
    """Enqueue one; 0 when another process was faster."""
    with unit_of_work():
        mine = Discovery.objects.filter(pk=row.pk, token="", next_at=row.next_at).update(next_at=now() + until)
        if mine:
            discover_later(row.server_id)
    return int(mine)
