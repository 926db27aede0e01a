"""The tasks extension (`io.modelcontextprotocol/tasks`, SEP-2663): handles that bring every request about a task to its server.

A server of 2026-07-28 may answer `tools/call` with a task. The caller gets a handle of ours in the place of the server's id: sealed,
good in a URL and a header, bound to the caller, the tenant, the toolset and a time. Any process can read it, so nothing is kept.
"""

import base64
import binascii
import hashlib
import time
from dataclasses import dataclass
from typing import Any

from apps.common.crypto.keyring import DecryptionFailed, Keyring
from apps.common.errors import NotFound, SwitchyardError, UpstreamProtocolError, ValidationFailed
from apps.common.policy import Decision
from apps.gateway.plane.call import Call, Json
from apps.gateway.plane.snapshot import Caller, Item, Snapshot
from apps.gateway.plane.views import Target, find_named
from apps.servers.transports.base import TASKS as EXTENSION
from apps.servers.transports.base import without_tasks

__all__ = (
    "ABOUT",
    "EXTENSION",
    "LISTEN",
    "METHODS",
    "NEWS",
    "WITH_EFFECT",
    "MissingCapability",
    "TaskHandles",
    "declared",
    "require_declared",
    "task_mark",
    "without_tasks",
)

METHODS = frozenset(("tasks/get", "tasks/update", "tasks/cancel"))
WITH_EFFECT = frozenset(("tasks/update", "tasks/cancel"))
LISTEN, NEWS = "tasks/listen", "notifications/tasks"
"""What the log calls the wish to be told of a task (`subscriptions/listen` with `taskIds`), and the telling."""
ABOUT = METHODS | {LISTEN, NEWS}
"""Whatever names a task by its handle."""
MAX_ID = 1024
"""Bytes of a server's task id: its handle stands in a header."""
MAX_HANDLE = 4096
LEAST_SECONDS = 30 * 24 * 3600
"""A handle lasts as long as the task says, and so long at least: a server may prolong a task, but not rename it."""
ENDLESS_SECONDS = 366 * 24 * 3600
"""For a task without an end, and the most for every other."""
_ASSOCIATED = b"mcp-task:1"


class MissingCapability(SwitchyardError):
    """The request does not declare a capability that it needs (MCP 2026-07-28, -32021)."""

    slug, title, status, jsonrpc_code = "missing-capability", "The client lacks a capability that this needs", 400, -32021


@dataclass(frozen=True, slots=True)
class Handle:
    """What a handle says."""

    tool: str
    """The tool that the task was begun with, as it was called there."""
    server: bytes
    """Which server has it, as a digest."""
    id: str
    """The server's own id of the task."""


def declared(capabilities: Json) -> bool:
    """Tell whether a request's capabilities list the extension."""
    extensions = capabilities.get("extensions")
    return isinstance(extensions, dict) and isinstance(extensions.get(EXTENSION), dict)


def require_declared(capabilities: Json) -> None:
    """Raise MissingCapability for a request that does not list the extension."""
    if not declared(capabilities):
        raise MissingCapability(
            f"This needs a client that declares {EXTENSION} with the request.",
            requiredCapabilities={"extensions": {EXTENSION: {}}},
        )


def task_mark(server_id: str, task_id: str) -> str:
    """Return what the log calls a task: the same for every row about it, and of no use to get at it."""
    return hashlib.sha256(f"{server_id}\x00{task_id}".encode(errors="surrogatepass")).hexdigest()[:32]


class TaskHandles:
    """Makes and reads handles."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring.for_purpose(b"mcp-task")

    def resolve(self, call: Call) -> Decision:
        """Find what a request about a task is about: set name, item and task; return the rule that allows it.

        The policy is asked as for the tool itself. Raises MissingCapability; NotFound for a handle that is not this caller's for this
        place, has expired, or whose tool is no more; PermissionDenied, ValidationFailed.
        """
        require_declared(call.capabilities)
        given = call.params.get("taskId")
        if not isinstance(given, str) or not given:
            raise ValidationFailed("params.taskId must be a string that is not empty.")
        if call.method == "tasks/update" and not isinstance(call.params.get("inputResponses"), dict):
            raise ValidationFailed("params.inputResponses must be an object.")
        handle = self.open(given, call.caller, call.target)
        call.name = handle.tool
        call.item, decision = self.tool(call.snapshot, call.caller, call.target, handle)
        call.task = handle.id
        return decision

    def tool(self, snapshot: Snapshot, caller: Caller, target: Target, handle: Handle) -> tuple[Item, Decision]:
        """Return the tool behind a handle and the rule that allows it. Raises NotFound, PermissionDenied."""
        item, decision = find_named(snapshot, caller, target, "tool", handle.tool)
        if _server_mark(item.facts.server_id) != handle.server:
            raise _unknown()
        return item, decision

    def begun(self, call: Call, result: Json) -> Json:
        """Return the answer that begins a task, with our handle. Raises UpstreamProtocolError where it may not be given."""
        if call.method != "tools/call" or not declared(call.capabilities):
            raise UpstreamProtocolError(
                f"The server answered with a task, although the client has not declared {EXTENSION} with this request."
            )
        id = result.get("taskId")
        if not isinstance(id, str) or not 0 < len(id.encode(errors="surrogatepass")) <= MAX_ID:
            raise UpstreamProtocolError(f"The server's taskId is no string of 1 to {MAX_ID} bytes.")
        call.task = id
        return {**result, "taskId": self.seal(call, id, result.get("ttlMs"))}

    def told(self, call: Call, result: Json) -> Json:
        """Return an answer about a task under the handle it was asked by. Raises UpstreamProtocolError for one about another task."""
        if "taskId" not in result:
            return result
        if result["taskId"] != call.task:
            raise UpstreamProtocolError("The server answered about another task than it was asked about.")
        return {**result, "taskId": call.params["taskId"]}

    def seal(self, call: Call, id: str, ttl_ms: Any) -> str:
        """Return the handle of a task that a call has begun."""
        assert call.item is not None
        name = call.name.encode(errors="surrogatepass")
        plain = b"".join(
            (
                (int(time.time()) + _lasting(ttl_ms)).to_bytes(5, "big"),
                _server_mark(call.item.facts.server_id),
                len(name).to_bytes(2, "big"),
                name,
                id.encode(errors="surrogatepass"),
            )
        )
        sealed = self._keyring.seal(plain, associated=_associated(call.caller, call.target))
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def open(self, text: str, caller: Caller, target: Target) -> Handle:
        """Return what a handle says. Raises NotFound for one that is not this caller's for this place, or has expired."""
        if len(text) > MAX_HANDLE:
            raise _unknown()
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            plain = self._keyring.open(sealed, associated=_associated(caller, target))
        except (DecryptionFailed, binascii.Error, ValueError):
            raise _unknown() from None
        if int.from_bytes(plain[:5], "big") <= time.time():
            raise _unknown()
        start = 15 + int.from_bytes(plain[13:15], "big")
        return Handle(plain[15:start].decode(errors="surrogatepass"), plain[5:13], plain[start:].decode(errors="surrogatepass"))


def _unknown() -> NotFound:
    return NotFound("There is no such task here, or its time is over.")


def _lasting(ttl_ms: Any) -> int:
    if not isinstance(ttl_ms, int | float) or isinstance(ttl_ms, bool):
        return ENDLESS_SECONDS
    return int(min(max(ttl_ms // 1000, LEAST_SECONDS), ENDLESS_SECONDS))


def _server_mark(server_id: str) -> bytes:
    return hashlib.blake2b(server_id.encode(), digest_size=8).digest()


def _associated(caller: Caller, target: Target) -> bytes:
    principal = caller.principal
    return b"\x00".join(
        (_ASSOCIATED, principal.kind.encode(), principal.id.encode(), target.tenant_id.encode(), target.slug.encode())
    )
