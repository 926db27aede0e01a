"""The bookkeeping that every transport shares: time limits, counting, and ending what is in flight."""

import asyncio
from typing import Any

from apps.common.errors import UpstreamBusy, UpstreamDied, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from apps.servers.transports.base import LISTEN, Json, OnRequest, UpstreamRequest

ASK_SECONDS = 600.0
"""For a client to answer what a server asks it during a call."""


SWEEP_SECONDS = 0.05
"""How late a time limit may strike."""


class Limit:
    """The time limit of one call, entered by the task that makes it: as `asyncio.timeout`, at a sixth of its cost.

    It has no timer of its own; `Calls` looks at all of them together.
    """

    __slots__ = ("_cancelling", "_struck", "_task", "deadline")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        """Time of the loop."""
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._struck = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Raise TimeoutError in the place of the CancelledError that the limit caused."""
        task, self._task = self._task, None
        if self._struck and task is not None and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def strike(self) -> None:
        """End the call."""
        if self._task is not None and not self._struck:
            self._struck = True
            self._task.cancel()


class Calls:
    """Calls in flight of one upstream. Each runs inside the `Limit` that `begin` gives."""

    def __init__(self) -> None:
        self.total = 0
        self.closed = False
        self.last_end = 0.0
        self._limits: set[Limit] = set()
        self._standing: set[Limit] = set()
        self._loop = asyncio.get_running_loop()
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> int:
        """Return how many calls wait for their answer; subscriptions wait for none."""
        return len(self._limits) - len(self._standing)

    @property
    def standing(self) -> int:
        """Return how many subscriptions stand."""
        return len(self._standing)

    def begin(self, request: UpstreamRequest) -> Limit:
        """Return the time limit to run the call in; `end` must follow. UpstreamUnavailable once closed."""
        if self.closed:
            raise UpstreamUnavailable("The connection to the server is closed.")
        self.total += 1
        limit = Limit(self._loop.time() + request.timeout)
        self._limits.add(limit)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        if request.method == LISTEN:
            self._standing.add(limit)
        if request.on_request is not None:
            request.on_request = self._patient(limit, request.on_request)
        return limit

    def _patient(self, limit: Limit, ask: OnRequest) -> OnRequest:
        """Return `ask` with the call's clock stopped while the client is asked: people answer more slowly than servers."""
        asking = 0
        left = 0.0

        async def asked(message: Json) -> Json:
            nonlocal asking, left
            now = self._loop.time
            if not asking:
                left = limit.deadline - now()
                limit.deadline = now() + ASK_SECONDS
            asking += 1
            try:
                return await ask(message)
            finally:
                asking -= 1
                if not asking and limit in self._limits and not self.closed:
                    limit.deadline = now() + left

        return asked

    def end(self, limit: Limit) -> None:
        """Note that the call is over."""
        self._limits.discard(limit)
        self._standing.discard(limit)
        self.last_end = self._loop.time()

    def _sweep(self) -> None:
        """End the calls whose time is over; goes on while there are any."""
        self._sweeper = None
        if not self._limits:
            return
        now = self._loop.time()
        for limit in self._limits:
            if limit.deadline <= now:
                limit.strike()
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def expired(self, request: UpstreamRequest) -> UpstreamError:
        """Return the error for a call whose limit struck: its time is over, or the upstream was closed under it."""
        if self.closed:
            return UpstreamDied("The connection to the server was closed during the call.")
        if request.waits:
            return UpstreamBusy(
                "Another call with this key waits at this server for its client's answer. The server asks without saying which call it "
                "means, so that it gets such calls one at a time. Answer or cancel that call, or call again later."
            )
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
        for limit in self._limits:
            limit.strike()
        if self._sweeper is not None:
            self._sweeper.cancel()
