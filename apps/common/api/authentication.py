"""Who calls the API: an API key as bearer token, or a session of the console (with its CSRF token)."""

from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.request import Request

from apps.common.api.addresses import request_address
from apps.common.api.identity import Caller, identity
from apps.common.api.problems import request_id_of
from apps.common.errors import AuthenticationRequired


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer sy_…` (RFC 6750, section 2.1). A key is never read from the address or the body."""

    def authenticate(self, request: Request) -> tuple[Any, Caller] | None:
        """Return the key's owner and who calls, None when no such header is there; raises AuthenticationRequired."""
        header = request.META.get("HTTP_AUTHORIZATION")
        if header is None:
            return None
        scheme, _, text = header.partition(" ")
        if scheme.lower() != "bearer" or not text.strip():
            raise AuthenticationRequired("Give an API key: Authorization: Bearer sy_…")
        caller = identity().of_key(text.strip(), address=request_address(request), request_id=request_id_of(request))
        return caller.user, caller

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge (RFC 9110, section 11.6.1)."""
        return 'Bearer realm="switchyard"'


class ConsoleAuthentication(SessionAuthentication):
    """The session of somebody signed in to the console; requests that change something need the CSRF token."""

    def authenticate(self, request: Request) -> tuple[Any, Caller] | None:
        """Return the user and who calls, None when nobody is signed in; raises PermissionDenied."""
        found = super().authenticate(request)
        if found is None:
            return None
        django_request = request._request
        caller = identity().of_session(
            django_request, address=request_address(django_request), request_id=request_id_of(django_request)
        )
        return found[0], caller


class _ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Names the API key in the schema."""

    target_class = "apps.common.api.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        """Describe it."""
        return {"type": "http", "scheme": "bearer", "description": "An API key: `sy_…`"}


class _ConsoleScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Names the session in the schema."""

    target_class = "apps.common.api.authentication.ConsoleAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        """Describe it."""
        return {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME, "description": "With X-CSRFToken"}
