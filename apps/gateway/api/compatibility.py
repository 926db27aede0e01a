"""Clients that were seen, what works between them and the servers, and what one sees now."""

import base64
import json
from dataclasses import asdict
from typing import Any

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.helpers import forced_singular_serializer
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.viewsets import ViewSet

from apps.accounts.api.people import visible_user
from apps.accounts.selectors import api_key as find_key
from apps.common.api.parameters import ApiFilterSet, StrictBooleanFilter
from apps.common.api.views import ScopedAPIView, TenantViewSet
from apps.common.authorise import require
from apps.common.context import current_scope
from apps.common.errors import ValidationFailed
from apps.gateway import selectors
from apps.gateway.api.serializers import ClientOut, CompatibilityOut, CompatibilityQuery, SightOut, SightQuery
from apps.gateway.models import ClientSeen
from apps.gateway.plane.mcp.compat import FEATURES
from apps.gateway.selectors.clients import matching, of_tenant
from apps.gateway.services.sight import seen_now

DEFAULT_PAIRS = 50


def require_both() -> None:
    """Ask for `audit.read` (who speaks to the gateway, from where) and `server.read`."""
    scope = current_scope()
    for wanted in ("audit.read", "server.read"):
        require(wanted, tenant_id=scope.tenant_id if scope else None, kind="audit")


class ClientFilter(ApiFilterSet):
    """By key, place, revision and text."""

    api_key = filters.UUIDFilter(field_name="api_key_id")
    toolset = filters.CharFilter(label="Slug of where it speaks.")
    revision = filters.CharFilter()
    streams = StrictBooleanFilter(label="Whether it takes event streams.")
    tenant = filters.CharFilter(method="by_tenant", label="Id or slug.")
    search = filters.CharFilter(method="by_text", label="In name, version or the key's name, or the beginning of the address.")

    def by_tenant(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to one tenant of those in view."""
        return of_tenant(rows, value)

    def by_text(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to those with a text."""
        return matching(rows, value)


class ClientsViewSet(TenantViewSet):
    """Clients that have spoken to the gateway, as they name themselves."""

    model = ClientSeen
    kind = "audit"
    slug_field = None
    serializer_class = ClientOut
    filterset_class = ClientFilter
    ordering_fields = ("last_seen_at", "first_seen_at", "calls", "name")

    @property
    def words(self) -> str:
        """Return what they are called."""
        return "client"

    def authorise(self, request: Request) -> None:
        """Ask for both permissions."""
        if self.action is not None:
            require_both()

    def rows(self) -> QuerySet[Any]:
        """Return the clients in view."""
        return selectors.clients()


class CompatibilityViewSet(ScopedAPIView, ViewSet):
    """What works between each client that was seen and each server that it reaches where it speaks."""

    def authorise(self, request: Request) -> None:
        """Ask for both permissions."""
        if self.action is not None:
            require_both()

    def known_parameters(self) -> frozenset[str]:
        """Return the filters."""
        return frozenset((SightQuery() if self.action == "sight" else CompatibilityQuery()).fields)

    @extend_schema(parameters=[CompatibilityQuery], responses=forced_singular_serializer(CompatibilityOut))  # type: ignore[no-untyped-call]
    def list(self, request: Request) -> Response:
        """Return pairs of a client and a server, each with what becomes of every feature, and why."""
        query = CompatibilityQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        given = dict(query.validated_data)
        cursor, limit = given.pop("cursor", None), given.pop("limit", DEFAULT_PAIRS)
        pairs, following = selectors.page_of_pairs(after=_read(cursor), limit=limit, **given)
        address = following and replace_query_param(request.build_absolute_uri(), "cursor", _write(following))
        return Response(CompatibilityOut({"next": address, "results": [_shown(pair) for pair in pairs]}).data)

    @extend_schema(parameters=[SightQuery], responses=SightOut, operation_id="compatibility_sight")
    @action(detail=False, methods=["get"])
    def sight(self, request: Request) -> Response:
        """Return what a client, a key or a user sees at a toolset now.

        The very lists they would get, each entry with the rule that allows it; what the policy refuses, with the rule; and what is
        missing for another reason.
        """
        query = SightQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        given = query.validated_data
        if "client" in given:
            client = selectors.get_client(given["client"])
            sight = seen_now(api_key=client.api_key, toolset=given.get("toolset", client.toolset))
        elif "key" in given:
            sight = seen_now(api_key=find_key(given["key"]), toolset=given.get("toolset", ""))
        else:
            sight = seen_now(user=visible_user(given["user"]), toolset=given.get("toolset", ""))
        return Response(SightOut(asdict(sight)).data)


def _shown(pair: selectors.Pair) -> dict[str, Any]:
    verdicts = [{**asdict(one), "name": FEATURES[one.feature]} for one in pair.verdicts]
    return {"client": pair.client, "server": pair.server, "features": verdicts, "counts": pair.counts}


def _write(place: tuple[str, str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _read(cursor: str | None) -> tuple[str, str, str] | None:
    if cursor is None:
        return None
    try:
        found = json.loads(base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        good = isinstance(found, list) and len(found) == 3 and all(isinstance(part, str) for part in found)
    except (ValueError, RecursionError):
        good = False
    if not good:
        raise ValidationFailed("The cursor is not one of ours.", errors={"cursor": ["Take it from `next` of another page."]})
    return (found[0], found[1], found[2])
