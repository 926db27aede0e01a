"""Middleware that belongs to the installation rather than to an app."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from apps.common.api.addresses import trusted_proxies
from apps.common.http_address import parse_networks

GetResponse = Callable[[HttpRequest], HttpResponse]


class ForwardedSchemeMiddleware:
    """Forgets `X-Forwarded-Proto` unless a proxy of SWITCHYARD_TRUSTED_PROXIES sent it, so nobody else can claim HTTPS."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Handle one request."""
        if "HTTP_X_FORWARDED_PROTO" in request.META and not self._trusted(request.META.get("REMOTE_ADDR") or ""):
            del request.META["HTTP_X_FORWARDED_PROTO"]
        return self.get_response(request)

    @staticmethod
    def _trusted(peer: str) -> bool:
        try:
            (address,) = parse_networks([peer])
        except ValueError:
            return False
        return any(address.version == network.version and address.network_address in network for network in trusted_proxies())
