"""Numbers in the navigation; they run on every page, so they are kept for some seconds for each tenant in view."""

from collections.abc import Callable

from django.core.cache import cache
from django.http import HttpRequest

from apps.common.context import current_scope
from apps.servers import selectors as server_selectors
from apps.tools import selectors as tool_selectors
from config.console.scope import may

SECONDS = 15


def _kept(request: HttpRequest, name: str, action: str, count: Callable[[], int]) -> str:
    scope = current_scope()
    if scope is None or not may(request, action):
        return ""
    key = f"console-badge:{name}:{'all' if scope.every_tenant else scope.tenant_id}"
    number = cache.get(key)
    if number is None:
        number = count()
        cache.set(key, number, SECONDS)
    return str(number) if number else ""


def servers(request: HttpRequest) -> str:
    """Return how many servers need attention, or nothing."""
    return _kept(
        request,
        "servers",
        "server.read",
        lambda: server_selectors.servers().filter(state__in=("unhealthy", "unauthenticated", "degraded")).count(),
    )


def held(request: HttpRequest) -> str:
    """Return how many tools wait for review, or nothing."""
    return _kept(request, "held", "tool.read", lambda: tool_selectors.catalogue("tool", state="held").count())


def connections(request: HttpRequest) -> str:
    """Return how many connections have failed, or nothing."""
    return _kept(request, "connections", "server.write", lambda: server_selectors.connections(state="failed").count())
