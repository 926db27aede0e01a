"""Grants: who may use what, in words."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.enums import ActionVariant

from apps.common.admin import Ask, TenantAdmin, bulk_verb, verb
from apps.common.admin.format import ago, plural
from apps.common.admin.states import state_badge
from apps.tools.models import Grant
from apps.tools.services.grants import grant, revoke_grant

SUBJECTS = {"user": "User", "role": "Role", "api_key": "API key"}


class GrantForm(forms.ModelForm[Grant]):
    """One subject, one object."""

    subject = forms.ChoiceField(
        choices=list(SUBJECTS.items()), label="To whom", widget=forms.Select(attrs={"class": "sy-input max-w-2xl"})
    )

    class Meta:
        model = Grant
        fields = ("effect", "user", "role", "api_key", "kind", "server", "toolset", "pattern")
        labels = {"kind": "Use of", "api_key": "API key"}
        help_texts = {"effect": "A deny wins over every allow."}

    def clean(self) -> dict[str, Any]:
        """Keep the subject and the object that were chosen, drop the rest."""
        cleaned: dict[str, Any] = super().clean() or {}
        chosen = cleaned.get("subject")
        for name in SUBJECTS:
            if name != chosen:
                cleaned[name] = None
            elif not cleaned.get(name):
                self.add_error(name, "Choose one.")
        wanted = {"server": "server", "toolset": "toolset", "tool": "pattern"}.get(cleaned.get("kind", ""))
        for name in ("server", "toolset", "pattern"):
            if name != wanted:
                cleaned[name] = "" if name == "pattern" else None
            elif not cleaned.get(name):
                self.add_error(name, "Say which.")
        return cleaned

    def _get_validation_exclusions(self) -> set[str]:
        """Leave the rules on rows to the service."""
        return {field.name for field in Grant._meta.get_fields()}

    def validate_constraints(self) -> None:
        """Leave the constraints to the service, which says them in words."""


def in_words(row: Grant) -> str:
    """Say what a grant gives."""
    if row.kind == Grant.Kind.SERVER:
        return f"everything of {row.server.slug}" if row.server else "a server"
    if row.kind == Grant.Kind.TOOLSET:
        return f"the toolset {row.toolset.slug}" if row.toolset else "a toolset"
    return f"tools named {row.pattern}"


def _ask(self: Any, request: HttpRequest, row: Grant) -> Ask:
    effect = "may no longer use" if row.effect == Grant.Effect.ALLOW else "is no longer kept from"
    return Ask(
        title="Take this grant back?",
        consequence=[
            f"{row.user or row.role or row.api_key} {effect} {in_words(row)}, unless another grant says so. In force within a second."
        ],
        submit="Take back",
        danger=True,
    )


def _ask_bulk(self: Any, request: HttpRequest, rows: list[Grant]) -> Ask:
    return Ask(
        title=f"Take back {plural(len(rows), 'grant')}?",
        consequence=[f"{row.user or row.role or row.api_key}: {in_words(row)}" for row in rows[:20]],
        submit="Take back",
        danger=True,
    )


@admin.register(Grant)
class GrantAdmin(TenantAdmin):
    """Grants of the tenants in view."""

    kind = "grant"
    form = GrantForm
    list_display = ("shown_subject", "shown_effect", "shown_object", "shown_since")
    list_display_links = ("shown_subject",)
    list_filter = ("effect", "kind")
    search_fields = ("user__username", "role__name", "api_key__name", "server__slug", "toolset__slug", "pattern")
    ordering = ("-created_at",)
    add_words = "Give access"
    intro = "Who may use which servers, toolsets and tools. Nothing is allowed without a grant; a deny wins over every allow."
    empty_title = "Nobody has been given anything"
    empty_text = "Superusers may use everything; everybody else needs a grant, directly, through a role, or through a key."
    empty_action = ("Give access", "admin:tools_grant_add")
    add_fieldsets = (
        (None, {"fields": ("effect", "subject", "user", "role", "api_key", "kind", "server", "toolset", "pattern")}),
    )
    fieldsets = ()
    conditional_fields = {
        "user": "subject == 'user'",
        "role": "subject == 'role'",
        "api_key": "subject == 'api_key'",
        "server": "kind == 'server'",
        "toolset": "kind == 'toolset'",
        "pattern": "kind == 'tool'",
    }
    actions = ("take_back_chosen",)
    actions_row = ("take_back",)
    actions_detail = ("take_back",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the grants in view with whom and what they name."""
        return super().get_queryset(request).select_related("user", "role", "api_key__owner", "server", "toolset", "tenant")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Show fields for a new grant alone."""
        return super().get_fieldsets(request, obj) if obj is None else ((None, {"fields": ()}),)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A grant is given or taken back, not edited."""
        return False if obj is not None else super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A grant is taken back by its own verb."""
        return False

    def shows_form(self, request: HttpRequest, obj: Any) -> bool:
        """There is nothing to configure."""
        return False

    def create(self, request: HttpRequest, form: Any) -> Grant:
        """Give it."""
        data = form.cleaned_data
        names = ("effect", "kind", "user", "role", "api_key", "server", "toolset", "pattern")
        return grant(**{name: data[name] for name in names if name in data})

    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Say it in words."""
        subject = obj.user or obj.role or obj.api_key
        verb = "may use" if obj.effect == Grant.Effect.ALLOW else "may not use"
        return {
            "title": f"{subject} {verb} {in_words(obj)}",
            "badges": [state_badge(obj.effect)],
            "facts": [("tenant", obj.tenant.name), ("since", ago(obj.created_at))],
        }

    @verb(description="Take back", ask=_ask, icon="remove_moderator", variant=ActionVariant.DANGER)
    def take_back(self, request: HttpRequest, obj: Grant, form: Any) -> HttpResponse:
        """Take it back and go to the list."""
        revoke_grant(obj)
        self.message_user(request, "The grant is taken back.")
        return HttpResponseRedirect(self.list_url())

    @bulk_verb(description="Take back", done="Took back", ask=_ask_bulk)
    def take_back_chosen(self, request: HttpRequest, obj: Grant) -> None:
        """Take back each."""
        revoke_grant(obj)

    @display(description="Who")
    def shown_subject(self, obj: Grant) -> SafeString:
        """Name the subject and its kind."""
        kind = "user" if obj.user_id else "role" if obj.role_id else "API key"
        return format_html(
            '<span class="sy-name"><span class="sy-name-first">{}</span><span class="sy-name-line">{}</span></span>',
            obj.user or obj.role or obj.api_key,
            kind,
        )

    @display(description="Effect", ordering="effect")
    def shown_effect(self, obj: Grant) -> SafeString:
        """Show allow or deny."""
        return state_badge(obj.effect)

    @display(description="Use of", ordering="kind")
    def shown_object(self, obj: Grant) -> SafeString:
        """Say what it gives."""
        return format_html('<span class="sy-wrap-any">{}</span>', in_words(obj))

    @display(description="Since", ordering="created_at")
    def shown_since(self, obj: Grant) -> SafeString | str:
        """Show since when."""
        return format_html('<span class="sy-card-hide">{}</span>', ago(obj.created_at))
