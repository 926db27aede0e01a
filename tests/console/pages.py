"""What pages there are, found in the console itself, so that a new one is never left out."""

from typing import Any

from django.contrib import admin
from django.urls import reverse

from apps.common.context import SYSTEM, tenant_scope

KINDS = {
    "servers.server": "server",
    "servers.upstreamprocess": "process",
    "servers.oauthconnection": "server",
    "tools.tool": "tool",
    "tools.resource": "resource",
    "tools.resourcetemplate": "resource",
    "tools.prompt": "prompt",
    "tools.instructions": "server",
    "tools.toolset": "toolset",
    "tools.grant": "grant",
    "accounts.apikey": "api_key",
    "accounts.role": "role",
    "accounts.membership": "membership",
    "accounts.user": "user",
    "accounts.tenant": "tenant",
    "audit.auditevent": "audit",
    "gateway.limit": "limit",
    "gateway.recording": "audit",
    "django_celery_beat.periodictask": "schedule",
}
"""Every registered model and the policy's kind of its pages; a new one must be added here with open eyes."""

PERSONAL = {"accounts.tenant", "django_celery_beat.periodictask"}
"""Pages that stand above tenants: superusers alone see the lists."""


def address(model: Any, page: str, *args: Any) -> str:
    """Return the address of an admin page."""
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def registered() -> list[tuple[Any, Any]]:
    """Return models and their pages."""
    return sorted(admin.site._registry.items(), key=lambda pair: pair[0]._meta.label_lower)


def lists() -> list[str]:
    """Return the addresses of all lists."""
    return [address(model, "changelist") for model, _ in registered()]


def objects_of(tenant: Any) -> dict[str, str]:
    """Return label to the address of one object's page, for the models that have rows in a tenant."""
    found = {}
    with tenant_scope(tenant.pk, SYSTEM):
        for model, _ in registered():
            if hasattr(model, "unscoped"):
                row = model.objects.first()
                if row is not None:
                    found[model._meta.label_lower] = address(model, "change", row.pk)
    return found
