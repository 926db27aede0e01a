"""The clients that were seen: written as they are seen, bounded, forgotten after a while."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest

from apps.accounts.selectors import plane_keys
from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant
from apps.gateway.models import ClientSeen
from apps.gateway.plane.ports import ClientSighting

MOST_OF_KEY, MOST_OF_TENANT = 40, 1_000
"""Rows kept; whoever was not seen for the longest time gives way, and a key only to itself until its tenant is full."""
FORGOTTEN = timedelta(days=90)
"""A client that was not seen for so long is forgotten."""

_Identity = tuple[str, ...]


@dataclass(slots=True)
class _Merged:
    sighting: ClientSighting
    calls: int


def record_clients(sightings: Sequence[ClientSighting]) -> int:
    """Note clients that were seen; returns how many are new. Sightings by a key that is gone are left out."""
    with every_tenant(actor=SYSTEM), transaction.atomic():
        merged = _merge(sightings)
        rows = {_identity_of(row): row for row in ClientSeen.objects.filter(api_key__in={key for key, *_ in merged})}
        fresh: list[Any] = []
        for identity, one in merged.items():
            row = rows.get(identity)
            if row is None:
                fresh.append(_made(one))
            else:
                _touch(row, one)
        ClientSeen.unscoped.bulk_create(fresh, ignore_conflicts=True)  # another process may have seen it first
        if fresh:
            _make_room({row.api_key_id for row in fresh}, {row.tenant_id for row in fresh})
    return len(fresh)


def forget_clients() -> int:
    """Forget clients that have not been seen for 90 days; returns how many."""
    return ClientSeen.objects.filter(last_seen_at__lt=now() - FORGOTTEN).delete()[0]


def _merge(sightings: Iterable[ClientSighting]) -> dict[_Identity, _Merged]:
    """Return what was seen of each client, once."""
    found = list(sightings)
    living = {key.id: key.tenant_id for key in plane_keys({one.key_id for one in found})}
    merged: dict[_Identity, _Merged] = {}
    for one in found:
        if living.get(one.key_id) != one.tenant_id:
            continue
        identity = (one.key_id, one.door, one.toolset, one.name, one.version, one.revision)
        known = merged.setdefault(identity, _Merged(one, 0))
        known.calls += one.calls
        if one.last >= known.sighting.last:
            known.sighting = one
    return merged


def _identity_of(row: Any) -> _Identity:
    return (str(row.api_key_id), row.door, row.toolset, row.name, row.version, row.revision)


def _made(one: _Merged) -> ClientSeen:
    seen = one.sighting
    at = datetime.fromtimestamp(seen.last, UTC)
    return ClientSeen(
        tenant_id=seen.tenant_id,
        api_key_id=seen.key_id,
        toolset=seen.toolset,
        door=seen.door,
        name=seen.name,
        version=seen.version,
        revision=seen.revision,
        declared=list(seen.declared or ()),
        streams=seen.streams,
        address=seen.address[:64],
        session=seen.session[:64],
        first_seen_at=at,
        last_seen_at=at,
        calls=one.calls,
    )


def _touch(row: Any, one: _Merged) -> None:
    seen = one.sighting
    fields: dict[str, Any] = {"streams": seen.streams, "address": seen.address[:64]}
    if seen.declared is not None:
        fields["declared"] = list(seen.declared)
    if seen.session:
        fields["session"] = seen.session[:64]
    ClientSeen.unscoped.filter(pk=row.pk).update(
        **fields,
        calls=F("calls") + one.calls,
        last_seen_at=Greatest(F("last_seen_at"), datetime.fromtimestamp(seen.last, UTC)),
        updated_at=now(),
    )


def _make_room(keys: set[Any], tenants: set[Any]) -> None:
    for column, ids, most in (("api_key_id", keys, MOST_OF_KEY), ("tenant_id", tenants, MOST_OF_TENANT)):
        for id in ids:
            rows = ClientSeen.unscoped.filter(**{column: id}).order_by("-last_seen_at", "-id")
            surplus = list(rows.values_list("pk", flat=True)[most : most + 2 * MOST_OF_TENANT])
            if surplus:
                ClientSeen.unscoped.filter(pk__in=surplus).delete()
