"""The clients that were seen, for lists."""

from typing import Any, cast
from uuid import UUID

from django.db.models import Q, QuerySet

from apps.accounts.selectors import as_uuid
from apps.common.errors import NotFound
from apps.gateway.models import ClientSeen


def clients(
    *,
    toolset: str | None = None,
    api_key: object = None,
    revision: str | None = None,
    tenant: object = None,
    text: str | None = None,
) -> QuerySet[ClientSeen]:
    """Return the clients in view that match every filter given, the one seen last first, with their keys.

    `toolset`: slug, empty = `/mcp`; `text`: in name, version, address, or the name of the key.
    """
    rows: QuerySet[Any] = ClientSeen.objects.select_related("api_key__owner", "tenant")
    if toolset is not None:
        rows = rows.filter(toolset=toolset)
    if api_key is not None:
        rows = rows.filter(api_key_id=api_key)
    if revision:
        rows = rows.filter(revision=revision)
    if tenant is not None:
        rows = of_tenant(rows, tenant)
    if text:
        rows = matching(rows, text)
    return cast("QuerySet[ClientSeen]", rows.order_by("-last_seen_at", "-id"))


def of_tenant(rows: QuerySet[Any], tenant: object) -> QuerySet[Any]:
    """Narrow to one tenant of those in view, by id or slug."""
    key = as_uuid(tenant)
    return rows.filter(tenant_id=key) if key else rows.filter(tenant__slug=str(tenant))


def matching(rows: QuerySet[Any], text: str) -> QuerySet[Any]:
    """Narrow to those with a text in name or version, in the name of the key, or at the beginning of the address."""
    words = Q(name__icontains=text) | Q(version__icontains=text) | Q(address__startswith=text)
    return rows.filter(words | Q(api_key__name__icontains=text) | Q(api_key__prefix=text))


def get_client(ref: object) -> ClientSeen:
    """Return one client in view by id. Raises NotFound."""
    try:
        found = clients().filter(pk=UUID(str(ref))).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound("No such client has been seen.")
    return found
