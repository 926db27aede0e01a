"""One HTTP request to `/mcp`, authenticated: what both fronts share."""

import asyncio
from typing import TYPE_CHECKING, Any

from apps.common.errors import SwitchyardError
from apps.common.jsontext import dumps
from apps.gateway.plane.call import Answer, Call, Json
from apps.gateway.plane.http import Receive
from apps.gateway.plane.jsonrpc import result_bytes
from apps.gateway.plane.mcp.revisions import LOG_LEVELS
from apps.gateway.plane.reply import Reply
from apps.gateway.plane.snapshot import Caller, Snapshot
from apps.gateway.plane.views import Target

if TYPE_CHECKING:
    from apps.gateway.plane.plane import Plane

CALLS = frozenset(("tools/call", "resources/read", "prompts/get", "completion/complete"))
"""Methods that reach a server."""


class Visit:
    """The caller, where it is, and the way to answer it."""

    __slots__ = (
        "address",
        "caller",
        "capabilities",
        "client",
        "client_info",
        "heard",
        "lost",
        "plane",
        "quiet_below",
        "reply",
        "revision",
        "session",
        "size",
        "snapshot",
        "target",
    )

    def __init__(
        self, plane: "Plane", snapshot: Snapshot, caller: Caller, target: Target, reply: Reply, *, address: str, size: int
    ) -> None:
        self.plane = plane
        self.snapshot = snapshot
        self.caller = caller
        self.target = target
        self.reply = reply
        self.address = address
        self.size = size
        self.revision = ""
        self.client = ""
        self.client_info: Json | None = None
        self.capabilities: Json | None = None
        """As the client declared them; None where it has not said anything yet."""
        self.session: str | None = None
        self.heard: Any = None
        """What a recording knows it by (see `tap`)."""
        self.lost = False
        """Its client has left and cannot come back for the answer."""
        reply.visit = self
        self.quiet_below = 0
        """Place in LOG_LEVELS below which log messages are not forwarded."""

    @property
    def path(self) -> str:
        """Return the address that the client has of this place."""
        return f"{self.reply.door}/{self.target.slug}" if self.target.slug else self.reply.door

    def renew(self, snapshot: Snapshot, caller: Caller, target: Target) -> None:
        """Go on with the picture that is in force now."""
        self.snapshot, self.caller, self.target = snapshot, caller, target

    def call(self, method: str, params: Json, *, modern: bool) -> Call:
        """Make the call that the pipeline runs."""
        call = Call(
            snapshot=self.snapshot,
            caller=self.caller,
            target=self.target,
            method=method,
            params=params,
            revision=self.revision,
            modern=modern,
            address=self.address,
            client=self.client,
            session=self.session,
            request_bytes=self.size,
            door=self.reply.door,
        )
        if self.plane.tap is not None:
            self.plane.tap.began(self, call)
        return call

    async def list(self, id: Any, method: str, params: Any, *, modern: bool) -> None:
        """Answer a list."""
        raw, given, total = self.plane.lists.list(self.snapshot, self.caller, self.target, method, params, modern=modern)
        details: Json = {"given": given, "total": total}
        if not total:
            details["reason"] = self.plane.lists.why_empty(self.snapshot, self.caller, self.target, method)
        self.note("catalogue.listed", action=method, details=details)
        await self.reply.finish(200, result_bytes(id, raw))

    async def run(self, call: Call, receive: Receive | None, *, leaving_cancels: bool) -> Answer | None:
        """Run a call while attending to its client; None when the client left, which cancelled it.

        Attending costs nothing for calls that are answered at once: it begins a moment later. Without a `receive` somebody else attends.
        """
        key = self.caller.key
        if key is not None:
            self.plane.facts.key_used(key.id, self.address, self.client)
            self.plane.sightings.note(self, 1)
        if self.reply.accepts_stream and call.on_message is None:
            call.on_message = self.forward
        task = asyncio.current_task() if leaving_cancels else None
        attendants = self.plane.attendants
        if receive is not None:
            attendants.begin(self, receive, task)
        try:
            return await self.plane.pipeline.run(call)
        except asyncio.CancelledError:
            if task is None or not attendants.left(self):
                raise
            task.uncancel()
            return None
        finally:
            if receive is not None:
                attendants.end(self)

    async def forward(self, message: Json) -> None:
        """Give the client a notification that belongs to its call, where it takes a stream."""
        if self.quiet_below and message.get("method") == "notifications/message":
            params = message.get("params")
            level = params.get("level") if isinstance(params, dict) else None
            if level in LOG_LEVELS and LOG_LEVELS.index(level) < self.quiet_below:
                return
        await self.reply.event(dumps(message))

    def note(self, event_type: str, *, action: str | None = None, details: Json | None = None) -> None:
        """Record something that nobody's answer depends on."""
        self.plane.sightings.note(self, 0)
        principal = self.caller.principal
        self.plane.recorder.note(
            event_type,
            tenant=principal.tenant_id,
            actor_kind=principal.kind,
            actor_id=principal.id,
            actor=principal.label,
            agent=self.client or None,
            session=self.session,
            revision=self.revision or None,
            action=action,
            details={
                "path": self.path,
                "address": self.address,
                **(details or {}),
            },
        )

    def refused(self, message: Any, error: SwitchyardError) -> None:
        """Record that a request was refused before it became a call."""
        said = message if isinstance(message, dict) else {}
        method, params = said.get("method"), said.get("params")
        named = params.get("name") if isinstance(params, dict) else None
        principal = self.caller.principal
        self.plane.recorder.note(
            "call.refused",
            tenant=principal.tenant_id,
            actor_kind=principal.kind,
            actor_id=principal.id,
            actor=principal.label,
            agent=self.client or None,
            session=self.session,
            action=method[:40] if isinstance(method, str) else "mcp.request",
            object=named[:300] if isinstance(named, str) else None,
            outcome="refused",
            error_type=error.slug,
            request_bytes=self.size,
            details={
                "path": self.path,
                "address": self.address,
                "rule": str(error.extra.get("rule", error.slug)),
                "reason": error.detail[:500],
            },
        )
