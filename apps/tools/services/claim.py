"""One discovery of a server at a time, over all processes: a row claimed by a conditional update."""

from datetime import timedelta
from typing import Any

from django.db.models import Q

from apps.common.clock import now
from apps.common.ids import short_id
from apps.tools.models import Discovery


def claim(server: Any, *, seconds: float) -> str:
    """Claim a server's discovery; returns the token, or nothing where another one runs (it is then repeated once it ends).

    After `seconds` the claim lapses, so that a process which died in the middle holds up nobody.
    """
    token, at = short_id(), now()
    Discovery.objects.bulk_create([Discovery(tenant_id=server.tenant_id, server_id=server.pk)], ignore_conflicts=True)
    free = Q(lease_until__isnull=True) | Q(lease_until__lt=at)
    row = Discovery.objects.filter(server_id=server.pk)
    until = at + timedelta(seconds=seconds)
    if row.filter(free).update(token=token, lease_until=until, started_at=at, again=False):
        return token
    row.update(again=True)
    return ""


def still_mine(server: Any, token: str) -> bool:
    """Tell whether the claim stands, and keep others from taking it until the transaction ends."""
    row = Discovery.objects.select_for_update(of=("self",)).filter(server_id=server.pk, token=token).first()
    return row is not None


def release(server: Any, token: str, **result: Any) -> bool:
    """Give the claim back with the result of the discovery; returns whether somebody asked for another one meanwhile."""
    row = Discovery.objects.select_for_update(of=("self",)).filter(server_id=server.pk, token=token).first()
    if row is None:
        return False
    again = row.again
    row.token, row.lease_until, row.again, row.finished_at = "", None, False, now()
    for name, value in result.items():
        setattr(row, name, value)
    row.save()
    return bool(again)
