"""Events in the Open Cybersecurity Schema Framework (OCSF 1.5.0, https://schema.ocsf.io/1.5.0).

Class by event type; what the class has no place for stands in `unmapped`. docs/operations.md has the table.
"""

from typing import Any

import orjson

from apps.audit.domain import event_name
from apps.audit.sink.record import AuditRecord, decode

VERSION = "1.5.0"
ACCOUNT_CHANGE, AUTHENTICATION, ENTITY_MANAGEMENT, USER_ACCESS, API_ACTIVITY = 3001, 3002, 3004, 3005, 6003
CLASS_NAMES = {
    ACCOUNT_CHANGE: "Account Change",
    AUTHENTICATION: "Authentication",
    ENTITY_MANAGEMENT: "Entity Management",
    USER_ACCESS: "User Access Management",
    API_ACTIVITY: "API Activity",
}
_ACCOUNTS = ("user", "api_key", "service_account")
_ACCESS = ("membership", "grant", "role")
_API = ("call", "access", "audit", "recording", "list", "session")
_ACTIVITIES: dict[int, dict[str, int]] = {
    ACCOUNT_CHANGE: {
        "created": 1, "enabled": 2, "activated": 2, "password_changed": 3, "password_reset": 4, "disabled": 5, "revoked": 5,
        "deactivated": 5, "deleted": 6, "locked": 9, "factor_added": 10, "factor_removed": 11, "unlocked": 12,
    },
    AUTHENTICATION: {"login": 1, "login_failed": 1, "key_refused": 1, "refused": 1, "logout": 2},
    ENTITY_MANAGEMENT: {
        "created": 1, "registered": 1, "read": 2, "exported": 2, "tested": 2, "updated": 3, "renamed": 3, "changed": 3, "set": 3,
        "deleted": 4, "removed": 4, "enabled": 8, "disabled": 9, "paused": 12, "resumed": 13,
    },
    USER_ACCESS: {"created": 1, "added": 1, "deleted": 2, "removed": 2, "revoked": 2},
    API_ACTIVITY: {"created": 1, "started": 1, "read": 2, "exported": 2, "verified": 2, "updated": 3, "deleted": 4},
}  # fmt: skip
_OTHER = 99
_OUTCOMES = {"ok": (1, "Success", 1), "refused": (2, "Failure", 2), "error": (2, "Failure", 2), "failed": (2, "Failure", 3)}
"""Outcome to status id, status, severity id (1 informational, 2 low, 3 medium)."""
_ACTOR_TYPES = {"user": 1, "api_key": 4, "service": 4, "system": 3}
"""OCSF `user.type_id`: 1 user, 3 system, 4 service."""
_MAPPED = frozenset({
    "event_type", "time_us", "tenant", "actor_kind", "actor_id", "actor", "agent", "request_id", "session", "trace", "call_id",
    "action", "object_kind", "object_id", "object", "outcome", "error_type", "duration_us", "details",
})  # fmt: skip


def ocsf_line(identity: int, body: bytes) -> bytes:
    """Return the event as one line of JSON. Raises ValueError."""
    return orjson.dumps(ocsf(identity, decode(body)), option=orjson.OPT_APPEND_NEWLINE)


def class_of(event_type: str) -> int:
    """Return the OCSF class of an event type."""
    kind, _, past = event_type.partition(".")
    if kind == "auth":
        return AUTHENTICATION
    if kind in _ACCOUNTS:
        return ACCOUNT_CHANGE
    if kind in _ACCESS:
        return USER_ACCESS if past in _ACTIVITIES[USER_ACCESS] else ENTITY_MANAGEMENT
    return API_ACTIVITY if kind in _API else ENTITY_MANAGEMENT


def ocsf(identity: int, record: AuditRecord) -> dict[str, Any]:
    """Return the event as a document."""
    class_uid = class_of(record.event_type)
    past = record.event_type.partition(".")[2]
    activity = _ACTIVITIES[class_uid].get(past, _OTHER)
    status_id, status, severity = _OUTCOMES.get(record.outcome or "", (0, "Unknown", 1))
    details = record.details or {}
    document: dict[str, Any] = {
        "class_uid": class_uid,
        "class_name": CLASS_NAMES[class_uid],
        "category_uid": class_uid // 1000,
        "category_name": "Application Activity" if class_uid == API_ACTIVITY else "Identity & Access Management",
        "activity_id": activity,
        "activity_name": past or record.event_type,
        "type_uid": class_uid * 100 + activity,
        "time": record.time_us // 1000,
        "severity_id": severity,
        "status_id": status_id,
        "status": status,
        "message": record.event_type,
        "metadata": _known(
            {
                "version": VERSION, "uid": event_name(identity), "event_code": record.event_type, "log_name": "audit",
                "tenant_uid": record.tenant, "correlation_uid": record.call_id or record.trace or record.request_id,
                "product": {"name": "Switchyard", "vendor_name": "Switchyard"},
            }
        ),
        "actor": _actor(record),
        "src_endpoint": _known({"ip": details.get("address"), "name": record.agent}) or {"name": record.origin or "internal"},
        "unmapped": _unmapped(record),
    }  # fmt: skip
    if record.error_type:
        document["status_code"] = record.error_type
    if isinstance(reason := details.get("reason") or details.get("error"), str):
        document["status_detail"] = reason
    if record.duration_us is not None:
        document["duration"] = record.duration_us // 1000
    _subject(document, class_uid, record)
    return document


def _subject(document: dict[str, Any], class_uid: int, record: AuditRecord) -> None:
    """Add what the class is about."""
    thing = _known({"uid": record.object_id, "name": record.object, "type": record.object_kind})
    if class_uid == API_ACTIVITY:
        document["api"] = _known(
            {
                "operation": record.action or record.event_type,
                "service": {"name": record.server} if record.server else None,
                "request": {"uid": record.request_id} if record.request_id else None,
                "response": {"error": record.error_type} if record.error_type else None,
                "version": record.revision,
            }
        )
        if thing or record.tool:
            document["resources"] = [thing or {"name": record.tool, "type": "tool"}]
    elif class_uid == ENTITY_MANAGEMENT:
        document["entity"] = thing or {"name": record.event_type.partition(".")[0]}
        if record.details and "before" in record.details:
            document["comment"] = "before and after stand in unmapped.details"
    else:
        user = _known({"uid": record.object_id, "name": record.object}) or _known(
            {"uid": record.actor_id, "name": record.actor}
        )
        document["user"] = user or {"name": "unknown"}
        if class_uid == AUTHENTICATION:
            document["service"] = {"name": record.origin or "switchyard"}
        elif class_uid == USER_ACCESS:
            document["privileges"] = [record.object or record.action or record.event_type]


def _actor(record: AuditRecord) -> dict[str, Any]:
    user = _known({"uid": record.actor_id, "name": record.actor})
    user["type_id"] = _ACTOR_TYPES.get(record.actor_kind or "", 0)
    actor: dict[str, Any] = {"user": user}
    if record.session:
        actor["session"] = {"uid": record.session}
    if record.agent:
        actor["app_name"] = record.agent
    return actor


def _unmapped(record: AuditRecord) -> dict[str, Any]:
    found = {
        name: value for name in record.__struct_fields__ if name not in _MAPPED and (value := getattr(record, name)) is not None
    }
    if record.details:
        found["details"] = record.details
    if record.actor_kind:
        found["actor_kind"] = record.actor_kind
    return found


def _known(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
