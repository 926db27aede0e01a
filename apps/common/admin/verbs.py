"""Verbs: what an operator can do besides editing. Each asks first, says the consequence in numbers, and acts on POST alone.

`verb` makes an action of a list or an object page: GET shows the question (as a dialog where the page asks for it with
htmx, as a page of its own otherwise), POST with the CSRF token carries it out. `bulk_verb` makes the same for rows chosen
in a list. `view_link` marks an action that only leads somewhere. Nothing else may stand in the action lists of an admin.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.utils.http import url_has_allowed_host_and_scheme
from unfold.dataclasses import ActionDialog
from unfold.enums import ActionVariant

from apps.common.admin.format import plural
from apps.common.errors import SwitchyardError

SUPERUSER = "superuser"
"""Stands for a permission where superusers alone may."""


def note_denied(request: HttpRequest, action: str) -> None:
    """Remember what the policy has just denied, for the page that says so."""
    request.__dict__["console_denied"] = action


def denied_of(request: HttpRequest) -> str:
    """Return the permission that was denied last (`<kind>.<verb>` or SUPERUSER), or nothing."""
    return str(request.__dict__.get("console_denied", ""))


@dataclass(frozen=True, slots=True)
class Ask:
    """The question: what will happen, in numbers, and what the button says."""

    title: str
    submit: str
    consequence: Sequence[str] = ()
    """Whole sentences, the most important first."""
    danger: bool = False
    icon: str = ""
    template: str = ""
    """A part shown between the consequence and the form."""
    context: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer that is shown where the question stood, instead of going back to the page."""

    title: str
    template: str
    context: dict[str, Any] = field(default_factory=dict)


Asker = Callable[[Any, HttpRequest, Any], Ask]


def verb(
    *,
    description: str,
    ask: Asker,
    permission: str = "write",
    icon: str = "",
    form: type[forms.Form] | None = None,
    variant: ActionVariant = ActionVariant.DEFAULT,
    applies: Callable[[Any], bool] | None = None,
    url_path: str = "",
    superuser: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., HttpResponse]]:
    """Make a method `(self, request, obj, form) -> message | Shown | HttpResponse` into an action that asks first.

    `applies(obj)` hides it where it makes no sense; `permission` is the policy's verb; on a list `obj` is None.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., HttpResponse]:
        @wraps(function)
        def inner(self: Any, request: HttpRequest, object_id: str | None = None) -> HttpResponse:
            obj = None
            if object_id is not None:
                obj = self.get_object(request, object_id)
                if obj is None:
                    raise Http404
            if not self.policy_allows(request, permission, obj):
                raise PermissionDenied
            if superuser and not request.user.is_superuser:
                note_denied(request, SUPERUSER)
                raise PermissionDenied
            question = ask(self, request, obj)
            bound = form(request.POST or None, request.FILES or None) if form else None
            if bound is not None and hasattr(bound, "prepare"):
                bound.prepare(request, obj)
            error: SwitchyardError | None = None
            if request.method == "POST" and (bound is None or bound.is_valid()):
                try:
                    with self.writing(request, obj):
                        answer = function(self, request, obj, bound)
                except SwitchyardError as raised:
                    error = raised
                    if bound is not None:
                        put_errors(bound, raised)
                else:
                    return _answered(self, request, obj, question, answer)
            return _asked(self, request, obj, question, bound, error)

        _mark(inner, description, permission, icon, variant, url_path)
        inner.dialog = ActionDialog(title=description, description="", form_class=None, form_submit_text=None)  # type: ignore[attr-defined]
        inner.asks = True  # type: ignore[attr-defined]
        inner.applies = applies  # type: ignore[attr-defined]
        inner.superuser = superuser  # type: ignore[attr-defined]
        return inner

    return decorate


def view_link(
    *,
    description: str,
    permission: str = "read",
    icon: str = "",
    variant: ActionVariant = ActionVariant.DEFAULT,
    url_path: str = "",
) -> Callable[[Callable[..., Any]], Callable[..., HttpResponse]]:
    """Make a method `(self, request[, object_id]) -> HttpResponse` into an action that only reads."""

    def decorate(function: Callable[..., Any]) -> Callable[..., HttpResponse]:
        @wraps(function)
        def inner(self: Any, request: HttpRequest, **kwargs: Any) -> HttpResponse:
            if not self.policy_allows(request, permission, None):
                raise PermissionDenied
            answer: HttpResponse = function(self, request, **kwargs)
            return answer

        _mark(inner, description, permission, icon, variant, url_path)
        inner.reads = True  # type: ignore[attr-defined]
        return inner

    return decorate


def bulk_verb(
    *,
    description: str,
    ask: Callable[[Any, HttpRequest, list[Any]], Ask],
    done: str,
    permission: str = "write",
    limit: int = 500,
) -> Callable[[Callable[..., Any]], Callable[..., HttpResponse | None]]:
    """Make a method `(self, request, obj) -> None` into an action for chosen rows; `done` is its past participle ("Paused").

    At most `limit` rows at once. Each row is a unit of its own: one that is refused does not undo the others.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., HttpResponse | None]:
        @wraps(function)
        def inner(self: Any, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
            chosen = list(rows[: limit + 1])
            if len(chosen) > limit:
                messages.error(request, f"{description} works on at most {limit} rows at once; choose fewer.")
                return None
            if "confirmed" not in request.POST:
                context = {
                    **self.admin_site.each_context(request),
                    "opts": self.model._meta,
                    "title": description,
                    "ask": ask(self, request, chosen),
                    "chosen": chosen,
                    "action": inner.__name__,
                    "checkbox_name": ACTION_CHECKBOX_NAME,
                    "select_across": request.POST.get("select_across", "0"),
                    "media": self.media,
                }
                return TemplateResponse(request, "console/bulk_confirm.html", context)
            good = 0
            for obj in chosen:
                try:
                    with self.writing(request, obj):
                        function(self, request, obj)
                    good += 1
                except SwitchyardError as error:
                    messages.error(request, f"{obj}: {error.detail}{_reference(request)}")
            if good:
                messages.success(request, f"{done} {plural(good, self.opts.verbose_name, self.opts.verbose_name_plural)}.")
            return None

        inner.short_description = description  # type: ignore[attr-defined]
        inner.allowed_permissions = (permission,)  # type: ignore[attr-defined]
        inner.asks = True  # type: ignore[attr-defined]
        return inner

    return decorate


def put_errors(form: forms.Form, error: SwitchyardError) -> None:
    """Put the messages of an error where they belong: beside their fields, else above the form."""
    named: dict[str, Any] = error.extra.get("errors") or {}
    placed = False
    for name, texts in named.items():
        target = name if name in form.fields else None
        for text in [texts] if isinstance(texts, str) else texts:
            form.add_error(target, text if target else f"{name}: {text}" if name not in ("__all__", "") else text)
            placed = True
    if not placed:
        form.add_error(None, error.detail)


def _mark(inner: Any, description: str, permission: str, icon: str, variant: ActionVariant, url_path: str) -> None:
    inner.short_description = description
    inner.permission = permission
    inner.icon = icon or None
    inner.variant = variant
    inner.attrs = {}
    inner.original_function_name = inner.__name__
    if url_path:
        inner.url_path = url_path


def _reference(request: HttpRequest) -> str:
    request_id = getattr(request, "request_id", "")
    return f" (request {request_id})" if request_id else ""


def back_to(self: Any, request: HttpRequest, obj: Any) -> str:
    """Return where a verb leads back to: the page it was started on, else the object, else the list."""
    wanted = request.POST.get("next") or request.GET.get("next", "")
    if wanted and url_has_allowed_host_and_scheme(
        wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    ):
        return wanted
    return str(self.page_url(obj) if obj is not None else self.list_url())


def _answered(self: Any, request: HttpRequest, obj: Any, question: Ask, answer: Any) -> HttpResponse:
    if isinstance(answer, HttpResponse):
        location = answer.headers.get("Location")
        if request.headers.get("HX-Request") and location:
            return HttpResponse(headers={"HX-Redirect": location})
        return answer
    if isinstance(answer, Shown):
        return _dialog(self, request, obj, {"shown": answer, "ask": question, "dialog_title": answer.title})
    messages.success(request, str(answer))
    target = back_to(self, request, obj)
    if request.headers.get("HX-Request"):
        return HttpResponse(headers={"HX-Redirect": target})
    return HttpResponseRedirect(target)


def _asked(
    self: Any, request: HttpRequest, obj: Any, question: Ask, form: forms.Form | None, error: SwitchyardError | None
) -> HttpResponse:
    from_page = request.GET.get("next") or request.POST.get("next") or ""
    if not from_page and request.headers.get("HX-Current-URL"):
        from_page = request.headers["HX-Current-URL"]
    context = {"ask": question, "form": form, "error": error, "next": from_page, "dialog_title": question.title}
    return _dialog(self, request, obj, context)


def _dialog(self: Any, request: HttpRequest, obj: Any, context: dict[str, Any]) -> HttpResponse:
    whole = not request.headers.get("HX-Request")
    context |= {
        "request_id": getattr(request, "request_id", ""),
        "whole": whole,
        "back": self.page_url(obj) if obj is not None else self.list_url(),
        "opts": self.model._meta,
        "has_files": bool(context.get("form") and context["form"].is_multipart()),
    }
    if not whole:
        return render(request, "console/dialog.html", context)
    context |= {**self.admin_site.each_context(request), "title": context["dialog_title"], "original": obj}
    return TemplateResponse(request, "console/dialog_page.html", context)
