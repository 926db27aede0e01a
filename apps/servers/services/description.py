"""A server's settings as plain values, for comparing and for the audit log."""

from collections.abc import Mapping
from typing import Any

from apps.common.events import ControlEvent
from apps.common.outbox import audit, changed
from apps.servers import rules
from apps.servers.models import Endpoint, Server

SERVER_FIELDS = frozenset({
    "name", "description", "transport", "review", "trust_annotations", "timeout_seconds", "max_concurrency", "idle_seconds",
    "auth", "oauth_scope",
})  # fmt: skip
"""What an operator may change on the server itself."""
ENDPOINT_FIELDS = frozenset({"url", "command", "args", "cwd"})
"""What an operator may change on its endpoint."""
CONNECTION_FIELDS = ENDPOINT_FIELDS | {"transport", "auth"}
"""What decides which address is reached or which command is started."""


def describe(server: Server, endpoint: Endpoint) -> dict[str, Any]:
    """Return every setting, by name. No credential is among them."""
    return {
        **{field: getattr(server, field) for field in sorted(SERVER_FIELDS)},
        **{field: getattr(endpoint, field) for field in sorted(ENDPOINT_FIELDS)},
    }


def loggable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they may be written to the log: without what looks like a secret among the arguments."""
    shown = dict(settings)
    if "auth" in shown:  # under this name it would be taken for a secret
        shown["authentication"] = shown.pop("auth")
    if "args" in shown:
        shown["args"] = rules.hide_secrets(shown["args"])
    return shown


def record(server: Server, event_type: str, details: dict[str, Any] | None = None, *, action: str = "server.write") -> None:
    """Write what was done to a server into the audit log, and tell every data plane that it has changed."""
    audit(
        ControlEvent(
            event_type=event_type,
            action=action,
            object_kind="server",
            object_id=str(server.pk),
            object_label=server.slug,
            tenant_id=str(server.tenant_id),
            server=server.slug,
            details=details or {},
        )
    )
    changed("server", server.pk, tenant_id=server.tenant_id)
