"""unfold's settings: one accent colour, our styles and scripts, and a navigation that asks the policy. No models here."""

from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy

ACCENT = {
    "50": "oklch(97.8% .013 200)",
    "100": "oklch(94.6% .028 201)",
    "200": "oklch(89.5% .05 202)",
    "300": "oklch(83% .078 203)",
    "400": "oklch(76% .1 204)",
    "500": "oklch(64% .098 207)",
    "600": "oklch(48.5% .08 208)",
    "700": "oklch(42.5% .07 209)",
    "800": "oklch(37% .06 210)",
    "900": "oklch(32% .05 211)",
    "950": "oklch(24% .04 212)",
}


def _may_read(kind: str) -> Any:
    def allowed(request: HttpRequest) -> bool:
        from config.console.scope import may

        return may(request, f"{kind}.read")

    return allowed


def _sees_clients(request: HttpRequest) -> bool:
    from config.console.compatibility import allowed

    return allowed(request)


def _superuser(request: HttpRequest) -> bool:
    return bool(request.user.is_superuser)


def _item(title: str, icon: str, page: str, kind: str = "", **more: Any) -> dict[str, Any]:
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{page}"),
        **({"permission": _may_read(kind)} if kind else {}),
        **more,
    }


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Switchyard",
    "SITE_HEADER": "Switchyard",
    "SITE_SYMBOL": "conversion_path",
    "SITE_URL": None,
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("console/favicon.svg")},
    ],
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": "6px",
    "COLORS": {"primary": ACCENT},
    "STYLES": [lambda request: static("console/console.css")],
    "SCRIPTS": [lambda request: static("console/console.js")],
    "COMMAND": {"search_models": False, "show_history": False},
    "SIDEBAR": {
        "show_search": False,
        "command_search": True,
        "show_all_applications": False,
        "navigation": [
            {"title": "", "items": [_item("Overview", "space_dashboard", "index")]},
            {
                "title": "MCP",
                "items": [
                    _item(
                        "Servers",
                        "dns",
                        "servers_server_changelist",
                        "server",
                        badge="config.console.badges.servers",
                        badge_variant="danger",
                    ),
                    _item(
                        "Connections",
                        "link",
                        "servers_oauthconnection_changelist",
                        "server",
                        badge="config.console.badges.connections",
                        badge_variant="danger",
                    ),
                    _item(
                        "Tools",
                        "construction",
                        "tools_tool_changelist",
                        "tool",
                        badge="config.console.badges.held",
                        badge_variant="info",
                    ),
                    _item("Resources", "description", "tools_resource_changelist", "resource"),
                    _item("Templates", "data_object", "tools_resourcetemplate_changelist", "resource"),
                    _item("Prompts", "chat", "tools_prompt_changelist", "prompt"),
                    _item("Toolsets", "inventory_2", "tools_toolset_changelist", "toolset"),
                    _item("Compatibility", "join_inner", "compatibility", permission=_sees_clients),
                ],
            },
            {
                "title": "Access",
                "items": [
                    _item("API keys", "key", "accounts_apikey_changelist", "api_key"),
                    _item("Grants", "handshake", "tools_grant_changelist", "grant"),
                    _item("Limits", "speed", "gateway_limit_changelist", "limit"),
                    _item("Roles", "badge", "accounts_role_changelist", "role"),
                    _item("Members", "group", "accounts_membership_changelist", "membership"),
                    _item("Users", "person", "accounts_user_changelist", "user"),
                    _item("Tenants", "domain", "accounts_tenant_changelist", permission=_superuser),
                ],
            },
            {
                "title": "Record",
                "items": [
                    _item("Audit", "receipt_long", "audit_auditevent_changelist", "audit"),
                    _item("Inspector", "troubleshoot", "gateway_recording_changelist", "audit"),
                    _item("Processes", "memory", "servers_upstreamprocess_changelist", "process"),
                    _item("Schedules", "schedule", "django_celery_beat_periodictask_changelist", permission=_superuser),
                ],
            },
        ],
    },
}
