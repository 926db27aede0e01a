"""A body with which each changing route succeeds in a world."""

from typing import Any

from tests.api.routes import Route
from tests.api.world import NOWHERE, World
from tests.factories import unique

NOTHING: dict[str, Any] = {}


def body_for(route: Route, world: World) -> Any:
    """What to send; None for reading and deleting."""
    if route.method in ("get", "delete"):
        return None
    made: dict[str, dict[str, Any]] = {
        "tenant-list": {"slug": unique("tenant")[:40]},
        "user-list": {"username": unique("user"), "roles": [world.spare_role.slug]},
        "membership-list": {"user": world.member.username, "role": world.spare_role.slug},
        "role-list": {"slug": unique("role")[:40], "permissions": ["tool.read"]},
        "api-key-list": {"name": "made"},
        "server-list": {"slug": unique("made")[:40], "transport": "http", "url": NOWHERE},
        "server-oauth-client": {"issuer": "https://auth.example.com", "client_id": "ours", "client_secret": unique("secret")},
        "server-clone": {"slug": unique("clone")[:40]},
        "server-credentials": {"kind": "header", "name": "X-Team", "value": "blue"},
        "server-delete-credential": {"kind": "header", "name": "Authorization"},
        "server-import-": {"document": {"mcpServers": {unique("imported")[:40]: {"url": NOWHERE}}}},
        "server-test": {"transport": "http", "url": NOWHERE},
        "server-bulk-pause": {"servers": [world.server.slug]},
        "server-bulk-resume": {"servers": [str(world.server.pk)]},
        "tool-effects": {"effects": "read-only"},
        "tool-call": {"arguments": {}},
        "recording-list": {"kind": "server", "object": world.server.slug, "minutes": 5},
        "toolset-list": {"slug": unique("set")[:40], "entries": []},
        "toolset-preview": {"entries": []},
        "audit-retention-list": {"family": "calls", "days": 90},
        "limit-list": {"subject": "role", "role": str(world.spare_role.pk), "amount": 5, "window": "hour"},
        "grant-list": {"kind": "tool", "role": str(world.spare_role.pk), "pattern": f"{world.server.slug}__*"},
    }
    if route.name.endswith("-approve"):
        kind = route.name.removesuffix("-approve")
        return {"expected_digest": world.definitions[kind if kind == "instructions" else f"{kind}s"].pending_digest}
    changed: dict[str, dict[str, Any]] = {
        "tenant-detail": {"name": "Renamed"},
        "user-detail": {"first_name": "Ada"},
        "role-detail": {"name": "Renamed"},
        "api-key-detail": {"name": "renamed"},
        "server-detail": {"name": "Renamed"},
        "toolset-detail": {"name": "Renamed"},
        "limit-detail": {"amount": 7},
    }
    return (changed if route.method == "patch" else made).get(route.name, NOTHING)
