"""Tools, resources, templates and prompts in the API."""

from typing import Any, ClassVar

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.common.api.parameters import ApiFilterSet
from apps.common.api.views import TenantViewSet
from apps.common.authorise import require
from apps.common.context import current_scope
from apps.servers.selectors import TRANSPORTS
from apps.tools import selectors
from apps.tools.api.filters import of_tenant
from apps.tools.api.serializers import (
    ApproveIn,
    DifferenceOut,
    EffectsIn,
    InstructionsOut,
    PromptOut,
    ResourceOut,
    ResourceTemplateOut,
    ReviewIn,
    ToolOut,
    UseOut,
)
from apps.tools.domain import difference, split_name
from apps.tools.models import Definition, Instructions, Prompt, Resource, ResourceTemplate, Tool
from apps.tools.services import review


class DefinitionFilter(ApiFilterSet):
    """By server, tenant, transport of the server, state and text."""

    server = filters.CharFilter(method="by_server", label="Id or slug.")
    tenant = filters.CharFilter(method="by_tenant", label="Id or slug.")
    transport = filters.ChoiceFilter(field_name="server__transport", choices=[(name, name) for name in TRANSPORTS])
    state = filters.ChoiceFilter(choices=Definition.State.choices)
    search = filters.CharFilter(method="by_text")

    def by_server(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to those of a server."""
        return rows.of_server(value)

    def by_tenant(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to one tenant of those in view."""
        return of_tenant(rows, value)

    def by_text(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to those with a text in name, title, description or server."""
        return rows.matching(value)


class ToolFilter(DefinitionFilter):
    """Also by the effects in force."""

    effects = filters.ChoiceFilter(choices=Tool.Effects.choices, method="by_effects")

    def by_effects(self, rows: Any, name: str, value: str) -> Any:
        """Narrow to tools with these effects in force."""
        return rows.in_force(value)


class _DefinitionsViewSet(TenantViewSet):
    slug_field: ClassVar[str | None] = None
    filterset_class = DefinitionFilter
    ordering_fields = ("name", "held_at", "created_at", "updated_at")
    kind_in_catalogue: ClassVar[str]

    def authorise(self, request: Request) -> None:
        """Ask for the right to read; who may use something is told to those who may read grants."""
        super().authorise(request)
        if self.action == "access":
            scope = current_scope()
            require("grant.read", tenant_id=scope.tenant_id if scope else None, kind="grant")

    def rows(self) -> QuerySet[Any]:
        """Return the definitions in view with their servers."""
        return selectors.catalogue(self.kind_in_catalogue).order_by("server__slug", "position", "id")

    def find(self, rows: QuerySet[Any], named: str) -> Any:
        """Return a definition by id or full name (`server__name`)."""
        slug, name = split_name(named)
        if slug and "\x00" not in named:
            found = list(rows.filter(server__slug=slug, name=name)[:2])
            if len(found) == 1:
                return found[0]
        return super().find(rows, named)

    @extend_schema(responses=DifferenceOut)
    @action(detail=True, methods=["get"])
    def difference(self, request: Request, id: str) -> Response:
        """Return what changed between the definition in force and the one that waits."""
        row = self.get_object()
        found = difference(row.definition, row.pending if row.pending is not None else row.definition)
        changes = [{"path": one.path, "kind": one.kind, "before": one.before, "after": one.after} for one in found.changes]
        shown = {"state": row.state, "expected_digest": row.pending_digest or row.digest, "unified": found.unified}
        return Response(DifferenceOut({**shown, "changes": changes}).data)

    @extend_schema(request=ApproveIn)
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, id: str) -> Response:
        """Put the definition that waits in force."""
        row = review.approve(self.get_object(), **ApproveIn(data=request.data).given())
        return Response(self.get_serializer(row).data)

    @extend_schema(request=ReviewIn)
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, id: str) -> Response:
        """Refuse the definition that waits; it stays unlisted."""
        row = review.reject(self.get_object(), **ReviewIn(data=request.data).given())
        return Response(self.get_serializer(row).data)

    @extend_schema(responses=UseOut(many=True))
    @action(detail=True, methods=["get"], pagination_class=None, filterset_class=None)
    def access(self, request: Request, id: str) -> Response:
        """Return who may use it and by which rule, and who was refused by which."""
        return Response(UseOut(selectors.who_may_use(self.get_object(), refused=True), many=True).data)


class ToolsViewSet(_DefinitionsViewSet):
    """Tools. A tool is addressed by id or full name, `server__tool`."""

    model = Tool
    kind = kind_in_catalogue = "tool"
    serializer_class = ToolOut
    filterset_class = ToolFilter

    @extend_schema(request=EffectsIn, responses=ToolOut)
    @action(detail=True, methods=["post"])
    def effects(self, request: Request, id: str) -> Response:
        """Say what a call may do; `unknown` takes the word back."""
        row = review.set_effects(self.get_object(), **EffectsIn(data=request.data).given())
        return Response(self.get_serializer(row).data)


class ResourcesViewSet(_DefinitionsViewSet):
    """Resources."""

    model = Resource
    serializer_class = ResourceOut
    kind = kind_in_catalogue = "resource"


class ResourceTemplatesViewSet(_DefinitionsViewSet):
    """Resource templates."""

    model = ResourceTemplate
    serializer_class = ResourceTemplateOut
    kind = "resource"
    kind_in_catalogue = "template"


class PromptsViewSet(_DefinitionsViewSet):
    """Prompts."""

    model = Prompt
    serializer_class = PromptOut
    kind = kind_in_catalogue = "prompt"


class InstructionsViewSet(_DefinitionsViewSet):
    """What servers tell every client at the start; reviewed like a definition."""

    model = Instructions
    serializer_class = InstructionsOut
    kind = "server"
    kind_in_catalogue = "instructions"
