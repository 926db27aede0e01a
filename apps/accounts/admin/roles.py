"""Roles and memberships: named sets of permissions, and who has which."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.accounts.admin.people import ask
from apps.accounts.domain import KINDS, VERBS
from apps.accounts.models import Membership, Role, User
from apps.accounts.services.memberships import add_membership, remove_membership
from apps.accounts.services.roles import create_role, delete_role, update_role
from apps.audit.admin.history import history_panel
from apps.common.admin import TenantAdmin, verb
from apps.common.admin.base import model_url
from apps.common.admin.format import ago, count, plural
from apps.common.admin.panels import Panel


class RoleForm(forms.ModelForm[Role]):
    """A role; its permissions one in each line."""

    permissions = forms.CharField(
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 8, "spellcheck": "false"}),
        help_text=f"One in each line: kind.verb, * as either part. Kinds: {', '.join(KINDS)}. Verbs: {', '.join(VERBS)}.",
    )

    class Meta:
        model = Role
        fields = ("slug", "name", "permissions")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "permissions" in self.fields:
            self.initial["permissions"] = "\n".join(self.instance.permissions or [])

    def clean_permissions(self) -> list[str]:
        """Return the lines."""
        lines: list[str] = self.cleaned_data["permissions"].split()
        return lines


@admin.register(Role)
class RolePages(TenantAdmin):
    """Roles of the tenants in view."""

    kind = "role"
    form = RoleForm
    list_display = ("shown_name", "shown_permissions", "shown_members", "shown_kind")
    search_fields = ("slug", "name")
    ordering = ("name",)
    add_words = "Add role"
    intro = "A role is a named set of permissions. Six come with every tenant; make your own where they do not fit."
    fieldsets = ((None, {"fields": ("slug", "name", "permissions")}),)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the roles with how many people have them."""
        rows: QuerySet[Any] = super().get_queryset(request).annotate(people=Count("memberships"))
        return rows

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A built-in role is not changed."""
        return super().has_change_permission(request, obj) and not (obj is not None and obj.builtin)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A built-in role is not deleted."""
        return super().has_delete_permission(request, obj) and not (obj is not None and obj.builtin)

    def create(self, request: HttpRequest, form: Any) -> Role:
        """Make it."""
        data = form.cleaned_data
        return create_role(slug=data["slug"], name=data["name"], permissions=data["permissions"])

    def update(self, request: HttpRequest, obj: Any, form: Any) -> None:
        """Change what was changed."""
        update_role(obj, **{name: form.cleaned_data[name] for name in form.changed_data})

    def remove(self, request: HttpRequest, obj: Any) -> None:
        """Delete it."""
        delete_role(obj)

    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return the name and what it allows."""
        return {
            "title": obj.name,
            "badges": [format_html('<span class="sy-chip">Built in</span>')] if obj.builtin else [],
            "facts": [("slug", obj.slug), ("people", count(obj.people)), ("permissions", ", ".join(obj.permissions) or "none")],
        }

    def panels(self, request: HttpRequest, obj: Any) -> list[Panel]:
        """Return its history."""
        return [history_panel("role", obj.pk)]

    def shows_form(self, request: HttpRequest, obj: Any) -> bool:
        """Show the form where it may be changed."""
        return self.has_change_permission(request, obj)

    def consequences(self, request: HttpRequest, verb: str, obj: Any) -> list[str]:
        """Say how many people have it."""
        return [f"{plural(obj.people, 'person has', 'people have')} this role."]

    @display(description="Role", ordering="name")
    def shown_name(self, obj: Role) -> SafeString:
        """Name it."""
        return format_html(
            '<span class="sy-name"><span class="sy-name-first">{}</span><span class="sy-name-line">{}</span></span>',
            obj.name,
            obj.slug,
        )

    @display(description="Permissions")
    def shown_permissions(self, obj: Role) -> SafeString:
        """Show the first of them."""
        more = f" and {len(obj.permissions) - 4} more" if len(obj.permissions) > 4 else ""
        return format_html(
            '<span class="sy-mono" title="{}">{}</span>{}',
            ", ".join(obj.permissions),
            ", ".join(obj.permissions[:4]) or "none",
            more,
        )

    @display(description="People", ordering="people")
    def shown_members(self, obj: Any) -> str:
        """Show how many have it."""
        return count(obj.people)

    @display(description="Kind", ordering="builtin")
    def shown_kind(self, obj: Role) -> str:
        """Show whether it came with the tenant."""
        return "Built in" if obj.builtin else "Your own"


@admin.register(Membership)
class MembershipPages(TenantAdmin):
    """Who has which role."""

    kind = "membership"
    list_display = ("user", "role", "tenant", "shown_since")
    list_select_related = ("user", "role", "tenant")
    list_filter = ("role",)
    search_fields = ("user__username", "role__name", "role__slug")
    ordering = ("user__username",)
    add_words = "Add member"
    intro = "A person and what they may do in a tenant; one person may have several roles."
    fieldsets = ((None, {"fields": ("user", "role")}),)
    actions_row = ("take_away",)
    actions_detail = ("take_away",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A membership is given or taken away, not edited."""
        return False

    def create(self, request: HttpRequest, form: Any) -> Membership:
        """Give the role."""
        return add_membership(form.cleaned_data["user"], form.cleaned_data["role"])

    def remove(self, request: HttpRequest, obj: Any) -> None:
        """Take it away."""
        remove_membership(obj)

    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Say who has what."""
        return {"title": str(obj), "facts": [("tenant", obj.tenant.name), ("since", ago(obj.created_at))]}

    def shows_form(self, request: HttpRequest, obj: Any) -> bool:
        """There is nothing to configure."""
        return False

    @verb(
        description="Take role away",
        permission="delete",
        ask=ask(
            "Take this role away: {}?",
            "Take role away",
            "In force within a second. With the last role here, their keys in this tenant are revoked.",
            danger=True,
        ),
        icon="person_remove",
        variant=ActionVariant.DANGER,
    )
    def take_away(self, request: HttpRequest, obj: Membership, form: Any) -> HttpResponse:
        """Take it away and go back."""
        user_id = obj.user_id
        said = str(obj)
        remove_membership(obj)
        self.message_user(request, f"No longer so: {said}.")
        back = request.POST.get("next", "")
        return HttpResponseRedirect(model_url(User, "change", user_id) if f"/user/{user_id}/" in back else self.list_url())

    @display(description="Since", ordering="created_at")
    def shown_since(self, obj: Membership) -> SafeString | str:
        """Show since when."""
        return ago(obj.created_at)
