"""What a hook gets and may do."""

from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(slots=True)
class HookCall:
    """A call as hooks see it. A before hook may replace `name` and `arguments`: the result is authorised again."""

    tenant_id: str
    principal_id: str
    principal: str
    server: str
    method: str
    name: str
    arguments: dict[str, Any]
    call_id: str
    cost: int = 0
    """Millionths of the currency's unit. A before hook says what the call may cost, which is set aside in limits on spending; an
    after hook says what it did cost, which is what the log has."""
    facts: dict[str, Any] = field(default_factory=dict)
    """For hooks to hand things from before to after."""


class BeforeCall(Protocol):
    """Runs after the policy allowed the call and before anything is limited, recorded or sent. Raises HookRefused to stop it."""

    name: str
    order: int
    """Hooks run in ascending order; equal ones by name."""
    seconds: float
    """Time limit; a hook that takes longer stops the call."""

    async def before(self, call: HookCall) -> None:
        """Look at the call, change it, or refuse it."""
        ...


class AfterCall(Protocol):
    """Runs when the server has answered and before the outcome is recorded; may return another result."""

    name: str
    order: int
    seconds: float

    async def after(self, call: HookCall, result: dict[str, Any]) -> dict[str, Any]:
        """Return the result that the caller gets."""
        ...
