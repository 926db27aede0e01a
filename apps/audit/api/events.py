"""The audit log in the API: search, one event, the story of a call, verification."""

import json

from django.http import StreamingHttpResponse
from drf_spectacular.helpers import forced_singular_serializer
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.viewsets import ViewSet

from apps.audit import selectors
from apps.audit.api.serializers import EventPageOut, EventQuery, ExportQuery, VerificationOut, WholeEventOut
from apps.audit.formats import FORMATS
from apps.audit.services.export import Export
from apps.audit.services.reads import note_payloads_read
from apps.audit.services.verify import verify_log
from apps.common.api.serializers import InputSerializer
from apps.common.api.streaming import stream
from apps.common.api.views import ScopedAPIView
from apps.common.authorise import require
from apps.common.context import current_scope
from apps.common.errors import NotFound


class VerifyIn(InputSerializer):
    """How thoroughly."""

    columns = serializers.BooleanField(required=False, help_text="False leaves out the comparison of the search columns.")
    checkpoints = serializers.ListField(
        child=serializers.JSONField(),
        required=False,
        max_length=20_000,
        help_text="Signed checkpoints that were kept elsewhere, as objects or as lines of text, to hold the log against.",
    )
    public_keys = serializers.ListField(
        child=serializers.CharField(max_length=100),
        required=False,
        max_length=20,
        help_text="Keys to trust instead of the installation's own, base64url.",
    )


class AuditEventsViewSet(ScopedAPIView, ViewSet):
    """Events of the audit log, newest first."""

    lookup_url_kwarg = "id"
    lookup_field = "pk"
    lookup_value_regex = "[^/]+"

    def authorise(self, request: Request) -> None:
        """Ask for `audit.read`; verification asks for more in its service."""
        if self.action is None:
            return
        scope = current_scope()
        require("audit.read", tenant_id=scope.tenant_id if scope else None, kind="audit")

    def known_parameters(self) -> frozenset[str]:
        """Return the filters of the list, which are those of an export too."""
        if self.action == "export":
            return frozenset(ExportQuery().fields)
        return frozenset(EventQuery().fields) if self.action == "list" else frozenset()

    @extend_schema(parameters=[EventQuery], responses=forced_singular_serializer(EventPageOut))  # type: ignore[no-untyped-call]
    def list(self, request: Request) -> Response:
        """Search the log. A page may hold fewer events than asked for, or none, while `next` leads on."""
        query = EventQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        page = selectors.events(**query.validated_data)
        following = page.next_cursor and replace_query_param(request.build_absolute_uri(), "cursor", page.next_cursor)
        return Response(EventPageOut({"next": following, "results": page.events}).data)

    @extend_schema(parameters=[OpenApiParameter("id", str, "path", description="`<writer>-<seq>`.")], responses=WholeEventOut)
    def retrieve(self, request: Request, id: str) -> Response:
        """Return one event with its details and its place in the chain. Where it shows what a call carried, the look is recorded."""
        found = selectors.event(id)
        note_payloads_read([found])
        return Response(WholeEventOut(found).data)

    @extend_schema(
        parameters=[OpenApiParameter("call_id", str, "path")],
        responses=WholeEventOut(many=True),
        operation_id="audit_call_story",
    )
    @action(detail=False, methods=["get"], url_path="calls/(?P<call_id>[0-9a-f-]{36})")
    def calls(self, request: Request, call_id: str) -> Response:
        """Return every event of one call, in the order in which they were written. Where they show what it carried, the look is recorded."""
        found = selectors.call_story(call_id)
        note_payloads_read(found)
        return Response(WholeEventOut(found, many=True).data)

    @extend_schema(
        parameters=[ExportQuery],
        responses={
            (200, one.content_type.partition(";")[0]): OpenApiResponse(OpenApiTypes.BINARY, "One event a line, newest first.")
            for one in FORMATS.values()
        },
        operation_id="audit_export",
    )
    @action(detail=False, methods=["get"], url_path="export")
    def export(self, request: Request) -> StreamingHttpResponse:
        """Return every event that fits, as CSV, JSON lines or OCSF; streamed. What was taken, and how many rows, is an event itself."""
        query = ExportQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        filters = dict(query.validated_data)
        export = Export(filters.pop("format"), filters)
        return stream(request._request, export.chunks(), content_type=export.format.content_type, filename=export.filename)

    @extend_schema(request=VerifyIn, responses=VerificationOut)
    @action(detail=False, methods=["post"])
    def verify(self, request: Request) -> Response:
        """Check every chain of the log now; names the first bad row. Superusers only."""
        given = VerifyIn(data=request.data).given()
        if (documents := given.pop("checkpoints", None)) is not None:
            given["checkpoints"] = [one if isinstance(one, str) else json.dumps(one) for one in documents]
        return Response(VerificationOut(verify_log(**given)).data)

    @extend_schema(responses=WholeEventOut, operation_id="audit_last_verification")
    @action(detail=False, methods=["get"], url_path="last-verification")
    def last_verification(self, request: Request) -> Response:
        """Return the event of the last check; 404 when the log was never checked."""
        found = selectors.last_verification()
        if found is None:
            raise NotFound("The log has never been checked.")
        return Response(WholeEventOut(found).data)
