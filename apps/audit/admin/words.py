"""The log in words: who, did what, to what, with what outcome, when."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.urls import NoReverseMatch, reverse

from apps.audit.domain import EventFacts
from apps.common.admin.format import microseconds

CALL_STEPS = ("call.intent", "call.attempt")
"""Rows of a call that its outcome sums up; a timeline leaves them out unless every row is asked for."""

PAGES = {
    "server": "servers_server",
    "tool": "tools_tool",
    "resource": "tools_resource",
    "template": "tools_resourcetemplate",
    "prompt": "tools_prompt",
    "instructions": "tools_instructions",
    "toolset": "tools_toolset",
    "api_key": "accounts_apikey",
    "user": "accounts_user",
    "role": "accounts_role",
    "tenant": "accounts_tenant",
    "recording": "gateway_recording",
    "connection": "servers_oauthconnection",
}
"""Kinds of objects that have a page, and the admin's name for it."""

NOUNS = {"api_key": "API key", "template": "resource template"}

PHRASES = {
    "call.intent": "is about to call",
    "call.attempt": "tried",
    "call.outcome": "called",
    "call.refused": "was not let through to",
    "call.asked": "was asked something during a call of",
    "auth.login": "signed in",
    "auth.logout": "signed out",
    "auth.login_failed": "failed to sign in",
    "auth.refused": "was refused",
    "access.refused": "was refused",
    "user.password_changed": "set a new password for",
    "credential.set": "stored a credential of the server",
    "credential.deleted": "deleted a credential of the server",
    "server.tested": "tested the connection to the server",
    "server.client_set": "entered the OAuth client of the server",
    "server.client_deleted": "deleted the OAuth client of the server",
    "connection.started": "began to connect",
    "connection.connected": "connected",
    "connection.refused": "could not connect",
    "connection.refreshed": "refreshed the token of",
    "connection.refresh_failed": "could not refresh the token of",
    "connection.scope_wanted": "was asked for a wider authorization by",
    "connection.disconnected": "disconnected",
    "connection.revoked": "revoked the tokens of",
    "server.state_changed": "noticed a new state of the server",
    "server.discovered": "discovered the server",
    "membership.added": "gave the role",
    "membership.removed": "took away the role",
    "audit.verified": "verified the audit log",
    "audit.export_started": "began to export events of the",
    "audit.exported": "exported events of the",
    "audit.payload_read": "looked at what was sent and answered in a call of",
    "audit.payloads_removed": "removed payloads that reached their age from the",
    "audit.retention_set": "changed how long payloads stay in the",
    "audit.checkpoints_dropped": "let go of checkpoints that were never delivered, of the",
    "user.password_removed": "took away the password of",
    "recording.started": "began to record messages of the",
    "recording.stopped": "ended the recording of messages of the",
    "recording.read": "looked at the recorded messages of the",
    "recording.deleted": "deleted the recorded messages of the",
}
"""What an event type reads like; the rest is made of its two words."""


FAILED = {"server.discovered": "could not discover the server", "server.tested": "could not connect to the server"}
"""The same where it did not succeed."""

DOORS = {
    "admin": "in the console",
    "rest": "by REST",
    "cli": "on the command line",
    "task": "in the background",
    "start": "at the start",
    "mcp": "",
}
"""How a door reads."""


_TEXT = re.compile(r'"text"\s*:\s*"((?:[^"\\]|\\.)*)')
_VERBS = {"read": "look at", "write": "change", "delete": "delete", "call": "use", "admin": "administer"}
_ASKED = {
    "tools/list": "the list of tools",
    "resources/list": "the list of resources",
    "resources/templates/list": "the list of resource templates",
    "prompts/list": "the list of prompts",
    "mcp.request": "the gateway",
}
"""What a request asked for that named nothing."""


@dataclass(slots=True)
class Changed:
    """One field of a change."""

    name: str
    before: str
    after: str


@dataclass(slots=True)
class Told:
    """One event as a sentence and what belongs to it."""

    id: str
    who: str
    did: str
    what: str
    outcome: str
    at: datetime
    href: str
    what_href: str = ""
    more: str = ""
    cause: str = ""
    """Why it is a problem: the type of the error and its text."""
    times: int = 1
    """How many equal ones this one stands for, and whether there may be more."""
    at_least: bool = False
    changes: list[Changed] = field(default_factory=list)
    type: str = ""
    row: EventFacts | None = None
    details: dict[str, Any] = field(default_factory=dict)


def tell(row: EventFacts) -> Told:
    """Put an event into words."""
    details = row.details or {}
    kind, _, past = row.event_type.partition(".")
    noun = NOUNS.get(kind, kind.replace("_", " "))
    did = PHRASES.get(row.event_type) or f"{past.replace('_', ' ')} the {noun}"
    if row.outcome not in (None, "ok"):
        did = FAILED.get(row.event_type, did)
    what = row.object or ""
    if kind == "call":
        asked = _ASKED.get(row.action or "", row.action or "")
        what = f"{row.server} · {row.tool}" if row.server and row.tool else row.object or row.tool or asked
    elif kind == "auth":
        what = "" if row.object == row.actor else (row.object or "")
    elif row.event_type == "access.refused":
        wanted = NOUNS.get(row.object_kind or "", (row.object_kind or "").replace("_", " "))
        verb = _VERBS.get((row.action or "").partition(".")[2], "use")
        did = f"was not allowed to {verb}" + (f" the {wanted}" if wanted and row.object else "")
        what = row.object or (f"any {wanted}" if wanted else "this")
    return Told(
        id=row.event_id,
        who=_who(row),
        did=did,
        what=what,
        outcome=row.outcome or ("begun" if row.event_type in CALL_STEPS else "ok"),
        at=row.time,
        href=reverse("admin:audit_auditevent_change", args=(row.event_id,)),
        what_href=_page(row),
        more=_more(row, details),
        cause=_cause(row, details),
        changes=list(_changes(details)),
        type=row.event_type,
        row=row,
        details=details,
    )


def _who(row: EventFacts) -> str:
    """Name the actor as the row does; what the product did by itself is Switchyard's."""
    if row.actor_kind in (None, "system") and row.origin != "cli":
        return "Switchyard"
    return row.actor or "somebody unknown"


def _page(row: EventFacts) -> str:
    page = PAGES.get(row.object_kind or "")
    if not page or not row.object_id or str(row.event_type).endswith((".deleted", ".registered_failed")):
        return ""
    try:
        return reverse(f"admin:{page}_change", args=(row.object_id,))
    except NoReverseMatch:
        return ""


def _cause(row: EventFacts, details: dict[str, Any]) -> str:
    parts = [row.error_type] if row.error_type else []
    reason = details.get("reason") or details.get("error") or details.get("message")
    if not reason and row.outcome == "error":
        reason = _said(details.get("result"))
    if reason:
        parts.append(_readable(str(reason)))
    if details.get("closed_by") == "sweep":
        parts.append("the process that made the call ended before an answer was recorded")
    if row.outcome == "unknown" or details.get("effect") == "unknown":
        parts.append("whether it took effect is not known")
    return " · ".join(parts)


def _said(result: Any) -> str:
    """Return the first text of a tool's result, of which a sample (JSON, maybe cut) was kept."""
    found = _TEXT.search(result) if isinstance(result, str) else None
    if found is None:
        return ""
    try:
        return str(json.loads(f'"{found.group(1)}"'))
    except ValueError:
        return found.group(1)


def _readable(text: str) -> str:
    """Return what somebody else wrote in one line, without characters that hide or turn text."""
    return "".join(sign if sign.isprintable() else " " for sign in text[:300]).strip()


def _more(row: EventFacts, details: dict[str, Any]) -> str:
    parts = [cause] if (cause := _cause(row, details)) else []
    if row.event_type == "access.refused" and row.action:
        parts.append(row.action)
    if rule := details.get("rule"):
        parts.append(f"rule {rule}")
    if row.duration_us is not None:
        parts.append(microseconds(row.duration_us))
    if row.agent:
        parts.append(f"by {row.agent}")
    if row.origin and not row.event_type.startswith("call."):
        parts.append(DOORS.get(row.origin, row.origin))
    return " · ".join(part for part in parts if part)


def _changes(details: dict[str, Any]) -> Iterable[Changed]:
    before, after = details.get("before"), details.get("after")
    if isinstance(after, dict) and isinstance(before, dict):
        for name in after:
            if before.get(name) != after.get(name):
                yield Changed(name, _short(before.get(name)), _short(after.get(name)))
    elif after is not None and not isinstance(after, dict | list):
        yield Changed("now", _short(before), _short(after))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if value in (None, ""):
        return "empty"
    return text if len(text) <= 160 else text[:157] + "…"
