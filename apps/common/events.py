"""What changed, told to every process: names of outbox topics and the records they carry."""

from dataclasses import dataclass, field
from typing import Any

AUDIT = "audit"
"""A control-plane event that the audit relay chains; payload = fields of `AuditRecord`."""
CHANGED = "changed"
"""An object the data plane holds has changed; payload = {"kind", "id", "tenant_id"}; kinds: see SNAPSHOT_KINDS."""
CONTROL = "control"
"""An order to the data plane of every process; payload = {"order": "kill-process" | ..., ...}."""

SNAPSHOT_KINDS = ("tenant", "user", "role", "api_key", "server", "toolset", "grants", "limits")
"""What a CHANGED event may name. `grants` carries the subject as id: `user:<id>`, `role:<id>` or `api_key:<id>`;
`server` covers its endpoints, credentials, definitions and state; `toolset` its entries; `limits` carries the tenant's id."""


@dataclass(slots=True)
class ControlEvent:
    """One thing somebody did in the control plane, for the audit log."""

    event_type: str
    """`<kind>.<past participle>`: `server.registered`, `api_key.revoked`, `auth.login`."""
    action: str
    """The policy's action: `server.write`."""
    object_kind: str = ""
    object_id: str = ""
    object_label: str = ""
    outcome: str = "ok"
    """`ok`, `refused` or `failed`."""
    tenant_id: str | None = None
    server: str = ""
    tool: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    """Before/after and other facts; secrets are redacted before they come here and again when it is written."""
