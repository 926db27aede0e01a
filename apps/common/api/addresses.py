"""The caller's address in a Django request."""

from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest

from apps.common.http_address import Network, client_address, parse_networks


@lru_cache(maxsize=8)
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return parse_networks(texts)


def trusted_proxies() -> tuple[Network, ...]:
    """Return the proxies whose word is taken (SWITCHYARD_TRUSTED_PROXIES)."""
    return _networks(tuple(settings.SWITCHYARD.trusted_proxies))


def request_address(request: HttpRequest) -> str:
    """Return the caller's address, after trusted proxies; see `apps.common.http_address`."""
    headers = request.headers
    return client_address(
        request.META.get("REMOTE_ADDR") or "",
        headers.get("X-Forwarded-For", ""),
        trusted_proxies(),
        forwarded="Forwarded" in headers or "X-Real-Ip" in headers,
    )
