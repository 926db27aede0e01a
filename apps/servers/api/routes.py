"""The routes of servers under `/api/v1/`."""

from apps.common.api.routers import ApiRouter
from apps.servers.api.connections import UpstreamConnectionsViewSet
from apps.servers.api.servers import ProcessesViewSet, ServersViewSet


def register(router: ApiRouter) -> None:
    """Add the routes."""
    router.register("servers", ServersViewSet, "server")
    router.register("upstream-connections", UpstreamConnectionsViewSet, "upstream-connection")
    router.register("processes", ProcessesViewSet, "process")
