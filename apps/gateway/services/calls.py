"""Calls made for a person by the console or the REST API: the same pipeline, policy and audit as for any agent."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from apps.common.context import current_actor, current_scope
from apps.common.errors import NotFound, NotReady
from apps.tools.selectors.address import tool_address


@dataclass(frozen=True, slots=True)
class CallOrder:
    """What the data plane is asked to do."""

    actor_kind: str
    actor_id: str
    tenant_id: str
    origin: str
    address: str
    request_id: str
    toolset: str
    """Slug; empty = `/mcp`."""
    name: str
    """The exposed name there."""
    arguments: dict[str, Any]


@dataclass(slots=True)
class CallReport:
    """What became of a call."""

    call_id: str
    ok: bool
    result: dict[str, Any] | None
    """The server's result as it came; `isError` inside it is the tool's own word."""
    error: dict[str, Any] | None
    """`code`, `message`, `data` (with our `type`) when there is no result."""
    steps: list[tuple[str, float]] = field(default_factory=list)
    """(step, seconds since the start at which it was done)."""
    duration_ms: float = 0.0
    events: list[str] = field(default_factory=list)
    """Ids of the audit events it made, `<writer>-<seq>`."""


Runner = Callable[[CallOrder, float], CallReport]
_runner: Runner | None = None


def register_runner(runner: Runner | None) -> None:
    """Tell how calls reach the data plane of this process; the gateway's runtime does when it starts."""
    global _runner
    _runner = runner


def call_tool(*, tool_id: object, arguments: dict[str, Any], toolset: str | None = None, timeout: float = 3700.0) -> CallReport:
    """Call a tool as the actor in force, in the tenant of the tool.

    `toolset` names the toolset to go through (default: the one that came with the server). Raises NotFound, and NotReady in a
    process without a data plane.
    """
    if _runner is None:
        raise NotReady("No data plane runs in this process; start it with `manage.py serve`.")
    actor, scope = current_actor(), current_scope()
    address = tool_address(tool_id, toolset=toolset)
    if scope is None or (not scope.every_tenant and scope.tenant_id != address.tenant_id):
        raise NotFound("No such tool.")
    order = CallOrder(
        actor_kind=actor.kind,
        actor_id=actor.id,
        tenant_id=address.tenant_id,
        origin=actor.origin,
        address=actor.address,
        request_id=actor.request_id,
        toolset=address.toolset,
        name=address.name,
        arguments=arguments,
    )
    return _runner(order, timeout)
