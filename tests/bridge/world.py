"""What the peer remembers, and how the processes of one server have it in common."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp.shared.subscriptions import PromptsListChanged, ResourcesListChanged, ResourceUpdated, ToolsListChanged


@dataclass
class State:
    """What the peer remembers, of all its callers together."""

    bus: InMemorySubscriptionBus = field(default_factory=InMemorySubscriptionBus)
    sessions: dict[str, ServerSession] = field(default_factory=dict)
    subscribers: dict[str, dict[str, ServerSession]] = field(default_factory=dict)
    levels: dict[str, str] = field(default_factory=dict)
    root_changes: Counter[str] = field(default_factory=Counter)
    done: dict[str, list[str]] = field(default_factory=lambda: {"waiting": [], "cancelled": [], "visited": []})
    grown: dict[str, list[str]] = field(default_factory=lambda: {"tools": [], "prompts": [], "resources": []})
    world: Path | None = None
    """Where several processes of one server have what they have in common; None for a server of one process."""
    read: int = 0
    """What of it is known here, in bytes."""
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def happen(self, *event: str) -> None:
        """Change the world: every process notices, and tells its clients what concerns them. See `notice`."""
        if self.world is None:
            await self.notice(event)
            return
        with self.world.open("a") as world:
            world.write(json.dumps(event) + "\n")
        await self.catch_up()

    async def notice(self, event: Sequence[str]) -> None:
        """Take into account what happened, and announce it to everybody whom it concerns.

        `grown kind name`; `touched uri`; `waiting token` and `cancelled token` of a call; `visited id` of a page.
        """
        what, *rest = event
        if what == "touched":
            (uri,) = rest
            await self.bus.publish(ResourceUpdated(uri))
            for session in tuple(self.subscribers.get(uri, {}).values()):
                await session.send_resource_updated(uri)
        elif what == "grown":
            kind, name = rest
            self.grown[kind].append(name)
            await self.bus.publish(CHANGED[kind]())
            for session in tuple(self.sessions.values()):
                await getattr(session, f"send_{kind[:-1]}_list_changed")()
        else:
            self.done[what].append(rest[0])

    async def catch_up(self) -> None:
        """Notice what other processes did so far."""
        if self.world is None:
            return
        async with self.reading:
            with self.world.open() as lines:
                lines.seek(self.read)
                while (line := lines.readline()).endswith("\n"):
                    self.read = lines.tell()
                    await self.notice(json.loads(line))

    async def follow(self, world: Path) -> None:
        """Notice what other processes do, for good."""
        world.touch()
        self.world = world
        while True:
            await self.catch_up()
            await asyncio.sleep(0.02)


CHANGED = {"tools": ToolsListChanged, "prompts": PromptsListChanged, "resources": ResourcesListChanged}
STATE = State()
