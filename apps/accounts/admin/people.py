"""Users, their roles, and what roles allow."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth import update_session_auth_hash
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminSelectMultipleWidget

from apps.accounts.models import APIKey, Membership, Role, User
from apps.accounts.services.memberships import add_membership
from apps.accounts.services.users import activate_user, create_user, deactivate_user, set_password, update_user
from apps.audit.admin.history import history_panel
from apps.common.admin import Ask, ConsoleAdmin, verb
from apps.common.admin.base import model_url
from apps.common.admin.format import ago, count, plural
from apps.common.admin.panels import Panel
from apps.common.admin.states import state_badge
from apps.common.context import current_scope, tenant_scope


class UserForm(forms.ModelForm[User]):
    """A person or a service account; a new one may get a password and roles at once."""

    password_text = forms.CharField(
        required=False,
        strip=False,
        label="Password",
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="At least 12 characters. Empty = cannot sign in (a service account).",
    )
    roles = forms.ModelMultipleChoiceField(
        queryset=Role.unscoped.none(),
        required=False,
        widget=UnfoldAdminSelectMultipleWidget,
        help_text="What they may do here.",
    )
    console_request: HttpRequest | None = None

    class Meta:
        model = User
        fields = ("username", "first_name", "last_name", "email", "is_staff", "is_superuser")
        labels = {"is_staff": "May use the console", "is_superuser": "Superuser"}
        help_texts = {
            "is_staff": "Signs in here; what they see and do comes from their roles.",
            "is_superuser": "Stands above tenants and may do everything.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "roles" in self.fields:
            self.fields["roles"].queryset = Role.objects.select_related("tenant")  # type: ignore[attr-defined]
            self.fields["roles"].label_from_instance = lambda role: f"{role.name} in {role.tenant.name}"  # type: ignore[attr-defined]
        request = self.console_request
        if request is not None and not request.user.is_superuser:
            self.fields.pop("is_superuser", None)


class PasswordForm(forms.Form):
    """A new password, twice; for one's own, the present one as well."""

    current_password = forms.CharField(
        strip=False,
        label="Present password",
        widget=forms.PasswordInput(attrs={"class": "sy-input", "autocomplete": "current-password"}),
    )
    password = forms.CharField(
        strip=False, widget=forms.PasswordInput(attrs={"class": "sy-input", "autocomplete": "new-password"})
    )
    again = forms.CharField(
        strip=False, widget=forms.PasswordInput(attrs={"class": "sy-input", "autocomplete": "new-password"})
    )

    def prepare(self, request: HttpRequest, obj: Any) -> None:
        """Ask for the present password only of those whom it lets in."""
        if obj.pk != request.user.pk:
            del self.fields["current_password"]

    def clean(self) -> dict[str, Any]:
        """Compare the two."""
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("password") != cleaned.get("again"):
            self.add_error("again", "The two differ.")
        return cleaned


class RoleChoiceForm(forms.Form):
    """A role to give."""

    role = forms.ModelChoiceField(queryset=Role.unscoped.none(), widget=forms.Select(attrs={"class": "sy-input"}))

    def prepare(self, request: HttpRequest, obj: Any) -> None:
        """Offer the roles in view that the user does not have."""
        field: Any = self.fields["role"]
        field.queryset = Role.objects.select_related("tenant").exclude(memberships__user=obj)
        field.label_from_instance = lambda role: f"{role.name} in {role.tenant.name}"


def ask(title: str, submit: str, *sentences: str, danger: bool = False) -> Any:
    """Make the question of a verb with fixed sentences."""

    def asker(self: Any, request: HttpRequest, obj: Any) -> Ask:
        return Ask(title=title.format(obj), submit=submit, consequence=[*sentences], danger=danger)

    return asker


def ask_deactivate(self: Any, request: HttpRequest, user: User) -> Ask:
    """Say what is refused from then on."""
    keys = APIKey.objects.filter(owner=user, revoked_at__isnull=True).count()
    return Ask(
        title=f"Shut {user} out?",
        consequence=[
            f"They cannot sign in, and {plural(keys, 'key')} of theirs {'is' if keys == 1 else 'are'} refused. Nothing is deleted."
        ],
        submit="Shut out",
        danger=True,
    )


@admin.register(User)
class UserPages(ConsoleAdmin):
    """Users; a tenant's staff see the members of their tenant."""

    kind = "user"
    form = UserForm
    list_display = ("shown_name", "shown_state", "shown_roles", "shown_keys", "shown_sign_in")
    search_fields = ("username", "first_name", "last_name", "email")
    ordering = ("username",)
    add_words = "Add user"
    intro = "People who sign in here, and service accounts that own keys. What each may do comes from roles."
    add_fieldsets = (
        (None, {"fields": ("username", "password_text", "first_name", "last_name", "email")}),
        ("Rights", {"fields": ("roles", "is_staff", "is_superuser")}),
    )
    fieldsets = (
        (None, {"fields": ("username", "first_name", "last_name", "email")}),
        ("Rights", {"fields": ("is_staff", "is_superuser")}),
    )
    actions_detail = ("give_role", "new_password", "deactivate", "activate")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the users in view, with roles and the number of live keys."""
        scope = current_scope()
        rows = User.objects.all()
        if scope is not None and scope.tenant_id and not request.user.is_superuser:
            rows = rows.filter(pk__in=Membership.objects.values("user_id"))
        live = Q(api_keys__revoked_at__isnull=True)
        if scope is not None and scope.tenant_id:
            live &= Q(api_keys__tenant_id=scope.tenant_id)
        return rows.prefetch_related("memberships__role", "memberships__tenant").annotate(
            live_keys=Count("api_keys", filter=live, distinct=True)
        )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Leave the superuser switch to superusers."""
        fieldsets = super().get_fieldsets(request, obj)
        if request.user.is_superuser:
            return fieldsets
        return [
            (name, {**options, "fields": tuple(field for field in options["fields"] if field != "is_superuser")})
            for name, options in fieldsets
        ]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A user is shut out; what they did stays on record under their name."""
        return False

    def create(self, request: HttpRequest, form: Any) -> User:
        """Make a user, with password and roles."""
        data = form.cleaned_data
        with tenant_scope_of(data.get("roles") or ()):
            return create_user(
                username=data["username"],
                password=data["password_text"] or None,
                email=data.get("email", ""),
                first_name=data.get("first_name", ""),
                last_name=data.get("last_name", ""),
                is_staff=data.get("is_staff", True),
                is_superuser=data.get("is_superuser", False),
                roles=data.get("roles") or (),
            )

    def update(self, request: HttpRequest, obj: Any, form: Any) -> None:
        """Change what was changed."""
        update_user(obj, **{name: form.cleaned_data[name] for name in form.changed_data if name in UserForm.Meta.fields})

    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return name and state."""
        return {
            "title": obj.get_full_name() or obj.username,
            "badges": [state_badge("active" if obj.is_active else "inactive")]
            + ([format_html('<span class="sy-chip">Superuser</span>')] if obj.is_superuser else []),
            "facts": [
                ("user name", obj.username),
                ("e-mail", obj.email or "–"),
                ("last sign-in", ago(obj.last_login)),
                ("live keys", count(obj.live_keys)),
            ],
        }

    def panels(self, request: HttpRequest, obj: Any) -> list[Panel]:
        """Return roles and keys."""
        visible = {row.pk for row in Membership.objects.filter(user=obj)}
        roles = [
            {"row": row, "remove": model_url(Membership, "take_away", row.pk)}
            for row in obj.memberships.all()
            if row.pk in visible
        ]
        keys = APIKey.objects.filter(owner=obj).select_related("tenant").order_by("revoked_at", "-created_at")[:20]
        return [
            Panel("roles", "Roles", "console/panels/roles.html", {"roles": roles}, 20),
            Panel("keys", "API keys", "console/panels/keys.html", {"keys": keys}, 30),
            history_panel("user", obj.pk),
        ]

    @verb(
        description="Give role",
        permission="write",
        ask=ask("Give {} a role", "Give role", "In force within a second."),
        icon="add_moderator",
        form=RoleChoiceForm,
    )
    def give_role(self, request: HttpRequest, obj: User, form: Any) -> str:
        """Make them a member."""
        role = form.cleaned_data["role"]
        with tenant_scope(role.tenant_id):
            add_membership(obj, role)
        return f"{obj} is {role.name} now."

    @verb(
        description="New password",
        permission="admin",
        ask=ask("Set a password for {}", "Set password", "They are signed out everywhere."),
        icon="password",
        form=PasswordForm,
    )
    def new_password(self, request: HttpRequest, obj: User, form: Any) -> str:
        """Set it; whoever changes their own stays signed in here."""
        user = set_password(obj, form.cleaned_data["password"], current=form.cleaned_data.get("current_password"))
        if user.pk == request.user.pk:
            update_session_auth_hash(request, user)
        return f"The password of {obj} is set."

    @verb(
        description="Shut out",
        ask=ask_deactivate,
        icon="person_off",
        variant=ActionVariant.DANGER,
        applies=lambda user: user.is_active,
    )
    def deactivate(self, request: HttpRequest, obj: User, form: Any) -> str:
        """Shut them out."""
        deactivate_user(obj)
        return f"{obj} is shut out."

    @verb(
        description="Let in again",
        ask=ask("Let {} in again?", "Let in", "They can sign in, and their keys are accepted again."),
        icon="how_to_reg",
        applies=lambda user: not user.is_active,
    )
    def activate(self, request: HttpRequest, obj: User, form: Any) -> str:
        """Let them in."""
        activate_user(obj)
        return f"{obj} can sign in again."

    @display(description="User", ordering="username")
    def shown_name(self, obj: User) -> SafeString:
        """Name them."""
        return format_html(
            '<span class="sy-name"><span class="sy-name-first">{}</span><span class="sy-name-line">{}</span></span>',
            obj.username,
            obj.get_full_name() or obj.email or ("service account" if not obj.has_usable_password() else ""),
        )

    @display(description="State", ordering="is_active")
    def shown_state(self, obj: User) -> SafeString:
        """Show whether they are let in."""
        return state_badge("active" if obj.is_active else "inactive")

    @display(description="Roles")
    def shown_roles(self, obj: User) -> SafeString | str:
        """Show their roles in the tenants in view."""
        scope = current_scope()
        names = [
            row.role.name if scope and scope.tenant_id else f"{row.role.name} in {row.tenant.name}"
            for row in obj.memberships.all()
            if not (scope and scope.tenant_id) or str(row.tenant_id) == scope.tenant_id
        ]
        if obj.is_superuser:
            names.insert(0, "Superuser")
        return (
            format_html(
                '<span class="sy-chips">{}</span>',
                format_html_join("", '<span class="sy-chip">{}</span>', ((name,) for name in names[:4])),
            )
            if names
            else "–"
        )

    @display(description="Last sign-in", ordering="last_login")
    def shown_sign_in(self, obj: User) -> SafeString | str:
        """Show when they last signed in."""
        return ago(obj.last_login)

    @display(description="Live keys", ordering="live_keys")
    def shown_keys(self, obj: Any) -> str:
        """Show how many keys they hold."""
        return count(obj.live_keys)


def tenant_scope_of(roles: Any) -> Any:
    """Open the scope of the tenant that roles belong to, where none is in force."""
    from contextlib import nullcontext

    scope = current_scope()
    first = next(iter(roles), None)
    return nullcontext() if first is None or (scope and scope.tenant_id) else tenant_scope(first.tenant_id)
