"""The routes of tools under `/api/v1/`."""

from django.urls import URLPattern, path

from apps.common.api.routers import ApiRouter
from apps.tools.api.catalogue import (
    InstructionsViewSet,
    PromptsViewSet,
    ResourcesViewSet,
    ResourceTemplatesViewSet,
    ToolsViewSet,
)
from apps.tools.api.discovery import ApproveAllView, DiscoverServerView
from apps.tools.api.toolsets import GrantsViewSet, ToolsetsViewSet


def register(router: ApiRouter) -> None:
    """Add the routes."""
    router.register("tools", ToolsViewSet, "tool")
    router.register("resources", ResourcesViewSet, "resource")
    router.register("resource-templates", ResourceTemplatesViewSet, "resource-template")
    router.register("prompts", PromptsViewSet, "prompt")
    router.register("instructions", InstructionsViewSet, "instructions")
    router.register("toolsets", ToolsetsViewSet, "toolset")
    router.register("grants", GrantsViewSet, "grant")


def paths() -> list[URLPattern]:
    """Return the addresses of verbs of objects that another app registers."""
    return [
        path("servers/<str:id>/discover/", DiscoverServerView.as_view(), name="server-discover"),
        path("servers/<str:id>/approve-all/", ApproveAllView.as_view(), name="server-approve-all"),
    ]
