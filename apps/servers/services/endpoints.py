"""What was observed of endpoints: their state and the era they speak. The observer is the product, whoever's call it was."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant
from apps.common.errors import ValidationFailed
from apps.common.events import ControlEvent
from apps.common.outbox import audit, changed, unit_of_work
from apps.servers.models import Endpoint, Server

ERAS = ("", "modern", "legacy", "dual")
_OBSERVED = frozenset(Endpoint.State.values) - {Endpoint.State.PAUSED}


def set_endpoint_state(endpoint_id: object, state: str, reason: str = "") -> bool:
    """Note the state of an endpoint; tells whether that was news. An endpoint that is gone is no news.

    While the state stays the same only the time is kept at which a healthy one answered (the reason of the first failure stays). `paused` is an operator's word, not an
    observation: raises ValidationFailed for it and for unknown states.
    """
    if state not in _OBSERVED:
        raise ValidationFailed(f"{state} is not a state that is observed.", errors={"state": [f"One of {sorted(_OBSERVED)}."]})
    with every_tenant(actor=SYSTEM):
        if state == Endpoint.State.HEALTHY:
            record_answers({endpoint_id: now()})
        if not Endpoint.objects.filter(pk=endpoint_id).exclude(state=state).exists():
            return False
        with unit_of_work():
            row = Endpoint.objects.select_for_update(of=("self",)).select_related("server").filter(pk=endpoint_id).first()
            if row is None or row.state == state:
                return False
            before = row.state
            row.state, row.state_reason, row.state_since = state, reason[:500], now()
            row.save(update_fields=["state", "state_reason", "state_since", "updated_at"])
            audit(
                ControlEvent(
                    event_type="server.state_changed",
                    action="server.write",
                    object_kind="server",
                    object_id=str(row.server_id),
                    object_label=row.server.slug,
                    tenant_id=str(row.tenant_id),
                    server=row.server.slug,
                    details={"endpoint": str(row.pk), "before": before, "after": state, "reason": row.state_reason},
                )
            )
            changed("server", row.server_id, tenant_id=row.tenant_id)
    return True


def record_answers(answers: Mapping[object, datetime]) -> None:
    """Note when endpoints last answered (endpoint id → time); an older time than the known one changes nothing. No event: it is no news."""
    with transaction.atomic():
        for endpoint_id, at in sorted(answers.items(), key=lambda item: str(item[0])):
            older = Q(last_seen_at__isnull=True) | Q(last_seen_at__lt=at)
            Endpoint.unscoped.filter(older, pk=str(endpoint_id)).update(last_seen_at=at)


def remember_era(endpoint_id: object, era: str, revisions: Sequence[str]) -> bool:
    """Keep the era an endpoint was found to speak, and its revisions, newest first; tells whether that was news."""
    if era not in ERAS:
        raise ValidationFailed(f"{era} is not an era.", errors={"era": ["One of modern, legacy, dual."]})
    with every_tenant(actor=SYSTEM):
        row = Endpoint.objects.select_related("server").filter(pk=endpoint_id).first()
        if row is None or _known(row, era, revisions):
            return False
        with unit_of_work():
            row = Endpoint.objects.select_for_update().select_related("server").filter(pk=endpoint_id).first()
            if row is None or _known(row, era, revisions):
                return False
            row.era, row.last_seen_at = era, now()
            row.save(update_fields=["era", "last_seen_at", "updated_at"])
            known = known_revisions(row.server, revisions)
            if revisions and known != row.server.revisions:
                row.server.revisions = known
                row.server.save(update_fields=["revisions", "updated_at"])
            changed("server", row.server_id, tenant_id=row.tenant_id)
    return True


def _known(row: Endpoint, era: str, revisions: Sequence[str]) -> bool:
    return row.era == era and (not revisions or known_revisions(row.server, revisions) == row.server.revisions)


def known_revisions(server: Server, found: Sequence[str], *, surveyed: bool = False) -> list[str]:
    """Return what a server speaks, newest first: what was found, and the older ones that it was found to speak when all were asked for."""
    if surveyed or server.surveyed_version != server.version or not found:
        return list(found)
    return sorted({*found, *(one for one in server.revisions if one < found[0])}, reverse=True)
