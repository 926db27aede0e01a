"""Limits, for pages, the API and the data plane."""

from collections.abc import Iterable
from typing import cast
from uuid import UUID

from django.db.models import QuerySet

from apps.common.errors import NotFound
from apps.gateway.models import Limit
from apps.gateway.plane.limits import LimitFacts, LimitSet


def limits() -> QuerySet[Limit]:
    """Return the limits in view with whose they are, the newest first."""
    rows = Limit.objects.select_related("tenant", "user", "role", "api_key__owner", "server").order_by("-created_at", "-id")
    return cast("QuerySet[Limit]", rows)


def get_limit(ref: object) -> Limit:
    """Return one limit in view by id. Raises NotFound."""
    try:
        found = limits().filter(pk=UUID(str(ref))).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound("There is no such limit.")
    return found


def plane_limits(tenant_ids: Iterable[object] | None = None) -> dict[str, LimitSet]:
    """Return the limits of these tenants, or of all, as the data plane needs them; the caller opens the scope (`every_tenant()`)."""
    rows = limits() if tenant_ids is None else limits().filter(tenant__in=list(tenant_ids))
    found: dict[str, list[LimitFacts]] = {}
    for row in rows:
        found.setdefault(str(row.tenant_id), []).append(
            LimitFacts(
                id=str(row.pk),
                tenant_id=str(row.tenant_id),
                subject="tool" if row.subject == Limit.Subject.TOOL else row.target,
                label=row.whose,
                measure=row.measure,
                amount=row.amount,
                window=row.window,
                pattern=row.pattern,
                each=row.each,
            )
        )
    return {tenant: LimitSet.of(rows) for tenant, rows in found.items()}
