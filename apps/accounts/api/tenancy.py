"""Tenants, roles and memberships in the API."""

from typing import Any, ClassVar

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts import selectors
from apps.accounts.api.people import visible_user
from apps.accounts.api.serializers import (
    MembershipIn,
    MembershipOut,
    RoleChange,
    RoleIn,
    RoleOut,
    TenantChange,
    TenantIn,
    TenantOut,
)
from apps.accounts.models import Membership, Role, Tenant
from apps.accounts.services import memberships, roles, tenants
from apps.common.api.serializers import EmptySerializer, take_nothing
from apps.common.api.views import KindViewSet, TenantViewSet
from apps.common.context import current_scope, current_tenant_id


class TenantsViewSet(ListModelMixin, RetrieveModelMixin, KindViewSet):
    """Tenants: a superuser sees all, everybody else the one they work in."""

    model = Tenant
    kind = "tenant"
    serializer_class = TenantOut
    filterset_fields = ("active",)
    ordering_fields = ("slug", "name", "created_at")

    def rows(self) -> QuerySet[Any]:
        """Return the tenants that the caller may know of."""
        scope = current_scope()
        if scope is not None and scope.actor.is_superuser:
            return Tenant.objects.all()
        return Tenant.objects.filter(pk=current_tenant_id())

    @extend_schema(request=TenantIn, responses={201: TenantOut})
    def create(self, request: Request) -> Response:
        """Make a tenant with its built-in roles. Superusers only."""
        tenant = tenants.create_tenant(**TenantIn(data=request.data).given())
        return Response(TenantOut(tenant).data, status=201)

    @extend_schema(request=TenantChange, responses=TenantOut)
    def partial_update(self, request: Request, id: str) -> Response:
        """Change a tenant."""
        tenant = tenants.update_tenant(self.get_object(), **TenantChange(data=request.data).given())
        return Response(TenantOut(tenant).data)

    @extend_schema(request=EmptySerializer, responses=TenantOut)
    @action(detail=True, methods=["post"])
    def deactivate(self, request: Request, id: str) -> Response:
        """Shut a tenant: its keys and members are refused."""
        take_nothing(request)
        return Response(TenantOut(tenants.deactivate_tenant(self.get_object())).data)

    @extend_schema(request=EmptySerializer, responses=TenantOut)
    @action(detail=True, methods=["post"])
    def activate(self, request: Request, id: str) -> Response:
        """Open a tenant again."""
        take_nothing(request)
        return Response(TenantOut(tenants.activate_tenant(self.get_object())).data)


class RolesViewSet(TenantViewSet):
    """Roles of a tenant."""

    model = Role
    kind = "role"
    serializer_class = RoleOut
    filterset_fields = ("slug", "builtin")
    ordering_fields = ("slug", "name", "created_at")

    @extend_schema(request=RoleIn, responses={201: RoleOut})
    def create(self, request: Request) -> Response:
        """Make a role, of permissions that the caller has."""
        return Response(RoleOut(roles.create_role(**RoleIn(data=request.data).given())).data, status=201)

    @extend_schema(request=RoleChange, responses=RoleOut)
    def partial_update(self, request: Request, id: str) -> Response:
        """Change a role that is not built in."""
        return Response(RoleOut(roles.update_role(self.get_object(), **RoleChange(data=request.data).given())).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """Delete a role that nobody has."""
        roles.delete_role(self.get_object())
        return Response(status=204)


class MembershipsViewSet(TenantViewSet):
    """Who has which role in a tenant."""

    model = Membership
    kind = "membership"
    slug_field: ClassVar[str | None] = None
    serializer_class = MembershipOut
    filterset_fields = ("user", "role")
    ordering_fields = ("created_at",)

    def rows(self) -> QuerySet[Any]:
        """Return the memberships with the names of both sides."""
        return super().rows().select_related("user", "role").order_by("created_at")

    @extend_schema(request=MembershipIn, responses={201: MembershipOut})
    def create(self, request: Request) -> Response:
        """Give a user a role."""
        given = MembershipIn(data=request.data).given()
        made = memberships.add_membership(visible_user(given["user"]), selectors.role(given["role"]))
        return Response(MembershipOut(made).data, status=201)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """Take a role from a user."""
        memberships.remove_membership(self.get_object())
        return Response(status=204)
