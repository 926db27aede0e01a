"""Watch over calls that take a while: notice that the client left, and keep its connection alive."""

import asyncio
from typing import TYPE_CHECKING, Any

from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.http import Receive

if TYPE_CHECKING:
    from apps.gateway.plane.mcp.visit import Visit

TICK = 0.05
"""Seconds between two looks; a call that is answered before the second look after it began is never attended to."""


class Attendants:
    """One for each process. A call that is answered at once costs it two operations on a dictionary and no timer."""

    def __init__(self, config: PlaneConfig) -> None:
        self._config = config
        self._new: dict[Visit, tuple[Receive, asyncio.Task[Any] | None]] = {}
        self._older: dict[Visit, tuple[Receive, asyncio.Task[Any] | None]] = {}
        self._workers: dict[Visit, asyncio.Task[None]] = {}
        self._left: set[Visit] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def begin(self, visit: "Visit", receive: Receive, task: "asyncio.Task[Any] | None") -> None:
        """A call begins; `task` is cancelled when its client leaves."""
        self._new[visit] = (receive, task)
        if self._timer is None:
            self._timer = self._loop.call_later(TICK, self._look)

    def end(self, visit: "Visit") -> None:
        """The call has ended."""
        if self._new.pop(visit, None) is None and self._older.pop(visit, None) is None:
            worker = self._workers.pop(visit, None)
            if worker is not None:
                worker.cancel()
            self._left.discard(visit)

    def left(self, visit: "Visit") -> bool:
        """Tell whether the call was cancelled because its client left."""
        return visit in self._left

    def _look(self) -> None:
        for visit, (receive, task) in self._older.items():
            self._workers[visit] = asyncio.create_task(self._attend(visit, receive, task))
        self._older, self._new = self._new, {}
        self._timer = self._loop.call_later(TICK, self._look) if self._older else None

    async def _attend(self, visit: "Visit", receive: Receive, task: "asyncio.Task[Any] | None") -> None:
        gone = asyncio.create_task(client_gone(receive))
        wait = self._config.stream_after
        try:
            while True:
                done, _ = await asyncio.wait({gone}, timeout=wait)
                if done:
                    if task is not None:
                        self._left.add(visit)
                        task.cancel()
                    else:
                        visit.plane.waits.client_left(visit)
                    return
                await visit.reply.comment()
                wait = self._config.keepalive
        finally:
            gone.cancel()


async def client_gone(receive: Receive) -> None:
    """Return when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        continue
