"""Recordings of messages in the API: switched on and off, listed, read under record, taken as JSON lines, deleted."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.common.api.pagination import CursorPagination
from apps.common.api.parameters import ApiFilterSet
from apps.common.api.serializers import EmptySerializer, take_nothing
from apps.common.api.views import TenantViewSet
from apps.gateway import selectors
from apps.gateway.api.serializers_recordings import MessageOut, MessagePageOut, MessageQuery, RecordingIn, RecordingOut
from apps.gateway.models import Recording
from apps.gateway.services import recordings as services


class RecordingFilter(ApiFilterSet):
    """By what is recorded."""

    class Meta:
        model = Recording
        fields = ("kind", "object_id")


class RecordingsViewSet(TenantViewSet):
    """Recordings of messages. That one exists is seen with `audit.read`; to switch one on and to look needs more."""

    model = Recording
    kind = "audit"
    slug_field = None
    serializer_class = RecordingOut
    filterset_class = RecordingFilter
    ordering_fields = ("created_at", "until")

    @property
    def words(self) -> str:
        """Return what they are called."""
        return "recording"

    def known_parameters(self) -> frozenset[str]:
        """Return those of the list, or of the messages."""
        if self.action == "messages":
            return frozenset({*MessageQuery().fields, "cursor", "limit"})
        return super().known_parameters()

    def rows(self) -> QuerySet[Any]:
        """Return the recordings in view."""
        return selectors.recordings()

    @extend_schema(request=RecordingIn, responses={201: RecordingOut})
    def create(self, request: Request) -> Response:
        """Record the messages of a server, toolset, API key or session from now on, for 5 to 60 minutes."""
        given = RecordingIn(data=request.data).given()
        row = services.start_recording(kind=given["kind"], ref=given["object"], minutes=given["minutes"])
        return Response(RecordingOut(row).data, status=201)

    @extend_schema(request=EmptySerializer, responses=RecordingOut)
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, id: str) -> Response:
        """End a recording now; what it holds stays for a day."""
        take_nothing(request)
        return Response(RecordingOut(services.stop_recording(self.get_object())).data)

    def destroy(self, request: Request, id: str) -> Response:
        """Delete a recording and what it holds."""
        services.delete_recording(self.get_object())
        return Response(status=204)

    @extend_schema(parameters=[MessageQuery], responses=MessagePageOut, operation_id="recording_messages")
    @action(detail=True, methods=["get"])
    def messages(self, request: Request, id: str) -> Response:
        """Return messages in the order in which they passed, page by page. The look is an event of the audit log."""
        recording = self.get_object()
        query = MessageQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        services.note_look(recording, "api")
        pages = CursorPagination()
        found = pages.paginate_queryset(selectors.messages_of(recording, **query.validated_data), request, self)
        return pages.get_paginated_response(MessageOut(found, many=True).data)

    @extend_schema(
        responses={(200, "application/x-ndjson"): OpenApiResponse(OpenApiTypes.BINARY, "One message a line.")},
        operation_id="recording_download",
    )
    @action(detail=True, methods=["get"])
    def download(self, request: Request, id: str) -> HttpResponse:
        """Return everything as JSON lines. The look is an event of the audit log."""
        recording = self.get_object()
        services.note_look(recording, "download")
        answer = HttpResponse(b"".join(selectors.json_lines(recording)), content_type="application/x-ndjson")
        answer["Content-Disposition"] = f'attachment; filename="recording-{recording.pk}.jsonl"'
        return answer
