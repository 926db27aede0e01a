"""Verbs of a server that concern what it offers; servers stand below tools and so cannot offer them themselves."""

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.common.api.serializers import EmptySerializer, take_nothing
from apps.common.api.views import ScopedAPIView
from apps.common.authorise import require
from apps.common.context import current_scope
from apps.servers.selectors import get_server
from apps.tools.api.serializers import ApproveAllIn, ApprovedOut
from apps.tools.services.discovery import discover_server
from apps.tools.services.review import approve_all


class DiscoveryOut(serializers.Serializer[Any]):
    """What came of a discovery; with `error` the server could not be asked and the catalogue is as it was."""

    ok = serializers.BooleanField()
    added = serializers.IntegerField()
    changed = serializers.IntegerField()
    held = serializers.IntegerField(help_text="Newly held for review.")
    removed = serializers.IntegerField()
    unchanged = serializers.IntegerField()
    waiting = serializers.IntegerField(help_text="Held or rejected before, and still so.")
    refused = serializers.IntegerField(help_text="Definitions that cannot be served.")
    names = serializers.DictField(help_text="Kind, then what became of them, to the first names.")
    error = serializers.CharField()
    error_type = serializers.CharField()
    era = serializers.CharField()
    duration_ms = serializers.FloatField()


class _ServerVerb(ScopedAPIView):
    def authorise(self, request: Request) -> None:
        """Ask for `server.write`."""
        scope = current_scope()
        require("server.write", tenant_id=scope.tenant_id if scope else None, kind="server")


class DiscoverServerView(_ServerVerb):
    """Asks a server what it offers."""

    @extend_schema(request=EmptySerializer, responses=DiscoveryOut, operation_id="servers_discover")
    def post(self, request: Request, id: str) -> Response:
        """Discover a server, addressed by id or slug, and wait for the result."""
        take_nothing(request)
        summary = discover_server(id)
        return Response(DiscoveryOut({**asdict(summary), "ok": summary.ok}).data)


class ApproveAllView(_ServerVerb):
    """Lets through what a server offers and what waits for review."""

    @extend_schema(request=ApproveAllIn, responses=ApprovedOut, operation_id="servers_approve_all")
    def post(self, request: Request, id: str) -> Response:
        """Put everything of a server that waits in force, except what the checks found suspicious."""
        given = ApproveAllIn(data=request.data).given()
        approved, left = approve_all(get_server(id), **given)
        return Response(ApprovedOut({"approved": approved, "left": left}).data)
