"""The screens that belong to no single model, with their addresses."""

from collections.abc import Callable
from typing import Any

from config.console import compatibility, messages, sight
from config.console.audit_export import export, progress
from config.console.audit_log import history, verification, verify
from config.console.overview import live
from config.console.playground import call
from config.console.scope import choose_tenant
from config.console.transfer import import_page


def screens() -> list[tuple[str, Callable[..., Any], str]]:
    """Return route, view and name of each screen."""
    return [
        ("choose-tenant/", choose_tenant, "choose_tenant"),
        ("import-servers/", import_page, "import_servers"),
        ("playground/<uuid:tool_id>/call/", call, "playground_call"),
        ("audit-log/verify/", verify, "audit_verify"),
        ("audit-log/verification/", verification, "audit_verification"),
        ("audit-log/history/<slug:kind>/<str:object_id>/", history, "audit_history"),
        ("audit-log/export/", export, "audit_export"),
        ("audit-log/export/progress/", progress, "audit_export_progress"),
        ("overview/live/", live, "overview_live"),
        ("compatibility/", compatibility.page, "compatibility"),
        ("compatibility/now/", sight.now_page, "compatibility_now"),
        ("recordings/<uuid:id>/live/", messages.live, "recording_live"),
        ("recordings/<uuid:id>/messages/<int:pk>/", messages.message, "recording_message"),
        ("recordings/<uuid:id>/file/", messages.file, "recording_file"),
    ]
