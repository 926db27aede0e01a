"""Errors as `application/problem+json` (RFC 9457), whatever raised them."""

import logging
from typing import Any

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import DataError, IntegrityError, OperationalError
from django.db.models import ProtectedError
from django.http import Http404, HttpRequest, JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response

from apps.common.errors import (
    AuthenticationRequired,
    Conflict,
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    NotReady,
    PermissionDenied,
    RateLimited,
    SwitchyardError,
    TooLarge,
    UnsupportedMediaType,
    ValidationFailed,
)

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
_RESERVED = ("type", "title", "status", "detail", "instance", "request_id")


class NotAcceptable(SwitchyardError):
    """None of the forms that the caller takes can be given."""

    slug, title, status, jsonrpc_code = "not-acceptable", "Not acceptable", 406, -32600


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """Answer any exception of an API view; DRF's setting EXCEPTION_HANDLER names this."""
    from rest_framework.views import set_rollback

    typed = as_typed(error)
    request = context.get("request")
    if typed.status >= 500 and not isinstance(error, SwitchyardError):
        logger.error("an API request failed", exc_info=error, extra={"request_id": request_id_of(request)})
    set_rollback()
    return Response(body_of(typed, request), status=typed.status, headers=headers_of(typed), content_type=CONTENT_TYPE)


def as_typed(error: Exception) -> SwitchyardError:
    """Return the typed error that says what an exception means to a caller; an unforeseen one tells nothing of itself."""
    if isinstance(error, SwitchyardError):
        return error
    if isinstance(error, exceptions.APIException):
        return _of_drf(error)
    if isinstance(error, DjangoValidationError):
        return ValidationFailed("The input is not valid.", errors=_messages(error))
    if isinstance(error, Http404):
        return NotFound("There is no such object.")
    if isinstance(error, DjangoPermissionDenied):
        return PermissionDenied("You may not do this.", rule="permission")
    if isinstance(error, RequestDataTooBig):
        return TooLarge("The body is too large.")
    if isinstance(error, SuspiciousOperation):
        return MalformedRequest("The request cannot be read.")
    if isinstance(error, ProtectedError):
        return Conflict("Other objects still refer to this one.")
    if isinstance(error, IntegrityError):
        return Conflict("Somebody else has just made or changed an object of this name; look again.")
    if isinstance(error, DataError):
        return ValidationFailed("A value cannot be stored: it is too long, too large, or holds a NUL character.")
    if isinstance(error, OperationalError):
        return NotReady("The database does not answer.", retry_after=2)
    return SwitchyardError("Something went wrong on our side; the request id helps to find it.")


def body_of(error: SwitchyardError, request: Any) -> dict[str, Any]:
    """Return the RFC 9457 object, with the request's path and id."""
    extra = {name: value for name, value in error.extra.items() if name not in _RESERVED}
    body = {"type": error.type, "title": error.title, "status": error.status, "detail": error.detail}
    if request is not None:
        body["instance"] = request.path
    if request_id := request_id_of(request):
        body["request_id"] = request_id
    return body | extra


def headers_of(error: SwitchyardError) -> dict[str, str]:
    """Return the headers that belong to an error: WWW-Authenticate, Retry-After, Allow."""
    headers: dict[str, str] = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="switchyard"'
    if error.extra.get("retry_after") is not None:
        headers["Retry-After"] = str(max(1, round(float(error.extra["retry_after"]))))
    if error.extra.get("allow"):
        headers["Allow"] = ", ".join(error.extra["allow"])
    return headers


def problem_response(error: SwitchyardError, request: HttpRequest) -> JsonResponse:
    """Return the answer to an error outside DRF."""
    return JsonResponse(body_of(error, request), status=error.status, headers=headers_of(error), content_type=CONTENT_TYPE)


def of_status(status: int) -> SwitchyardError:
    """Return the typed error for a bare HTTP status that Django answered."""
    known: dict[int, SwitchyardError] = {
        400: MalformedRequest("The request cannot be read."),
        401: AuthenticationRequired(),
        403: PermissionDenied("You may not do this.", rule="permission"),
        404: NotFound("There is nothing at this address."),
        405: MethodNotAllowed(),
        413: TooLarge("The body is too large."),
        503: NotReady(),
    }
    return known.get(status) or (MalformedRequest() if status < 500 else SwitchyardError("Something went wrong on our side."))


def request_id_of(request: Any) -> str:
    """Return the request's id, or an empty text."""
    return str(getattr(request, "request_id", "") or "")


def _of_drf(error: exceptions.APIException) -> SwitchyardError:
    match error:
        case exceptions.ValidationError():
            return ValidationFailed("The input is not valid.", errors=_details(error.detail))
        case exceptions.ParseError():
            return MalformedRequest(str(error.detail))
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return AuthenticationRequired("Give an API key: Authorization: Bearer sy_…")
        case exceptions.PermissionDenied():
            return PermissionDenied(str(error.detail), rule="permission")
        case exceptions.NotFound():
            return NotFound("There is no such object.")
        case exceptions.MethodNotAllowed():
            return MethodNotAllowed(str(error.detail))
        case exceptions.NotAcceptable():
            return NotAcceptable("The API answers application/json.")
        case exceptions.UnsupportedMediaType():
            return UnsupportedMediaType("Send application/json.")
        case exceptions.Throttled():
            return RateLimited("Too many requests.", retry_after=getattr(error, "wait", None) or 1)
        case _:
            return of_status(error.status_code)


def _details(detail: Any) -> dict[str, list[str]]:
    """Return DRF's details as field to messages; within lists and objects the field is `entries.0.pattern`.

    What belongs to no field stands under `non_field_errors`.
    """
    found: dict[str, list[str]] = {}
    _collect("", detail, found)
    return found


def _collect(name: str, detail: Any, found: dict[str, list[str]]) -> None:
    if isinstance(detail, dict):
        for key, value in detail.items():
            _collect(f"{name}.{key}" if name else str(key), value, found)
    elif isinstance(detail, list | tuple):
        for index, value in enumerate(detail):
            nested = isinstance(value, dict | list | tuple)
            _collect(f"{name}.{index}" if nested and name else name, value, found)
    else:
        found.setdefault(name or "non_field_errors", []).append(str(detail))


def _messages(error: DjangoValidationError) -> dict[str, list[str]]:
    if hasattr(error, "error_dict"):
        return {
            ("non_field_errors" if name == "__all__" else name): list(messages) for name, messages in error.message_dict.items()
        }
    return {"non_field_errors": list(error.messages)}
