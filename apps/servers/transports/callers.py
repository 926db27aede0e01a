"""What a server keeps for a session belongs to whoever it was made for: each caller has a session of their own.

That holds where the protocol has sessions (Streamable HTTP of the initialize era, HTTP+SSE). Modern servers keep none, and a
program on standard input and output has one for all.
"""

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

from apps.common.errors import AddressRefused, UpstreamError, UpstreamUnavailable
from apps.common.jsontext import dumps
from apps.servers.transports.base import Description, Json, Upstream, UpstreamAnswer, UpstreamRequest

MOST = 1_000
"""Callers with a session at one endpoint; beyond that the session that was idle longest ends."""
END_SECONDS = 3.0
"""For all sessions together to be ended when the way to a server is closed."""
_AT_ONCE = 16

T = TypeVar("T")


class _Kept(Generic[T]):
    __slots__ = ("in_use", "thing", "used")

    def __init__(self, thing: T) -> None:
        self.thing = thing
        self.in_use = 0
        self.used = 0.0


class Callers(Generic[T]):
    """One thing for each caller, made when first used, ended when idle for `idle_seconds`. Belongs to one event loop."""

    def __init__(self, make: Callable[[Json], T], end: Callable[[T], Awaitable[None]], idle_seconds: float) -> None:
        self._make = make
        self._end = end
        self._idle = idle_seconds
        self._kept: OrderedDict[str, _Kept[T]] = OrderedDict()
        self._ending: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._kept)

    @contextmanager
    def use(self, caller: str, declared: Json | None = None) -> Iterator[T]:
        """Give a caller's own, which does not end meanwhile. Raises UpstreamUnavailable once closed, and when all are in use.

        With other capabilities `declared` it is another one: a session's are said once, at its start.
        """
        if self._closed:
            raise UpstreamUnavailable("The connection to the server is closed.")
        if declared:
            caller = f"{caller} {hashlib.sha256(dumps(declared)).hexdigest()}"
        kept = self._kept.get(caller)
        if kept is None:
            self._make_room()
            kept = self._kept[caller] = _Kept(self._make(declared or {}))
        self._kept.move_to_end(caller)
        kept.in_use += 1
        try:
            yield kept.thing
        finally:
            kept.in_use -= 1
            kept.used = asyncio.get_running_loop().time()
            if self._reaper is None and not self._closed:
                self._reaper = asyncio.get_running_loop().call_later(self._idle, self._reap)

    async def aclose(self) -> None:
        """End all of them, as far as that can be done in a few seconds."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        things = [kept.thing for kept in self._kept.values()]
        self._kept.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                for start in range(0, len(things), _AT_ONCE):
                    await asyncio.gather(*(self._quietly(one) for one in things[start : start + _AT_ONCE]))
        for task in self._ending:
            task.cancel()

    def _make_room(self) -> None:
        if len(self._kept) < MOST:
            return
        idle = next((caller for caller, kept in self._kept.items() if not kept.in_use), None)
        if idle is None:
            raise UpstreamUnavailable(f"{MOST:,} callers use this server at the same time, the limit here. Try again shortly.")
        self._drop(idle)

    def _reap(self) -> None:
        self._reaper = None
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._idle
        for caller in [caller for caller, kept in self._kept.items() if not kept.in_use and kept.used <= oldest]:
            self._drop(caller)
        if self._kept and not self._closed:
            self._reaper = loop.call_later(max(self._idle / 4, 0.05), self._reap)

    def _drop(self, caller: str) -> None:
        task = asyncio.get_running_loop().create_task(self._quietly(self._kept.pop(caller).thing))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _quietly(self, thing: T) -> None:
        with contextlib.suppress(UpstreamError, AddressRefused, TimeoutError):
            await self._end(thing)


class UpstreamOfEach:
    """An upstream that gives each caller one of their own, and has one for itself: to describe, to listen and to notify."""

    def __init__(self, own: Upstream, make: Callable[[Json], Upstream], idle_seconds: float) -> None:
        self._own = own
        self._callers: Callers[Upstream] = Callers(make, lambda upstream: upstream.aclose("idle"), idle_seconds)
        self._calls = 0
        self._in_flight = 0

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """See Upstream."""
        if not request.caller:
            return await self._own.call(request)
        with self._callers.use(request.caller, request.declared) as upstream:
            self._calls += 1
            self._in_flight += 1
            try:
                return await upstream.call(request)
            finally:
                self._in_flight -= 1

    async def describe(self) -> Description:
        """See Upstream."""
        return await self._own.describe()

    async def notify(self, method: str, params: Json | None = None) -> None:
        """See Upstream."""
        await self._own.notify(method, params)

    async def listen(self) -> None:
        """See Upstream."""
        await self._own.listen()

    async def aclose(self, reason: str = "stopped") -> None:
        """See Upstream."""
        await self._callers.aclose()
        await self._own.aclose(reason)

    def stats(self) -> Json:
        """Return `in_flight` and `calls` of all callers, and `sessions`."""
        own = self._own.stats()
        in_flight, calls = own["in_flight"] + self._in_flight, own["calls"] + self._calls
        return {**own, "in_flight": in_flight, "calls": calls, "sessions": len(self._callers)}
