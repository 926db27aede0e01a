"""Connections with servers by OAuth in the API: the verbs on servers, and what there is."""

from typing import Any, ClassVar, cast

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.selectors import as_uuid
from apps.common import authorise
from apps.common.api.parameters import ApiFilterSet
from apps.common.api.serializers import EmptySerializer, take_nothing
from apps.common.api.views import KindViewSet
from apps.common.context import current_scope
from apps.common.errors import NotFound
from apps.servers import selectors
from apps.servers.api.serializers import BegunOut, ConnectIn, OAuthClientIn, OAuthClientOut, UpstreamConnectionOut
from apps.servers.models import OAuthConnection
from apps.servers.services.oauth import connecting, disconnecting


class ConnectingMixin:
    """The verbs by which a server is connected; part of the servers' view."""

    @extend_schema(request=ConnectIn, responses=BegunOut)
    @action(detail=True, methods=["post"])
    def connect(self, request: Request, id: str) -> Response:
        """Begin to connect a server by OAuth: the answer says where its user goes on in a browser, or that the connection stands."""
        given = ConnectIn(data=request.data).given()
        begun = connecting.begin(
            cast("Any", self).get_object(), person=cast("Any", request.user), personal=given.get("personal", False)
        )
        said = {
            "connected": begun.connection is not None,
            "authorization_url": begun.authorization_url,
            "issuer": begun.issuer,
            "scope": begun.scope,
            "expires_at": begun.expires_at,
        }
        return Response(BegunOut(said).data)

    @extend_schema(request=ConnectIn, responses={204: None})
    @action(detail=True, methods=["post"])
    def disconnect(self, request: Request, id: str) -> Response:
        """End a server's connection, or with `personal` one's own: its tokens are forgotten, and revoked where that can be asked."""
        given = ConnectIn(data=request.data).given()
        server = cast("Any", self).get_object()
        found = selectors.connection_of(server.pk, request.user.pk if given.get("personal") else None)
        if found is None:
            raise NotFound(f"{server.slug} is not connected.")
        disconnecting.disconnect(found)
        return Response(status=204)

    @extend_schema(methods=["GET"], responses=OAuthClientOut)
    @extend_schema(methods=["PUT"], request=OAuthClientIn, responses=OAuthClientOut)
    @extend_schema(methods=["DELETE"], responses={204: None})
    @action(detail=True, methods=["get", "put", "delete"], url_path="oauth-client")
    def oauth_client(self, request: Request, id: str) -> Response:
        """Show, enter or forget the client that Switchyard is registered as with the server's authorization server."""
        server = cast("Any", self).get_object()
        if request.method == "DELETE":
            disconnecting.delete_client(server)
            return Response(status=204)
        if request.method == "PUT":
            given = OAuthClientIn(data=request.data).given()
            stored = disconnecting.set_client(
                server,
                issuer=given["issuer"],
                client_id=given["client_id"],
                secret=given.get("client_secret"),
                private_key=given.get("private_key"),
                method=given.get("token_endpoint_auth_method", ""),
                algorithm=given.get("algorithm", ""),
            )
            return Response(OAuthClientOut(stored).data)
        found = selectors.entered_client(server.pk)
        if found is None:
            raise NotFound(f"No client was entered for {server.slug}.")
        return Response(OAuthClientOut(found).data)


class UpstreamConnectionFilter(ApiFilterSet):
    """By server, by state, by when they expire."""

    server = filters.CharFilter(method="by_server", label="Id or slug.")
    state = filters.ChoiceFilter(choices=OAuthConnection.State.choices)
    expires_before = filters.IsoDateTimeFilter(field_name="expires_at", lookup_expr="lt")
    expires_after = filters.IsoDateTimeFilter(field_name="expires_at", lookup_expr="gte")

    def by_server(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to the connections of a server, named by id or slug."""
        key = as_uuid(value)
        return rows.filter(server_id=key) if key else rows.filter(server__slug=value)


class UpstreamConnectionsViewSet(ListModelMixin, RetrieveModelMixin, KindViewSet):
    """Connections with servers by OAuth. Operators see all of their tenant, others their own."""

    model = OAuthConnection
    kind = "server"
    slug_field: ClassVar[str | None] = None
    serializer_class = UpstreamConnectionOut
    filterset_class = UpstreamConnectionFilter
    ordering_fields = ("created_at", "connected_at", "updated_at")

    @property
    def words(self) -> str:
        """Name it."""
        return "connection"

    def rows(self) -> QuerySet[Any]:
        """Return the connections in view."""
        rows: QuerySet[Any] = OAuthConnection.objects.select_related("server", "user").order_by("-created_at", "id")
        scope = current_scope()
        if authorise.decide("server.write", tenant_id=scope.tenant_id if scope else None).allowed:
            return rows
        return rows.filter(user_id=self.request.user.pk)

    @extend_schema(request=EmptySerializer, responses={204: None})
    @action(detail=True, methods=["post"])
    def disconnect(self, request: Request, id: str) -> Response:
        """End a connection: its tokens are forgotten, and revoked where that can be asked."""
        take_nothing(request)
        disconnecting.disconnect(self.get_object())
        return Response(status=204)
