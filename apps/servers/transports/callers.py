"""What a server keeps for a session belongs to whoever it was made for: each caller has a session of their own.

That holds where the protocol has sessions (Streamable HTTP of the initialize era, HTTP+SSE). Modern servers keep none, and a
program on standard input and output has one for all callers but those whom it may ask something.
"""

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

from apps.common.background import Background
from apps.common.errors import AddressRefused, UpstreamError, UpstreamUnavailable
from apps.common.jsontext import dumps
from apps.servers.transports.base import Description, Json, UpstreamAnswer, UpstreamEvents, UpstreamRequest, takes_requests
from apps.servers.transports.era import LEGACY
from apps.servers.transports.everything import Seen
from apps.servers.transports.loose_questions import LEFT_SECONDS
from apps.servers.transports.sse import SseUpstream
from apps.servers.transports.stdio import StdioUpstream

MOST = 1_000
"""Callers with a session at one endpoint; beyond that the session that was idle longest ends."""
END_SECONDS = 3.0
"""For all sessions together to be ended when the way to a server is closed."""
OWN = 32
"""Sessions of one caller, who may declare other capabilities each time; beyond that the one of its own that was idle longest ends."""
ASKERS = 16
"""Processes of one stdio server beside the common one, each for a caller who takes its requests."""
ASKERS_SHARE = 4
"""One caller may have this part of them, over all of its sessions: 4."""
LANES = 8
"""Ways of one caller without sessions to a server whose questions cannot be tied to a call."""
_AT_ONCE = 16

T = TypeVar("T")


class _Kept(Generic[T]):
    __slots__ = ("in_use", "owner", "thing", "used")

    def __init__(self, thing: T, owner: str) -> None:
        self.thing = thing
        self.owner = owner
        self.in_use = 0
        self.used = 0.0


class Callers(Generic[T]):
    """One thing for each caller, made when first used, ended when idle for `idle_seconds`. Belongs to one event loop."""

    def __init__(
        self,
        make: Callable[[str, Json], T],
        end: Callable[[T], Awaitable[None]],
        idle_seconds: float,
        most: int | None = None,
        each: int | None = None,
    ) -> None:
        self._make = make
        self._most = MOST if most is None else most
        self._each = OWN if each is None else each
        self._end = end
        self._idle = idle_seconds
        self._kept: OrderedDict[str, _Kept[T]] = OrderedDict()
        self._ending = Background()
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[T]:
        return iter([kept.thing for kept in self._kept.values()])

    def kept(self, caller: str, declared: Json | None = None) -> T | None:
        """Return a caller's own, if there is one now."""
        kept = self._kept.get(place_of(caller, declared))
        return kept.thing if kept is not None else None

    @contextmanager
    def use(self, caller: str, declared: Json | None = None, owner: str = "") -> Iterator[T]:
        """Give a caller's own, which does not end meanwhile. Raises UpstreamUnavailable once closed, and when all are in use.

        With other capabilities `declared` it is another one: a session's are said once, at its start. It counts as its `owner`'s, who is
        the caller unless another is named.
        """
        if self._closed:
            raise UpstreamUnavailable("The connection to the server is closed.")
        owner = owner or caller
        caller = place_of(caller, declared)
        kept = self._kept.get(caller)
        if kept is None:
            self._make_room(owner)
            kept = self._kept[caller] = _Kept(self._make(caller, declared or {}), owner)
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
        self._ending.cancel()

    def _make_room(self, owner: str) -> None:
        own = [caller for caller, kept in self._kept.items() if kept.owner == owner]
        if len(own) >= self._each:
            idle = next((caller for caller in own if not self._kept[caller].in_use), None)
            if idle is None:
                raise UpstreamUnavailable(
                    f"This caller has {self._each} sessions in use at this server, the limit. Try again shortly."
                )
            self._drop(idle)
        if len(self._kept) < self._most:
            return
        idle = next((caller for caller, kept in self._kept.items() if not kept.in_use), None)
        if idle is None:
            raise UpstreamUnavailable(
                f"{self._most:,} callers use this server at the same time, the limit here. Try again shortly."
            )
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
        self._ending.start(self._quietly(self._kept.pop(caller).thing))

    async def _quietly(self, thing: T) -> None:
        with contextlib.suppress(UpstreamError, AddressRefused, TimeoutError):
            await self._end(thing)


def place_of(caller: str, declared: Json | None) -> str:
    """Return what tells a caller's own from others': with other capabilities declared it is another one."""
    return f"{caller} {hashlib.sha256(dumps(declared)).hexdigest()}" if declared else caller


def way_of(request: UpstreamRequest) -> str:
    """Return whose way to a server with one shared channel a request goes: the session's where its client may be asked something."""
    return request.caller if request.on_request is None else f"{request.caller} {request.session}".rstrip()


Whole = Callable[[UpstreamEvents], SseUpstream | StdioUpstream] | None
"""Makes the way that declares everything; None where the common one does already."""


@asynccontextmanager
async def _everything(
    own: SseUpstream | StdioUpstream, make: Whole, events: UpstreamEvents
) -> AsyncIterator[tuple[SseUpstream | StdioUpstream, Json]]:
    """Open a way that declares everything, and end it with the block; see `Upstream.everything`."""
    upstream = own if make is None else make(events)
    try:
        yield upstream, (await upstream.describe()).capabilities
    finally:
        if upstream is not own:
            await upstream.aclose("idle")


class Lanes:
    """Calls of one caller at an HTTP+SSE server, where nothing tells its clients apart: each that may be asked something goes its own
    way at the same time, since on a shared channel nobody knows which call a question belongs to. Calls of a session share one way.
    A stdio program is not started once more for each call: what it keeps in its memory would be in another process.
    """

    def __init__(self) -> None:
        self._busy: dict[str, set[int]] = {}

    @contextmanager
    def take(self, request: UpstreamRequest) -> Iterator[str]:
        """Give the name of the way for a call; beyond `LANES` at once they share the first."""
        if request.session or request.on_request is None:
            yield way_of(request)
            return
        busy = self._busy.setdefault(request.caller, set())
        number = next((one for one in range(LANES) if one not in busy), None)
        if number is None:
            yield request.caller
            return
        busy.add(number)
        try:
            yield f"{request.caller} #{number}" if number else request.caller
        except BaseException:  # the server may still be at it, and ask
            asyncio.get_running_loop().call_later(LEFT_SECONDS, self._free, request.caller, number)
            raise
        self._free(request.caller, number)

    def _free(self, caller: str, number: int) -> None:
        busy = self._busy[caller]
        busy.discard(number)
        if not busy:
            del self._busy[caller]


class Standing(Generic[T]):
    """Callers who watch resources: their own is kept and listened to meanwhile."""

    def __init__(
        self, callers: Callers[T], listen: Callable[[T], Coroutine[Any, Any, None]], watching: Callable[[T], bool]
    ) -> None:
        self._callers = callers
        self._listen = listen
        self._watching = watching
        self._held: dict[str, tuple[AbstractContextManager[T], asyncio.Task[None]]] = {}

    async def watch(
        self, request: UpstreamRequest, send: Callable[[T], Awaitable[UpstreamAnswer]], caller: str = "", owner: str = ""
    ) -> UpstreamAnswer:
        """Subscribe or unsubscribe with what is the caller's own; see Upstream.watch. `caller` is `request.caller` by default."""
        caller = caller or request.caller
        place = place_of(caller, request.declared)
        with self._callers.use(caller, request.declared, owner) as own:
            answer = await send(own)
            if not self._watching(own):
                self._give_up(place)
            elif place not in self._held:
                use = self._callers.use(caller, request.declared, owner)
                use.__enter__()
                self._held[place] = (use, asyncio.get_running_loop().create_task(self._listen(own)))
        return replace(answer, place=place)

    def _give_up(self, place: str) -> None:
        held = self._held.pop(place, None)
        if held is not None:
            held[1].cancel()
            held[0].__exit__(None, None, None)

    async def aclose(self) -> None:
        """Listen to nobody any more."""
        tasks = [task for _, task in self._held.values()]
        for place in tuple(self._held):
            self._give_up(place)
        await asyncio.gather(*tasks, return_exceptions=True)


class UpstreamOfAskers:
    """A stdio upstream: one process for all, and one for each session (or caller) that takes a legacy server's requests.

    What such a program asks cannot be tied to a call, so it must not be one that others use. A modern program asks in its
    answers and serves everybody. Beyond `ASKERS` in use at once, or its own share of them, a caller uses the common process, which is told
    that its clients take no requests; what it asks all the same is refused with the reason.
    """

    def __init__(
        self, own: StdioUpstream, make: Callable[[str, Json], StdioUpstream], idle_seconds: float, whole: Whole = None
    ) -> None:
        self._own = own
        self._whole = whole
        self.seen = Seen()
        self._askers: Callers[StdioUpstream] = Callers(
            make, lambda upstream: upstream.aclose("idle"), idle_seconds, ASKERS, max(1, ASKERS // ASKERS_SHARE)
        )
        self._standing = Standing(self._askers, StdioUpstream.listen, lambda upstream: upstream.watching)

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """See Upstream."""
        if not await self._asks(request):
            return await self._own.call(request)
        try:
            use = self._askers.use(way_of(request), request.declared, request.caller)
            upstream = use.__enter__()
        except UpstreamUnavailable as full:
            request.on_request = None
            request.unasked = f"The client cannot be asked now: every process that may ask it is in use. {full.detail}"
            return await self._own.call(request)
        try:
            return await upstream.call(request)
        finally:
            use.__exit__(None, None, None)

    async def describe(self, *, survey: bool = False) -> Description:
        """See Upstream."""
        return await self._own.describe(survey=survey)

    def everything(self, events: UpstreamEvents) -> AbstractAsyncContextManager[tuple[SseUpstream | StdioUpstream, Json]]:
        """See Upstream."""
        return _everything(self._own, self._whole, events)

    async def _asks(self, request: UpstreamRequest) -> bool:
        return takes_requests(request.declared) and await self._own.era() == LEGACY

    async def watch(self, request: UpstreamRequest) -> UpstreamAnswer:
        """See Upstream."""
        if not await self._asks(request):
            return await self._own.watch(request)
        try:
            send = partial(StdioUpstream.watch, request=request)
            return await self._standing.watch(request, send, way_of(request), request.caller)
        except UpstreamUnavailable:
            return await self._own.watch(request)

    async def notify(self, method: str, params: Json | None = None, request: UpstreamRequest | None = None) -> None:
        """See Upstream."""
        if request is None:
            await self._own.notify(method, params)
            return
        own = self._askers.kept(way_of(request), request.declared)
        if own is not None:
            await own.notify(method, params)

    async def listen(self) -> None:
        """See Upstream."""
        await self._own.listen()

    async def aclose(self, reason: str = "stopped") -> None:
        """See Upstream."""
        await self._standing.aclose()
        await asyncio.gather(self._askers.aclose(), self._own.aclose(reason))

    def stats(self) -> Json:
        """Return the figures of the common process, with `in_flight` and `calls` of all, and `sessions` where there are others."""
        facts, others = self._own.stats(), [upstream.stats() for upstream in self._askers]
        for one in others:
            facts["in_flight"] += one["in_flight"]
            facts["calls"] += one["calls"]
        return {**facts, "sessions": len(others)} if others else facts


class UpstreamOfEach:
    """An SSE upstream that gives each caller one of their own, and has one for itself: to describe, to listen and to notify."""

    def __init__(
        self, own: SseUpstream, make: Callable[[str, Json], SseUpstream], idle_seconds: float, whole: Whole = None
    ) -> None:
        self._own = own
        self._whole = whole
        self.seen = Seen()
        self._callers: Callers[SseUpstream] = Callers(make, lambda upstream: upstream.aclose("idle"), idle_seconds)
        self._lanes = Lanes()
        self._standing = Standing(self._callers, SseUpstream.listen, lambda upstream: upstream.watching)
        self._calls = 0
        self._in_flight = 0

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """See Upstream."""
        if not request.caller:
            return await self._own.call(request)
        with self._lanes.take(request) as way, self._callers.use(way, request.declared) as upstream:
            self._calls += 1
            self._in_flight += 1
            try:
                return await upstream.call(request)
            finally:
                self._in_flight -= 1

    async def describe(self, *, survey: bool = False) -> Description:
        """See Upstream."""
        return await self._own.describe(survey=survey)

    def everything(self, events: UpstreamEvents) -> AbstractAsyncContextManager[tuple[SseUpstream | StdioUpstream, Json]]:
        """See Upstream."""
        return _everything(self._own, self._whole, events)

    async def watch(self, request: UpstreamRequest) -> UpstreamAnswer:
        """See Upstream."""
        if not request.caller:
            return await self._own.watch(request)
        return await self._standing.watch(request, lambda upstream: upstream.watch(request), way_of(request))

    async def notify(self, method: str, params: Json | None = None, request: UpstreamRequest | None = None) -> None:
        """See Upstream."""
        own = self._own if request is None else self._callers.kept(way_of(request), request.declared)
        if own is not None:
            await own.notify(method, params)

    async def listen(self) -> None:
        """See Upstream."""
        await self._own.listen()

    async def aclose(self, reason: str = "stopped") -> None:
        """See Upstream."""
        await self._standing.aclose()
        await self._callers.aclose()
        await self._own.aclose(reason)

    def stats(self) -> Json:
        """Return `in_flight` and `calls` of all callers, and `sessions`."""
        own = self._own.stats()
        in_flight, calls = own["in_flight"] + self._in_flight, own["calls"] + self._calls
        return {**own, "in_flight": in_flight, "calls": calls, "sessions": len(self._callers)}
