"""Middleware that every control-plane request passes."""

import re
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from apps.common.api.problems import CONTENT_TYPE, headers_of, of_status, problem_response
from apps.common.ids import short_id

_GIVEN = re.compile(r"[A-Za-z0-9._-]{8,64}")
_API = "/api/"


class RequestIdMiddleware:
    """Gives each request an id, or keeps a well-formed one, and names it in the answer (`X-Request-Id`)."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Handle one request."""
        given = request.headers.get("X-Request-Id", "")
        request.request_id = given if _GIVEN.fullmatch(given) else short_id()  # type: ignore[attr-defined]
        response = self.get_response(request)
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined]
        return response


class SecurityHeadersMiddleware:
    """Sets the headers that keep an answer in its place, where nothing closer to it has set them.

    No sniffing, no referrer outside, no device features, no window or resource shared with other origins. Answers of the API
    are not stored, and hold nothing that a browser may run.
    """

    _HEADERS = (
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "same-origin"),
        ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=(), browsing-topics=()"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("X-Frame-Options", "DENY"),
        ("X-Permitted-Cross-Domain-Policies", "none"),
    )
    _API_HEADERS = (
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    )

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Handle one request."""
        response = self.get_response(request)
        for name, value in self._HEADERS:
            response.headers.setdefault(name, value)
        if request.path.startswith(_API) and not response.get("Content-Type", "").startswith("text/html"):
            for name, value in self._API_HEADERS:
                response.headers[name] = value
        return response


class ApiProblemMiddleware:
    """Answers in the API's own words where Django answered before a view did: no such address, a refused host, a crash."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Handle one request."""
        response = self.get_response(request)
        if (
            response.status_code < 400
            or not request.path.startswith(_API)
            or response.get("Content-Type", "").startswith((CONTENT_TYPE, "application/json"))
        ):
            return response
        error = of_status(response.status_code)
        answer = problem_response(error, request)
        for name, value in headers_of(error).items():
            answer[name] = value
        if "Allow" in response:
            answer["Allow"] = response["Allow"]
        return answer
