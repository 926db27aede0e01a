"""What a server may make us do unasked: bounded lanes for what goes to it beside the calls, and a pace for what comes."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from apps.common.background import Background
from apps.common.errors import AddressRefused, UpstreamError, UpstreamProtocolError

LANE_SECONDS = 5.0
"""For one piece of work in a lane; then it is given up."""
REPLIES, REPLY_BYTES = 1024, 4 * 1024 * 1024
"""Replies to one endpoint's own requests that may wait, and their bytes: a few for each of its calls in flight."""
NOTICES = 4096
"""Cancellation notices that may wait: more than an endpoint has calls, over and over."""
REPLY_WIDTH, NOTICE_WIDTH = 4, 8
"""How many of each are on their way at the same time, each on a connection."""
PACE_SECONDS = 10.0


class Flooded(UpstreamProtocolError):
    """The server sends more than any client could deal with; what carried it is ended. Stays inside the transports."""

    def plain(self) -> UpstreamProtocolError:
        """Return the error as callers get it."""
        return UpstreamProtocolError(self.detail)


class Lane:
    """Short errands that nobody waits for: in order, `width` at a time, at most `most` of them (and `most_bytes`) waiting.

    Each has 5 s; what fails of the upstream family is of no consequence.
    """

    __slots__ = ("_most", "_most_bytes", "_running", "_size", "_waiting", "_width", "_working")

    def __init__(self, width: int, most: int, most_bytes: int) -> None:
        self._width = width
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: deque[tuple[Callable[[], Awaitable[None]], int]] = deque()
        self._size = 0
        self._running = 0
        self._working = Background()

    def put(self, errand: Callable[[], Awaitable[None]], size: int) -> bool:
        """Take an errand that holds `size` bytes; False when the lane is full, and it is not done then."""
        if len(self._waiting) >= self._most or self._size + size > self._most_bytes:
            return False
        self._waiting.append((errand, size))
        self._size += size
        if self._running < self._width:
            self._running += 1
            self._working.start(self._work())
        return True

    def clear(self) -> None:
        """Drop what waits."""
        self._waiting.clear()
        self._size = 0

    def drop_first(self) -> None:
        """Drop what has waited longest."""
        if self._waiting:
            self._size -= self._waiting.popleft()[1]

    async def _work(self) -> None:
        try:
            while self._waiting:
                errand, size = self._waiting.popleft()
                self._size -= size
                with suppress(UpstreamError, AddressRefused, TimeoutError):
                    async with asyncio.timeout(LANE_SECONDS):
                        await errand()
        finally:
            # Not when the task counts as done, which is later: what is put in between must find a free place.
            self._running -= 1

    async def aclose(self) -> None:
        """Drop what waits and end what is on its way."""
        self.clear()
        await self._working.aclose()


class Pace:
    """How much may come in any 10 s (counted in windows of that length)."""

    __slots__ = ("_left", "_most", "_until", "_what")

    def __init__(self, most: int, what: str) -> None:
        self._most = self._left = most
        self._what = what
        self._until = 0.0

    def spend(self, amount: int) -> None:
        """Count `amount`; raise Flooded when it is more than this window allows."""
        self._left -= amount
        if self._left < 0:
            now = time.monotonic()
            if now < self._until:
                raise Flooded(f"The server floods with {self._what}.")
            self._until = now + PACE_SECONDS
            self._left = self._most - min(amount, self._most)


class Turns:
    """Keeps one stream from holding the event loop: after 5 ms of work the others get their turn."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since = time.monotonic()

    def begin(self) -> None:
        """Note that the others have just had theirs."""
        self._since = time.monotonic()

    async def give(self) -> None:
        """Let the others go first if this one has worked for long."""
        if time.monotonic() - self._since > 0.005:
            await asyncio.sleep(0)
            self._since = time.monotonic()
