"""Admin pages whose reads stay in scope and whose writes are services.

`ConsoleAdmin` asks the one policy for every permission and never lets the ORM write: a subclass says with `create`, `update`
and `remove` which service does it. `TenantAdmin` adds the tenant wall: rows, choices, autocomplete, filters, history and
pop-ups see the tenant in force, and a superuser who has chosen no tenant chooses one when something is made.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.admin import ModelAdmin
from unfold.dataclasses import UnfoldAction

from apps.common import authorise
from apps.common.admin.panels import Link, Panel
from apps.common.admin.verbs import SUPERUSER, note_denied, put_errors
from apps.common.context import current_scope, tenant_scope
from apps.common.errors import SwitchyardError
from apps.common.models import TenantModel

_COMPARISONS = ("__isnull", "__exact", "__in", "__id", "__gte", "__lte", "__gt", "__lt")
"""What a filter's link may say of its field, from the end of the name on."""


class ConsoleAdmin(ModelAdmin):
    """An admin page of Switchyard; see the module."""

    kind = ""
    """The policy's kind of these objects: `server`, `api_key` …"""
    list_per_page = 50
    list_max_show_all = 500
    show_full_result_count = False
    list_filter_sheet = True
    warn_unsaved_form = True
    compressed_fields = True
    save_as_continue = False
    empty_title = ""
    empty_text = ""
    """What the empty list says: the thing in a sentence."""
    empty_action: tuple[str, str] | None = None
    """The one next step: words and URL name."""
    add_words = ""
    """What making one is called: `Register server`."""
    list_words = ""
    """What the list is called, where that is not the model's plural."""
    intro = ""
    """One line above the list: what these things are."""
    change_form_template = "console/object.html"
    change_list_template = "console/list.html"

    # --- who may what ---------------------------------------------------------------------------------------------------
    def policy_allows(self, request: HttpRequest, verb: str, obj: Any = None) -> bool:
        """Ask the one policy about a verb on an object, or on the kind in the tenant in force."""
        if not request.user.is_active or not request.user.is_staff:
            return False
        answers: dict[tuple[str, str], bool] = request.__dict__.setdefault("console_answers", {})
        tenant_id = self.tenant_of(obj)
        asked = (f"{self.kind}.{verb}", str(tenant_id))
        if asked not in answers:
            answers[asked] = authorise.decide(asked[0], tenant_id=tenant_id).allowed
        if not answers[asked]:
            note_denied(request, SUPERUSER if tenant_id is None else asked[0])
        return answers[asked]

    def tenant_of(self, obj: Any) -> Any:
        """Return the tenant an object belongs to; without one, the tenant in force."""
        tenant_id = getattr(obj, "tenant_id", None)
        scope = current_scope()
        return tenant_id or (scope.tenant_id if scope else None)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Tell whether these pages stand in the navigation."""
        return self.policy_allows(request, "read")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Ask the policy about reading."""
        return self.policy_allows(request, "read", obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Ask the policy about making one."""
        return self.policy_allows(request, "write")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Ask the policy about changing."""
        return self.policy_allows(request, "write", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Ask the policy about deleting."""
        return self.policy_allows(request, "delete", obj)

    def has_view_or_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Ask about reading, then about changing; what a page lacks is named as reading."""
        if super().has_view_or_change_permission(request, obj):
            return True
        self.has_view_permission(request, obj)
        return False

    def hides_verb(self, request: HttpRequest, name: str, obj: Any) -> bool:
        """Tell whether a verb is left out for this person, though the policy's permission and the object would allow it."""
        return False

    def has_write_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Ask the policy about changing (bulk verbs name permissions so)."""
        return self.policy_allows(request, "write", obj)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Let an address ask only what the filters of the page ask.

        Django lets any field of the model pass, with any comparison: that reads hashes character by character and runs regular
        expressions of a reader's own.
        """
        asked = lookup
        for ending in _COMPARISONS:
            asked = asked.removesuffix(ending)
        return asked in self._filtered(request)

    def _filtered(self, request: HttpRequest | None) -> set[str]:
        names: set[str] = {self.date_hierarchy} if self.date_hierarchy else set()
        for one in self.get_list_filter(request) if request is not None else self.list_filter:
            field = one[0] if isinstance(one, (list, tuple)) else one
            names.add(field if isinstance(field, str) else field.parameter_name)
        return names

    # --- writes are services ----------------------------------------------------------------------------------------------
    def create(self, request: HttpRequest, form: forms.ModelForm[Any]) -> Any:
        """Make an object by its service and return it."""
        raise PermissionDenied(f"{self.opts.verbose_name_plural} are not made here.")

    def update(self, request: HttpRequest, obj: Any, form: forms.ModelForm[Any]) -> None:
        """Change an object by its service; `form.changed_data` names what changed."""
        raise PermissionDenied(f"{self.opts.verbose_name_plural} are not changed here.")

    def remove(self, request: HttpRequest, obj: Any) -> None:
        """Delete an object by its service."""
        raise PermissionDenied(f"{self.opts.verbose_name_plural} are not deleted here.")

    @contextmanager
    def writing(self, request: HttpRequest, obj: Any = None) -> Iterator[None]:
        """Open the scope in which a write runs."""
        yield

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Call the service instead of the ORM."""
        if change:
            if form.changed_data:
                fresh = self.get_queryset(request).get(pk=obj.pk)
                with self.writing(request, fresh):
                    self.update(request, fresh, form)
            return
        with self.writing(request, obj):
            made = self.create(request, form)
        obj.__dict__.update(made.__dict__)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Do nothing: what belongs to an object is written by its service."""

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Call the service instead of the ORM."""
        with self.writing(request, obj):
            self.remove(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Call the service for each chosen row."""
        for obj in queryset:
            self.delete_model(request, obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Say the consequence in numbers instead of listing rows."""
        said = [" ".join([f"{obj}.", *self.consequences(request, "delete", obj)]) for obj in objs]
        lacking = {str(self.opts.verbose_name) for obj in objs if not self.has_delete_permission(request, obj)}
        return said, {str(self.opts.verbose_name_plural): len(said)}, lacking, []

    def _changeform_view(self, request: HttpRequest, object_id: Any, form_url: str, extra_context: Any) -> Any:
        """Show the form again, with its messages, when a service refuses."""
        try:
            return super()._changeform_view(request, object_id, form_url, extra_context)
        except SwitchyardError as error:
            if request.method != "POST":
                raise
            request.console_error = error  # type: ignore[attr-defined]
            return super()._changeform_view(request, object_id, form_url, extra_context)

    def _delete_view(self, request: HttpRequest, object_id: Any, extra_context: Any) -> Any:
        try:
            return super()._delete_view(request, object_id, extra_context)
        except SwitchyardError as error:
            messages.error(request, error.detail)
            return HttpResponseRedirect(self.list_url())

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Turn a refusal of a bulk action into a message."""
        try:
            answer: HttpResponse | None = super().response_action(request, queryset)
            return answer
        except SwitchyardError as error:
            messages.error(request, error.detail)
            return HttpResponseRedirect(request.get_full_path())

    def response_post_save_add(self, request: HttpRequest, obj: Any) -> HttpResponse:
        """Lead to what was made."""
        if self.has_view_permission(request, obj):
            return HttpResponseRedirect(self.page_url(obj))
        answer: HttpResponse = super().response_post_save_add(request, obj)
        return answer

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form class; it carries the request and the refusal of a service, if there was one."""
        made = super().get_form(request, obj, change=change, **kwargs)

        class Refusable(made):  # type: ignore[misc,valid-type]
            """The form with what the service said of it."""

            console_request = request

            def _post_clean(self) -> None:
                super()._post_clean()
                error = getattr(request, "console_error", None)
                if error is not None and self.is_bound:
                    put_errors(self, error)

        Refusable.__name__ = made.__name__
        return Refusable

    # The log of record is the audit log; Django's own stays empty.
    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> None:
        """Do nothing: the service has audited it."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> None:
        """Do nothing: the service has audited it."""

    def log_deletions(self, request: HttpRequest, queryset: Any) -> None:
        """Do nothing: the service has audited it."""

    # --- pages --------------------------------------------------------------------------------------------------------------
    def page_url(self, obj: Any) -> str:
        """Return the address of an object's page."""
        return reverse(f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_change", args=(obj.pk,))

    def list_url(self) -> str:
        """Return the address of the list."""
        return reverse(f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_changelist")

    def verb_url(self, name: str, obj: Any = None) -> str:
        """Return the address of a verb."""
        url = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_{name}"
        return reverse(url, args=(obj.pk,)) if obj is not None else reverse(url)

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Lead to the audit timeline on the object's page."""
        obj = self.get_object(request, object_id)
        if obj is None or not self.has_view_permission(request, obj):
            raise PermissionDenied
        return HttpResponseRedirect(f"{self.page_url(obj)}#history")

    def get_object(self, request: HttpRequest, object_id: Any, from_field: Any = None) -> Any:
        """Return the object in scope, looked up once per request."""
        seen: dict[Any, Any] = request.__dict__.setdefault("console_objects", {})
        asked = (self.model, str(object_id), from_field)
        if asked not in seen:
            seen[asked] = super().get_object(request, object_id, from_field)
        return seen[asked]

    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return the object page's header: `title`, `state` (a badge), `facts` as (word, value) pairs, `lead` (one line)."""
        return {"title": str(obj)}

    def panels(self, request: HttpRequest, obj: Any) -> Sequence[Panel]:
        """Return the parts of the object's page."""
        return ()

    def links(self, request: HttpRequest, obj: Any) -> Sequence[Link]:
        """Return the links in the header of the object's page."""
        return ()

    def consequences(self, request: HttpRequest, verb: str, obj: Any) -> list[str]:
        """Return, in sentences with numbers, what a verb (`pause`, `delete` …) on an object would do."""
        return []

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        """Add header, panels and links to an object's page."""
        if obj is not None and not add:
            panels = sorted(self.panels(request, obj), key=lambda panel: panel.place)
            context |= {
                "head": self.header(request, obj),
                "panels_before": [panel for panel in panels if panel.place < 60],
                "panels_after": [panel for panel in panels if panel.place >= 60],
                "panels_all": panels,
                "links": self.links(request, obj),
                "show_form": self.shows_form(request, obj),
            }
        context |= {"show_save_and_add_another": False, "show_delete": False, "show_save_and_continue": change}
        page: HttpResponse = super().render_change_form(request, context, add=add, change=change, form_url=form_url, obj=obj)
        return page

    def shows_form(self, request: HttpRequest, obj: Any) -> bool:
        """Tell whether the page has a configuration section."""
        return bool(self.get_fieldsets(request, obj))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Add tabs, the line about these things and the empty state to a list."""
        extra = {
            "tabs": self.tabs(request) if self.has_view_permission(request) else [],
            "intro": self.intro,
            "empty": {
                "title": self.empty_title,
                "text": self.empty_text,
                "action": self.empty_action and (self.empty_action[0], reverse(self.empty_action[1])),
            },
            "title": str(self.opts.verbose_name_plural)[:1].upper() + str(self.opts.verbose_name_plural)[1:],
            **(extra_context or {}),
        }
        page: HttpResponse = super().changelist_view(request, extra)
        return page

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Give the rows of the page what their columns need, in a constant number of queries."""
        listing = super().get_changelist_instance(request)
        rows = list(listing.result_list)
        listing.result_list = rows
        listing.full_result_count = listing.result_count  # the total is on the tabs; counting twice tells nothing more
        self.decorate(request, rows)
        return listing

    def decorate(self, request: HttpRequest, rows: list[Any]) -> None:
        """Set on each row what its columns need beside its own fields."""

    def tabs(self, request: HttpRequest) -> list[dict[str, Any]]:
        """Return the tabs above the list: `title`, `href`, `count`, `active`, `tone`."""
        return []

    def _filter_unfold_actions_by_permissions(
        self, request: HttpRequest, actions: list[UnfoldAction], object_id: Any = None
    ) -> list[UnfoldAction]:
        """Keep the actions that the policy allows and that make sense for the object."""
        obj = self.get_object(request, object_id) if object_id else None
        kept = []
        for action in actions:
            method: Any = action.method
            applies = getattr(method, "applies", None)
            if not self.policy_allows(request, method.permission, obj):
                continue
            if getattr(method, "superuser", False) and not request.user.is_superuser:
                continue
            if obj is not None and (
                (applies is not None and not applies(obj)) or self.hides_verb(request, method.__name__, obj)
            ):
                continue
            kept.append(action)
        return kept

    def get_actions(self, request: HttpRequest) -> Any:
        """Leave out Django's own bulk deletion where nothing is deleted in bulk."""
        actions = super().get_actions(request)
        if "delete_selected" in actions and "delete_selected" not in (self.actions or ()):
            del actions["delete_selected"]
        return actions


class TenantAdmin(ConsoleAdmin):
    """An admin page of a tenant's rows; see the module."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows of the tenant in force."""
        rows: QuerySet[Any] = self.model.objects.all()
        ordering = self.get_ordering(request)
        return rows.order_by(*ordering) if ordering else rows

    @contextmanager
    def writing(self, request: HttpRequest, obj: Any = None) -> Iterator[None]:
        """Open the scope of the tenant that the object belongs to, or is made for."""
        tenant_id = getattr(obj, "tenant_id", None) or getattr(request, "console_tenant_id", None)
        if tenant_id is None:
            yield
            return
        with tenant_scope(tenant_id):
            yield

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Offer only rows in scope."""
        related = db_field.remote_field.model
        if "queryset" not in kwargs and isinstance(related, type) and issubclass(related, TenantModel):
            kwargs["queryset"] = related.objects.all()
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        if field is not None:
            for allowed in ("can_add_related", "can_change_related", "can_delete_related", "can_view_related"):
                if hasattr(field.widget, allowed):
                    setattr(field.widget, allowed, False)
        return field

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Add the tenant for those who see several."""
        filters = list(super().get_list_filter(request))
        scope = current_scope()
        if scope is not None and scope.every_tenant and hasattr(self.model, "tenant_id"):
            filters.append("tenant")
        return filters

    def needs_tenant(self) -> bool:
        """Tell whether a new object's tenant must be chosen."""
        scope = current_scope()
        return scope is not None and scope.every_tenant

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Put the choice of a tenant first where one must be chosen."""
        fieldsets = list(super().get_fieldsets(request, obj))
        if obj is None and self.needs_tenant() and fieldsets:
            name, options = fieldsets[0]
            fieldsets[0] = (name, {**options, "fields": ("tenant", *[f for f in options["fields"] if f != "tenant"])})
        return fieldsets

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Let the form choose the tenant, and check the rest in its scope."""
        made = super().get_form(request, obj, change=change, **kwargs)
        return choose_tenant_form(made, request) if obj is None and self.needs_tenant() else made


def choose_tenant_form(made: Any, request: HttpRequest) -> Any:
    """Return the form with its choice of a tenant remembered for `TenantAdmin.writing`."""

    class Chosen(made):
        """The form with a tenant to choose."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            field = self.fields.get("tenant")
            if isinstance(field, forms.ModelChoiceField) and field.queryset is not None:
                field.queryset = field.queryset.filter(active=True)
                if not self.is_bound and len(first := list(field.queryset[:2])) == 1:
                    field.initial = first[0].pk

        def clean(self) -> Any:
            cleaned = super().clean()
            tenant = self.cleaned_data.get("tenant")
            if tenant is not None:
                request.console_tenant_id = tenant.pk  # type: ignore[attr-defined]
            return cleaned

    Chosen.__name__ = made.__name__
    return Chosen


def first_message(error: ValidationError | SwitchyardError) -> str:
    """Return the sentence that says what is wrong."""
    if isinstance(error, SwitchyardError):
        return error.detail
    return "; ".join(error.messages)


def site_url(name: str, *args: Any) -> str:
    """Return the address of a page of the console."""
    return reverse(f"{admin.site.name}:{name}", args=args)


def model_url(model: type[models.Model], page: str, *args: Any) -> str:
    """Return the address of a page of a model's admin: `changelist`, `change`, `add` or a verb."""
    return site_url(f"{model._meta.app_label}_{model._meta.model_name}_{page}", *args)
