"""Writes a call's rows: what they hold, and how the promise is kept that nothing runs or is answered unrecorded."""

import hashlib
import re
import time
from copy import copy
from typing import Any

from apps.audit.sink.protocol import AuditSink
from apps.audit.sink.record import AuditRecord
from apps.common.clock import now_us
from apps.common.errors import AuditUnavailable
from apps.common.jsontext import dumps
from apps.common.redaction import sample_json
from apps.common.secret_shapes import redact_text
from apps.gateway.plane.call import Call, Json
from apps.gateway.plane.mcp.tasks import task_mark

ACTIONS = {
    "tools/call": ("tool.call", "tool"),
    "resources/read": ("resource.read", "resource"),
    "prompts/get": ("prompt.read", "prompt"),
    "completion/complete": ("completion.read", "completion"),
}
SAMPLE_BYTES = 2048
_TRACEPARENT = 512
_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
"""W3C Trace Context, section 3.2: version 00 has these four members, later ones begin with them."""


class Recorder:
    """Makes audit records of calls and hands them to the sink."""

    def __init__(self, sink: AuditSink) -> None:
        self.sink = sink

    async def intent(self, call: Call) -> None:
        """Commit that the call is about to be made. Raises AuditUnavailable: then nothing may be sent."""
        record = self._record(call, "call.intent")
        record.request_bytes = call.request_bytes
        record.details = self._request_details(call)
        call.rows.append(await self.sink.append(record))

    async def outcome(
        self,
        call: Call,
        outcome: str,
        *,
        error_type: str | None = None,
        raw: bytes = b"",
        result: Json | None = None,
        details: Json | None = None,
        alone: bool = False,
    ) -> None:
        """Commit what became of the call; `alone` where no intent came before. Raises AuditUnavailable."""
        record = self._outcome(call, outcome, error_type, raw, result, details, alone)
        try:
            call.rows.append(await self.sink.append(record))
        except AuditUnavailable:
            if alone:
                raise
            raise AuditUnavailable(
                "The call was sent, but its outcome could not be recorded, so its answer is withheld. Look at its effect before "
                f"you repeat it (call {call.call_id}).",
                call_id=call.call_id,
            ) from None

    def settle(self, call: Call, outcome: str, *, error_type: str | None = None, alone: bool = False) -> None:
        """Note an outcome that nobody waits for any more (the caller is gone)."""
        try:
            self.sink.post(self._outcome(call, outcome, error_type, b"", None, None, alone))
        except AuditUnavailable:
            return  # the intent stays open and the sweep closes it as unknown

    async def refused(self, call: Call, error_type: str, rule: str, detail: str, server: str | None = None) -> None:
        """Commit a refusal; `server` is the one it was about, where the call did not get so far. Raises AuditUnavailable."""
        record = self._record(call, "call.refused")
        record.server = record.server or server
        record.outcome = "refused"
        record.error_type = error_type
        record.request_bytes = call.request_bytes
        record.duration_us = int((time.perf_counter() - call.started) * 1e6)
        record.details = {**self._request_details(call), "rule": rule, "reason": detail[:500]}
        call.rows.append(await self.sink.append(record))

    def asked(self, call: Call, method: str, answered: str, reason: str = "") -> None:
        """Note that a server asked the client something during a call, and how the client answered.

        `result`, `error` or `none`; `handed on` where the client answers by making the call again; `refused` where it was not asked, for a reason.
        """
        principal = call.caller.principal
        self.note(
            "call.asked",
            tenant=principal.tenant_id,
            actor_kind=principal.kind,
            actor_id=principal.id,
            actor=principal.label,
            agent=call.client or None,
            session=call.session,
            call_id=None,
            revision=call.revision,
            action=method[:40],
            server=call.server.facts.slug if call.server is not None else None,
            tool=call.name[:200] if call.method == "tools/call" else None,
            details={"call_id": call.call_id, "answered": answered, **({"reason": reason[:300]} if reason else {})},
        )

    def note(self, event_type: str, **fields: Any) -> None:
        """Record something nobody's answer depends on (a session begun, a list given, a credential refused)."""
        try:
            self.sink.post(AuditRecord(event_type=event_type, time_us=now_us(), origin="mcp", **fields))
        except AuditUnavailable:
            return  # the sink itself reports that it is down; lists and refusals go on

    def _record(self, call: Call, event_type: str) -> AuditRecord:
        made = call.record
        if made is not None:
            record = copy(made)
            record.event_type, record.time_us = event_type, now_us()
            record.details, record.request_bytes = None, None
            record.task = _task(call)
            return record
        principal = call.caller.principal
        action, kind = ACTIONS.get(call.method, (call.method, "call"))
        item = call.item
        call.record = AuditRecord(
            event_type=event_type,
            time_us=now_us(),
            tenant=principal.tenant_id,
            actor_kind=principal.kind,
            actor_id=principal.id,
            actor=principal.label,
            origin=call.origin,
            agent=call.client or None,
            task=_task(call),
            request_id=call.request_id,
            session=call.session,
            trace=_trace(call.params),
            call_id=call.call_id,
            action=action,
            object_kind=kind,
            object=(redact_text(call.name) if call.method == "resources/read" else call.name)[:300],
            server=call.server.facts.slug if call.server is not None else None,
            tool=(item.facts.name if item is not None else call.name)[:200],
            revision=call.revision,
        )
        return call.record

    def _request_details(self, call: Call) -> Json:
        details: Json = {"path": f"{call.door}/{call.target.slug}" if call.target.slug else call.door}
        if call.rule:
            details["rule"] = call.rule
        if call.address:
            details["address"] = call.address
        arguments = call.params.get("arguments")
        if arguments:
            raw = dumps(arguments)
            details["arguments_sha256"] = hashlib.sha256(raw).hexdigest()
            if self._samples(call):
                details["arguments"] = sample_json(raw, arguments, SAMPLE_BYTES)
        return details

    def _outcome(
        self,
        call: Call,
        outcome: str,
        error_type: str | None,
        raw: bytes,
        result: Json | None,
        details: Json | None,
        alone: bool,
    ) -> AuditRecord:
        record = self._record(call, "call.outcome")
        record.outcome = outcome
        record.error_type = error_type
        record.duration_us = int((time.perf_counter() - call.started) * 1e6)
        record.response_bytes = len(raw)
        record.cost_micros = call.cost or None
        facts = details or {}
        if alone:
            record.request_bytes = call.request_bytes
            facts = {**self._request_details(call), **facts}
        if raw:
            facts["result_sha256"] = hashlib.sha256(raw).hexdigest()
            if result is not None and self._samples(call):
                facts["result"] = sample_json(raw, result, SAMPLE_BYTES)
        record.details = facts or None
        return record

    def _samples(self, call: Call) -> bool:
        tenant = call.snapshot.tenants.get(call.target.tenant_id)
        return tenant is not None and tenant.sample_payloads


def _trace(params: Json) -> str | None:
    """Return the trace id of a W3C traceparent in `_meta`, 32 hexadecimal digits; None where there is none that is valid."""
    meta = params.get("_meta")
    parent = meta.get("traceparent") if isinstance(meta, dict) else None
    if not isinstance(parent, str) or len(parent) > _TRACEPARENT:
        return None
    found = _PARENT.fullmatch(parent)
    return found[2] if found is not None and not (found[1] == "00" and found[3]) else None


def _task(call: Call) -> str | None:
    return task_mark(call.server.facts.id, call.task) if call.task and call.server is not None else None
