"""How clients connect to a toolset, in the API: the console's snippets, which no app below may import."""

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.common.api.views import ScopedAPIView
from apps.common.authorise import require
from apps.common.context import current_scope
from apps.tools.selectors import get_toolset
from config.console.snippets import client_snippets, endpoint


class SnippetOut(serializers.Serializer[Any]):
    """One way to connect; the key is a placeholder."""

    name = serializers.CharField()
    title = serializers.CharField()
    note = serializers.CharField()
    text = serializers.CharField()


class ConnectOut(serializers.Serializer[Any]):
    """Where a toolset is served, and how each client program is told."""

    url = serializers.URLField()
    snippets = SnippetOut(many=True)


class ConnectView(ScopedAPIView):
    """Client snippets of a toolset."""

    def authorise(self, request: Request) -> None:
        """Ask for `toolset.read`."""
        scope = current_scope()
        require("toolset.read", tenant_id=scope.tenant_id if scope else None, kind="toolset")

    @extend_schema(responses=ConnectOut, operation_id="toolsets_connect")
    def get(self, request: Request, id: str) -> Response:
        """Return the address of a toolset (by id or slug) and what to paste into each client."""
        toolset = get_toolset(id)
        url = endpoint(settings.SWITCHYARD.public_url, toolset.slug)
        return Response(ConnectOut({"url": url, "snippets": client_snippets(url, toolset.slug)}).data)
