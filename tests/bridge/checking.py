"""What checks of features share: where they are registered, and what they wait for."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.bridge.talk import Json, Talk
from tests.support import eventually_async

Check = Callable[[Talk, "Pair"], Awaitable[None]]
CHECKS: dict[str, Check] = {}


@dataclass(frozen=True)
class Pair:
    """The eras of the two sides."""

    client: str
    server: str
    apart: bool = False
    """Each request may go to another gateway, which has what another one was told a moment later."""

    @property
    def lag(self) -> float:
        """Return the seconds in which what one gateway knows is in force on all."""
        return 2.0 if self.apart else 0.0


def check(run: Check) -> Check:
    """Register what a feature must show; its name with hyphens is the feature's."""
    CHECKS[run.__name__.strip("_").replace("_", "-")] = run
    return run


async def heard(talk: Talk, what: str, count: int) -> list[Any]:
    """Return what was heard of a kind, once it is `count` or more."""

    async def enough() -> list[Any] | None:
        found = getattr(await talk.heard(), what)
        return found if len(found) >= count else None

    return await eventually_async(enough, because=f"less than {count} of {what}") if count else []


async def asked(talk: Talk) -> list[Json]:
    """Return what the client was asked."""
    return (await talk.heard()).asked


def fresh(stem: str) -> str:
    """Return a name that nothing else has."""
    return f"{stem}-{secrets.token_hex(4)}"
