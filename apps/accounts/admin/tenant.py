"""Tenants: superusers make and shut them; their administrators name them and switch sampling."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.enums import ActionVariant

from apps.accounts import selectors
from apps.accounts.models import APIKey, Membership, Tenant
from apps.accounts.services.tenants import activate_tenant, create_tenant, deactivate_tenant, update_tenant
from apps.audit.admin.history import history_panel
from apps.common.admin import Ask, ConsoleAdmin, verb
from apps.common.admin.format import ago, count, plural
from apps.common.admin.panels import Panel
from apps.common.admin.states import state_badge


def ask_deactivate(self: Any, request: HttpRequest, tenant: Tenant) -> Ask:
    """Say who is shut out."""
    keys = APIKey.unscoped.filter(tenant=tenant, revoked_at__isnull=True).count()
    members = Membership.unscoped.filter(tenant=tenant).values("user").distinct().count()
    return Ask(
        title=f"Shut {tenant.name}?",
        consequence=[
            f"{plural(keys, 'key')} and {plural(members, 'member')} are refused at once. Nothing is deleted; it can be opened again."
        ],
        submit="Shut tenant",
        danger=True,
    )


def ask_activate(self: Any, request: HttpRequest, tenant: Tenant) -> Ask:
    """Say who is let in."""
    return Ask(
        title=f"Open {tenant.name} again?", consequence=["Its keys and members are accepted again."], submit="Open tenant"
    )


@admin.register(Tenant)
class TenantPages(ConsoleAdmin):
    """Tenants."""

    kind = "tenant"
    list_display = ("shown_name", "shown_state", "shown_members", "shown_keys", "shown_sampling", "shown_created")
    search_fields = ("slug", "name")
    add_words = "Add tenant"
    intro = "Each tenant has its own servers, toolsets, keys, people and record; nobody sees another's."
    fields = ("slug", "name", "sample_payloads")
    actions_detail = ("deactivate", "activate")

    def tenant_of(self, obj: Any) -> Any:
        """Return the tenant itself; without one, what stands above tenants."""
        return obj.pk if isinstance(obj, Tenant) else None

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Tell whether the list is in the navigation: superusers."""
        return bool(request.user.is_superuser)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the tenants that a person may choose, with figures."""
        members = (
            Membership.unscoped.filter(tenant=OuterRef("pk"))
            .order_by()
            .values("tenant")
            .annotate(n=Count("user", distinct=True))
            .values("n")
        )
        keys = (
            APIKey.unscoped.filter(tenant=OuterRef("pk"), revoked_at__isnull=True)
            .order_by()
            .values("tenant")
            .annotate(n=Count("pk"))
            .values("n")
        )
        return selectors.tenants_of(request.user).annotate(
            members=Coalesce(Subquery(members), 0), keys=Coalesce(Subquery(keys), 0)
        )

    def create(self, request: HttpRequest, form: Any) -> Tenant:
        """Make it with its built-in roles."""
        data = form.cleaned_data
        return create_tenant(slug=data["slug"], name=data["name"], sample_payloads=data["sample_payloads"])

    def update(self, request: HttpRequest, obj: Any, form: Any) -> None:
        """Change what was changed."""
        update_tenant(obj, **{name: form.cleaned_data[name] for name in form.changed_data})

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A tenant is shut, not deleted: its record stays."""
        return False

    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return name and state."""
        return {
            "title": obj.name,
            "badges": [state_badge("active" if obj.active else "inactive", word="Open" if obj.active else "Shut")],
            "facts": [
                ("slug", obj.slug),
                ("members", count(obj.members)),
                ("keys", count(obj.keys)),
                ("made", ago(obj.created_at)),
            ],
        }

    def panels(self, request: HttpRequest, obj: Any) -> list[Panel]:
        """Return its history."""
        return [history_panel("tenant", obj.pk)]

    @verb(
        description="Shut",
        ask=ask_deactivate,
        icon="block",
        variant=ActionVariant.DANGER,
        superuser=True,
        applies=lambda tenant: tenant.active,
    )
    def deactivate(self, request: HttpRequest, obj: Tenant, form: Any) -> str:
        """Shut it."""
        deactivate_tenant(obj)
        return f"{obj.name} is shut."

    @verb(description="Open", ask=ask_activate, icon="lock_open", superuser=True, applies=lambda tenant: not tenant.active)
    def activate(self, request: HttpRequest, obj: Tenant, form: Any) -> str:
        """Open it again."""
        activate_tenant(obj)
        return f"{obj.name} is open again."

    @display(description="Tenant", ordering="slug")
    def shown_name(self, obj: Tenant) -> SafeString:
        """Name it."""
        return format_html(
            '<span class="sy-name"><span class="sy-name-first">{}</span><span class="sy-name-line">{}</span></span>',
            obj.name,
            obj.slug,
        )

    @display(description="State", ordering="active")
    def shown_state(self, obj: Tenant) -> SafeString:
        """Show whether it is open."""
        return state_badge("active" if obj.active else "inactive", word="Open" if obj.active else "Shut")

    @display(description="Members", ordering="members")
    def shown_members(self, obj: Any) -> str:
        """Show how many people have a role in it."""
        return count(obj.members)

    @display(description="Live keys", ordering="keys")
    def shown_keys(self, obj: Any) -> str:
        """Show how many keys are not revoked."""
        return count(obj.keys)

    @display(description="Samples")
    def shown_sampling(self, obj: Tenant) -> str:
        """Show whether redacted samples are kept."""
        return "Redacted samples and digests" if obj.sample_payloads else "Digests alone"

    @display(description="Made", ordering="created_at")
    def shown_created(self, obj: Tenant) -> SafeString | str:
        """Show since when it is there."""
        return ago(obj.created_at)
