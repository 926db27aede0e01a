"""The bookkeeping that every transport shares: time limits, counting, and ending what is in flight."""

import asyncio

from apps.common.errors import UpstreamDied, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from apps.servers.transports.base import Json, OnRequest, UpstreamRequest

ASK_SECONDS = 600.0
"""For a client to answer what a server asks it during a call."""


class Calls:
    """Calls in flight of one upstream. Each runs inside the `asyncio.Timeout` that `begin` gives."""

    def __init__(self) -> None:
        self.total = 0
        self.closed = False
        self.last_end = 0.0
        self._limits: set[asyncio.Timeout] = set()

    @property
    def in_flight(self) -> int:
        """Return how many calls wait for their answer."""
        return len(self._limits)

    def begin(self, request: UpstreamRequest) -> asyncio.Timeout:
        """Return the time limit to run the call in; `end` must follow. UpstreamUnavailable once closed."""
        if self.closed:
            raise UpstreamUnavailable("The connection to the server is closed.")
        self.total += 1
        limit = asyncio.timeout(request.timeout)
        self._limits.add(limit)
        if request.on_request is not None:
            request.on_request = self._patient(limit, request.on_request)
        return limit

    def _patient(self, limit: asyncio.Timeout, ask: OnRequest) -> OnRequest:
        """Return `ask` with the call's clock stopped while the client is asked: people answer more slowly than servers."""
        asking = 0
        left = 0.0

        async def asked(message: Json) -> Json:
            nonlocal asking, left
            now = asyncio.get_running_loop().time
            if not asking:
                left = (limit.when() or now()) - now()
                limit.reschedule(now() + ASK_SECONDS)
            asking += 1
            try:
                return await ask(message)
            finally:
                asking -= 1
                if not asking and limit in self._limits and not self.closed:
                    limit.reschedule(now() + left)

        return asked

    def end(self, limit: asyncio.Timeout) -> None:
        """Note that the call is over."""
        self._limits.discard(limit)
        self.last_end = asyncio.get_running_loop().time()

    def expired(self, request: UpstreamRequest) -> UpstreamError:
        """Return the error for a call whose limit struck: its time is over, or the upstream was closed under it."""
        if self.closed:
            return UpstreamDied("The connection to the server was closed during the call.")
        return UpstreamTimeout(f"The server did not answer within {request.timeout:g} s.")

    async def drained(self) -> None:
        """After `close`: let the ended calls clean up behind them."""
        for _ in range(100):
            if not self._limits:
                return
            await asyncio.sleep(0)

    def close(self) -> None:
        """Refuse new calls and end those in flight."""
        self.closed = True
        now = asyncio.get_running_loop().time()
        for limit in list(self._limits):
            limit.reschedule(now)
