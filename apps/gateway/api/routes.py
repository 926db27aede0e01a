"""The routes of the gateway under `/api/v1/`."""

from django.urls import URLPattern, path

from apps.common.api.routers import ApiRouter
from apps.gateway.api.compatibility import ClientsViewSet, CompatibilityViewSet
from apps.gateway.api.limits import LimitsViewSet
from apps.gateway.api.recordings import RecordingsViewSet
from apps.gateway.api.views import CallToolView, StatisticsViewSet


def register(router: ApiRouter) -> None:
    """Add the routes."""
    router.register("statistics", StatisticsViewSet, "statistics")
    router.register("clients", ClientsViewSet, "client")
    router.register("compatibility", CompatibilityViewSet, "compatibility")
    router.register("limits", LimitsViewSet, "limit")
    router.register("recordings", RecordingsViewSet, "recording")


def paths() -> list[URLPattern]:
    """Return the addresses that are no objects of their own."""
    return [path("tools/<str:id>/call/", CallToolView.as_view(), name="tool-call")]
