"""Django's sign-in signals, written to the audit log."""

from typing import Any

from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest

from apps.accounts.services import authentication
from apps.common.api.addresses import request_address


def connect() -> None:
    """Listen to sign-ins, sign-outs and failures; called once, when the app is ready."""
    user_logged_in.connect(_logged_in, dispatch_uid="switchyard.login")
    user_logged_out.connect(_logged_out, dispatch_uid="switchyard.logout")
    user_login_failed.connect(_login_failed, dispatch_uid="switchyard.login_failed")


def _logged_in(sender: Any, request: HttpRequest | None, user: Any, **_: Any) -> None:
    authentication.record_login(user, **_where(request))


def _logged_out(sender: Any, request: HttpRequest | None, user: Any, **_: Any) -> None:
    if user is not None:
        authentication.record_logout(user, **_where(request))


def _login_failed(sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **_: Any) -> None:
    authentication.record_failed_login(str(credentials.get("username", "")), **_where(request))


def _where(request: HttpRequest | None) -> dict[str, str]:
    if request is None:
        return {}
    return {"address": request_address(request), "request_id": str(getattr(request, "request_id", ""))}
