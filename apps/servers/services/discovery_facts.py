"""What discovery found out about a server itself; written by the catalogue (`tools`), inside its unit of work."""

from typing import Any
from uuid import UUID

from apps.common.clock import now
from apps.common.outbox import changed
from apps.servers.domain import Discovered
from apps.servers.models import Server
from apps.servers.services.endpoints import known_revisions

MAX_ERROR = 500


def store_discovery(server: Server, *, discovered: Discovered | None = None, instructions: str = "", error: str = "") -> bool:
    """Store the result of a discovery: what the server said of itself, or why it could not be asked.

    `instructions` are those in force after review, not necessarily those just received. A failure leaves every fact as it was.
    Needs a unit of work; the caller has asked the policy and records the event. Returns whether the data plane's facts changed.
    """
    row = Server.unscoped.select_for_update().get(pk=server.pk)
    fields: dict[str, Any] = {"discovery_error": error[:MAX_ERROR]}
    if discovered is not None:
        fields |= {
            "server_info": _storable(discovered.server_info),
            "capabilities": _storable(discovered.capabilities),
            "revisions": known_revisions(row, discovered.revisions, surveyed=discovered.surveyed),
            **({"surveyed_version": row.version} if discovered.surveyed else {}),
            "instructions": _storable(instructions),
            "discovered_at": now(),
        }
    moved = _assign(row, fields)
    for name in fields:
        setattr(server, name, getattr(row, name))
    return moved


def store_instructions(server_id: UUID | str, instructions: str) -> bool:
    """Put reviewed instructions in force. Needs a unit of work. Returns whether they differ from those before."""
    row = Server.unscoped.select_for_update().get(pk=server_id)
    return _assign(row, {"instructions": _storable(instructions)})


def _assign(row: Server, fields: dict[str, Any]) -> bool:
    held_by_planes = ("server_info", "capabilities", "revisions", "instructions")
    moved = any(name in fields and fields[name] != getattr(row, name) for name in held_by_planes)
    for name, value in fields.items():
        setattr(row, name, value)
    row.save(update_fields=[*fields, "updated_at"])
    if moved:
        changed("server", row.pk, tenant_id=row.tenant_id)
    return moved


def _storable(value: Any) -> Any:
    """Return the value without U+0000, which PostgreSQL cannot store."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return value
