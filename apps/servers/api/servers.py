"""Servers and their processes in the API."""

from typing import Any, ClassVar

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.selectors import as_uuid
from apps.common.api.parameters import ApiFilterSet
from apps.common.api.serializers import EmptySerializer, take_nothing
from apps.common.api.views import KindViewSet, TenantViewSet
from apps.servers import selectors
from apps.servers.api.connections import ConnectingMixin
from apps.servers.api.serializers import (
    CloneIn,
    ConnectionOut,
    CredentialIn,
    CredentialName,
    ImportedOut,
    ImportIn,
    ProcessOut,
    ServerChange,
    ServerIn,
    ServerOut,
    ServersIn,
    ServerTest,
)
from apps.servers.models import Endpoint, Server, UpstreamProcess
from apps.servers.querysets import CAPABILITIES
from apps.servers.services import credentials, lifecycle, processes, registry, transfer
from apps.servers.services.connection import test_connection


class ServerFilter(ApiFilterSet):
    """By what a server offers, how it is reached, how it is, and text."""

    capability = filters.ChoiceFilter(choices=[(name, name) for name in CAPABILITIES], method="by_capability")
    tenant = filters.CharFilter(method="by_tenant")
    state = filters.ChoiceFilter(choices=Endpoint.State.choices, method="by_state")
    search = filters.CharFilter(method="by_text")

    class Meta:
        model = Server
        fields = ("transport", "review", "builtin")

    def by_capability(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to servers that declared a capability."""
        return rows.offering(value)

    def by_tenant(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to one tenant of those in view."""
        return rows.of_tenant(value)

    def by_state(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to a state."""
        return rows.filter(state=value)

    def by_text(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to servers whose slug, name, description or address contains a text."""
        return rows.matching(value)


class ServersViewSet(ConnectingMixin, TenantViewSet):
    """MCP servers."""

    model = Server
    kind = "server"
    serializer_class = ServerOut
    filterset_class = ServerFilter
    ordering_fields = ("slug", "name", "created_at", "updated_at")

    def rows(self) -> QuerySet[Any]:
        """Return the servers in view, with their state."""
        return selectors.servers().select_related("tenant").prefetch_related("endpoints", "credentials").order_by("slug", "id")

    def _shown(self, server: Server) -> dict[str, Any]:
        return dict(ServerOut(self.rows().get(pk=server.pk)).data)

    @extend_schema(request=ServerIn, responses={201: ServerOut})
    def create(self, request: Request) -> Response:
        """Register a server; its toolset of the same slug comes with it, and its discovery begins."""
        server = registry.register_server(**ServerIn(data=request.data).given())
        return Response(self._shown(server), status=201)

    @extend_schema(request=ServerChange, responses=ServerOut)
    def partial_update(self, request: Request, id: str) -> Response:
        """Change a server."""
        return Response(self._shown(registry.update_server(self.get_object(), **ServerChange(data=request.data).given())))

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """Delete a server with its definitions, its toolset and the grants on it."""
        lifecycle.delete_server(self.get_object())
        return Response(status=204)

    @extend_schema(request=EmptySerializer, responses=ServerOut)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, id: str) -> Response:
        """Stop every use of a server until it is resumed."""
        take_nothing(request)
        return Response(self._shown(lifecycle.pause_server(self.get_object())))

    @extend_schema(request=EmptySerializer, responses=ServerOut)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, id: str) -> Response:
        """Allow the use of a paused server again."""
        take_nothing(request)
        return Response(self._shown(lifecycle.resume_server(self.get_object())))

    @extend_schema(request=ServersIn, responses=ServerOut(many=True))
    @action(detail=False, methods=["post"], url_path="bulk/pause", pagination_class=None, filterset_class=None)
    def bulk_pause(self, request: Request) -> Response:
        """Pause several servers: all or none."""
        return self._several(lifecycle.pause_servers(self._named(request)))

    @extend_schema(request=ServersIn, responses=ServerOut(many=True))
    @action(detail=False, methods=["post"], url_path="bulk/resume", pagination_class=None, filterset_class=None)
    def bulk_resume(self, request: Request) -> Response:
        """Resume several servers: all or none."""
        return self._several(lifecycle.resume_servers(self._named(request)))

    def _named(self, request: Request) -> list[Server]:
        given = ServersIn(data=request.data).given()["servers"]
        return self.find_several(self.get_queryset(), given, field="servers")

    def _several(self, servers: list[Server]) -> Response:
        return Response(ServerOut(self.rows().filter(pk__in=[server.pk for server in servers]), many=True).data)

    @extend_schema(request=CloneIn, responses={201: ServerOut})
    @action(detail=True, methods=["post"])
    def clone(self, request: Request, id: str) -> Response:
        """Register a copy with the same address or command and the same credentials."""
        return Response(self._shown(registry.clone_server(self.get_object(), **CloneIn(data=request.data).given())), status=201)

    @extend_schema(request=EmptySerializer, responses=ConnectionOut)
    @action(detail=True, methods=["post"])
    def probe(self, request: Request, id: str) -> Response:
        """Connect and ask for the first page of tools; what was found becomes the server's state."""
        take_nothing(request)
        return Response(ConnectionOut(test_connection(self.get_object())).data)

    @extend_schema(request=ServerTest, responses=ConnectionOut)
    @action(detail=False, methods=["post"], url_path="test-connection")
    def test(self, request: Request) -> Response:
        """Try settings before registering them; nothing is kept."""
        given = ServerTest(data=request.data).given()
        return Response(ConnectionOut(test_connection(**({"slug": "test"} | given))).data)

    @extend_schema(request=ImportIn, responses=ImportedOut(many=True))
    @action(detail=False, methods=["post"], url_path="import", pagination_class=None, filterset_class=None)
    def import_(self, request: Request) -> Response:
        """Register or update the servers of an `mcpServers` document; one result for each."""
        given = ImportIn(data=request.data).given()
        results = transfer.import_servers(given["document"], dry_run=given.get("dry_run", False))
        return Response(ImportedOut(results, many=True).data)

    @extend_schema(responses={200: {"type": "object"}})
    @action(detail=False, methods=["get"])
    def export(self, request: Request) -> Response:
        """Return the servers as an `mcpServers` document; secrets are placeholders."""
        return Response(transfer.export_servers())

    @extend_schema(request=CredentialIn, responses=ServerOut, methods=["POST"])
    @action(detail=True, methods=["post"])
    def credentials(self, request: Request, id: str) -> Response:
        """Store a header or an environment variable, encrypted; what had the name is replaced."""
        server = self.get_object()
        credentials.set_credential(server, **CredentialIn(data=request.data).given())
        return Response(self._shown(server))

    @extend_schema(request=CredentialName, responses=ServerOut)
    @action(detail=True, methods=["post"], url_path="credentials/delete")
    def delete_credential(self, request: Request, id: str) -> Response:
        """Delete a header or an environment variable."""
        server = self.get_object()
        credentials.delete_credential(server, **CredentialName(data=request.data).given())
        return Response(self._shown(server))


class ProcessFilter(ApiFilterSet):
    """By server and by the data plane that has the process."""

    server = filters.CharFilter(method="by_server", label="Id or slug.")
    worker = filters.CharFilter()

    def by_server(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to the processes of a server, named by id or slug."""
        key = as_uuid(value)
        return rows.filter(endpoint__server_id=key) if key else rows.filter(endpoint__server__slug=value)


class ProcessesViewSet(ListModelMixin, RetrieveModelMixin, KindViewSet):
    """Processes that run for stdio servers."""

    model = UpstreamProcess
    kind = "process"
    slug_field: ClassVar[str | None] = None
    serializer_class = ProcessOut
    filterset_class = ProcessFilter
    ordering_fields = ("started_at",)

    def rows(self) -> QuerySet[Any]:
        """Return the processes of the servers in view."""
        return selectors.processes().order_by("-started_at", "id")

    @extend_schema(request=EmptySerializer, responses={202: ProcessOut})
    @action(detail=True, methods=["post"])
    def kill(self, request: Request, id: str) -> Response:
        """Order the data plane that has it to end the process; the next call starts another."""
        take_nothing(request)
        process = self.get_object()
        processes.kill_process(process)
        return Response(ProcessOut(process).data, status=202)
