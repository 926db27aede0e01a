"""Work that runs beside: started now, held until it is done."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """Tasks that nobody waits for, of one owner. Belongs to one event loop, which itself holds tasks weakly: one that nobody else
    holds may vanish in the middle.
    """

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin a piece of work. What it raises is logged by asyncio."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """Cancel what runs; it ends a moment later."""
        for task in self._tasks:
            task.cancel()

    async def finished(self, seconds: float) -> None:
        """Return when everything that runs now is done, or after so long."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=seconds)

    async def aclose(self) -> None:
        """Cancel what runs, and return when it has ended."""
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
