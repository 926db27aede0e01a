"""Toolsets and grants in the API."""

from typing import Any, ClassVar

from django.db.models import Q, QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts import selectors as accounts
from apps.accounts.api.people import visible_user
from apps.common.api.parameters import ApiFilterSet, StrictBooleanFilter
from apps.common.api.serializers import EmptySerializer, take_nothing
from apps.common.api.views import TenantViewSet
from apps.common.errors import NotFound, ValidationFailed
from apps.servers.selectors import get_server
from apps.tools import selectors
from apps.tools.api.filters import of_server, of_tenant
from apps.tools.api.serializers import GrantIn, GrantOut, PreviewIn, PreviewOut, ToolsetChange, ToolsetIn, ToolsetOut
from apps.tools.models import Grant, Toolset
from apps.tools.services import grants, toolsets


class ToolsetFilter(ApiFilterSet):
    """By slug, tenant, the server it came with, state and text."""

    slug = filters.CharFilter()
    tenant = filters.CharFilter(method="by_tenant", label="Id or slug.")
    server = filters.CharFilter(method="by_server", label="Id or slug of the server that it came with.")
    composed = StrictBooleanFilter(field_name="server", lookup_expr="isnull", label="Whether it was made by an operator.")
    paused = StrictBooleanFilter(field_name="paused_at", lookup_expr="isnull", exclude=True)
    search = filters.CharFilter(method="by_text")

    def by_tenant(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to one tenant of those in view."""
        return of_tenant(rows, value)

    def by_server(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to the toolset that came with a server."""
        return of_server(rows, value)

    def by_text(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to those with a text in slug, name or description."""
        return rows.filter(Q(slug__icontains=value) | Q(name__icontains=value) | Q(description__icontains=value))


class ToolsetsViewSet(TenantViewSet):
    """Toolsets: virtual servers at `/mcp/<slug>`."""

    model = Toolset
    kind = "toolset"
    serializer_class = ToolsetOut
    filterset_class = ToolsetFilter
    ordering_fields = ("slug", "name", "created_at")

    def rows(self) -> QuerySet[Any]:
        """Return the toolsets in view with their entries."""
        return selectors.toolsets().order_by("slug", "id")

    def _shown(self, toolset: Toolset) -> dict[str, Any]:
        return dict(ToolsetOut(self.rows().get(pk=toolset.pk)).data)

    @extend_schema(request=ToolsetIn, responses={201: ToolsetOut})
    def create(self, request: Request) -> Response:
        """Create a toolset of chosen things of one or more servers."""
        return Response(self._shown(toolsets.create_toolset(**ToolsetIn(data=request.data).given())), status=201)

    @extend_schema(request=ToolsetChange, responses=ToolsetOut)
    def partial_update(self, request: Request, id: str) -> Response:
        """Change a toolset."""
        return Response(self._shown(toolsets.update_toolset(self.get_object(), **ToolsetChange(data=request.data).given())))

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """Delete a toolset and the grants on it; the one that came with a server goes with that server."""
        toolsets.delete_toolset(self.get_object())
        return Response(status=204)

    @extend_schema(request=EmptySerializer, responses=ToolsetOut)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, id: str) -> Response:
        """Stop every use of a toolset until it is resumed."""
        take_nothing(request)
        return Response(self._shown(toolsets.pause_toolset(self.get_object())))

    @extend_schema(request=EmptySerializer, responses=ToolsetOut)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, id: str) -> Response:
        """Allow the use of a paused toolset again."""
        take_nothing(request)
        return Response(self._shown(toolsets.resume_toolset(self.get_object())))

    @extend_schema(responses=PreviewOut)
    @action(detail=True, methods=["get"])
    def contents(self, request: Request, id: str) -> Response:
        """Return the exact content that a client with every right gets, and its size."""
        return Response(PreviewOut(toolsets.preview(self.get_object())).data)

    @extend_schema(request=PreviewIn, responses=PreviewOut)
    @action(detail=False, methods=["post"])
    def preview(self, request: Request) -> Response:
        """Return what a toolset of these entries would contain; nothing is kept."""
        return Response(PreviewOut(toolsets.preview(entries=PreviewIn(data=request.data).given()["entries"])).data)


class GrantsViewSet(TenantViewSet):
    """Grants: who may use what."""

    model = Grant
    kind = "grant"
    slug_field: ClassVar[str | None] = None
    serializer_class = GrantOut
    filterset_fields = ("tenant", "effect", "kind", "user", "role", "api_key", "server", "toolset")
    ordering_fields = ("created_at",)

    def rows(self) -> QuerySet[Any]:
        """Return the grants in view."""
        return selectors.grants().order_by("-created_at", "id")

    @extend_schema(request=GrantIn, responses={201: GrantOut})
    def create(self, request: Request) -> Response:
        """Give (or, with `deny`, take away) the use of something; the same grant again is the same one."""
        given = GrantIn(data=request.data).given()
        finders = {"user": visible_user, "role": accounts.role, "api_key": accounts.api_key}
        finders |= {"server": get_server, "toolset": selectors.get_toolset}
        found: dict[str, Any] = {}
        for name, value in given.items():
            try:
                found[name] = finders[name](value) if name in finders else value
            except NotFound as error:
                raise ValidationFailed(error.detail, errors={name: ["There is no such object in this tenant."]}) from None
        return Response(GrantOut(self.rows().get(pk=grants.grant(**found).pk)).data, status=201)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """Revoke a grant; in force within a second."""
        grants.revoke_grant(self.get_object())
        return Response(status=204)
