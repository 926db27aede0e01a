"""Limits on calls: how many in a time, how many at once, how much may be spent; by key, user, role, tenant, server and tool.

A limit of a second, minute or hour is a token bucket: as many calls at once as the amount, refilled evenly over the window. One of a
day or month counts in calendar windows (UTC). A call takes from every limit that applies to it, or from none.
"""

import time
from calendar import monthrange
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from apps.common.errors import RateLimited
from apps.common.policy import matches

CALLS, CONCURRENT, SPEND = "calls", "concurrent", "spend"
BUCKETS = {"second": 1, "minute": 60, "hour": 3600}
"""Windows of token buckets, in seconds."""
CALENDAR = ("day", "month")
"""Windows that begin at midnight UTC, and on the first of a month."""
MOST = 32
"""Limits that one call takes from."""
SWEEP_AT = 20_000
"""Counters from which on those that say nothing any more are dropped, now and then."""


@dataclass(frozen=True, slots=True)
class LimitFacts:
    """One limit as the data plane needs it."""

    id: str
    tenant_id: str
    subject: str
    """`tenant`, `user:<id>`, `role:<id>`, `api_key:<id>`, `server:<id>` or `tool`."""
    label: str
    """Whose it is, in words."""
    measure: str
    """`calls`, `concurrent` or `spend`."""
    amount: int
    """Calls; of `spend` millionths of the currency's unit."""
    window: str = ""
    """`second`, `minute`, `hour`, `day`, `month`; empty for `concurrent`."""
    pattern: str = ""
    """Of `tool`: full names (`server__tool`), `*` matches any run of characters."""
    each: bool = False
    """Counts for each user alone, not for all together."""

    @property
    def seconds(self) -> int:
        """Return the length of the window, as a client reads it (a month has 30 days)."""
        return BUCKETS.get(self.window) or {"day": 86_400, "month": 2_592_000}.get(self.window, 0)


@dataclass(frozen=True, slots=True)
class LimitSet:
    """The limits of a tenant, laid out by what they are about."""

    by_subject: Mapping[str, tuple[LimitFacts, ...]] = field(default_factory=dict)
    tools: tuple[LimitFacts, ...] = ()

    @classmethod
    def of(cls, limits: Iterable[LimitFacts]) -> "LimitSet":
        """Lay them out."""
        found: dict[str, list[LimitFacts]] = {}
        tools = []
        for limit in limits:
            if limit.subject == "tool":
                tools.append(limit)
            else:
                found.setdefault(limit.subject, []).append(limit)
        return cls({subject: tuple(rows) for subject, rows in found.items()}, tuple(tools))


@dataclass(frozen=True, slots=True)
class Applied:
    """A limit and the counter that a call takes from."""

    limit: LimitFacts
    counter: str


def applying(
    limits: LimitSet, *, key_id: str, user_id: str, roles: Iterable[str], server_id: str, full_name: str
) -> tuple[Applied, ...]:
    """Return what a call takes from: at most 32 limits, the narrowest subject first."""
    subjects = [f"api_key:{key_id}"] if key_id else []
    subjects += [f"user:{user_id}", *(f"role:{role}" for role in roles), f"server:{server_id}", "tenant"]
    found = [limit for limit in limits.tools if matches(limit.pattern, full_name)]
    for subject in subjects:
        found += limits.by_subject.get(subject, ())
    return tuple(Applied(one, f"{one.id}:{user_id}" if one.each else one.id) for one in found[:MOST])


@dataclass(slots=True)
class Standing:
    """How a limit stands after a call took from it."""

    limit: LimitFacts
    remaining: int
    reset: float
    """Seconds until something, or with a calendar window everything, is free again."""


@dataclass(slots=True)
class Taken:
    """What a call took, to be given back when it is over."""

    applied: tuple[Applied, ...]
    standings: tuple[Standing, ...]
    token: str
    """The call's id."""
    reserved: int = 0
    """Millionths that were set aside."""
    local: bool = False
    """Taken from the counters of this process because those that processes share did not answer."""

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10) of the limits on calls in a time."""
        return header_fields(self.standings)


class Limiter(Protocol):
    """Keeps the counters."""

    async def take(self, applied: tuple[Applied, ...], token: str, reserve: int = 0, lease: float = 60.0) -> Taken:
        """Take a call from every limit, or raise RateLimited, which names the one that is reached, and take from none.

        `reserve` is what the call may cost, in millionths; `lease` is how long it may run, in seconds.
        """
        ...

    def give_back(self, taken: Taken, spent: int = 0) -> None:
        """The call is over and has cost this much; never waits."""
        ...

    async def stands(self, applied: Iterable[Applied]) -> dict[str, int]:
        """Return how much each counter has in use."""
        ...


def refusal(limit: LimitFacts, wait: float) -> RateLimited:
    """Return the error that says which limit is reached, and when to come back."""
    after = max(1, int(wait + 0.999))
    amount = f"{limit.amount / 1_000_000:.2f}" if limit.measure == SPEND else f"{limit.amount:,}"
    what = {CALLS: f"{amount} calls a {limit.window}", CONCURRENT: f"{amount} calls at once"}
    said = what.get(limit.measure, f"spending {amount} a {limit.window}")
    return RateLimited(
        f"The limit of {limit.label} is reached: {said}. Try again in {after:,} s.",
        retry_after=after,
        rule=f"limit:{limit.id}",
        limit={"id": limit.id, "measure": limit.measure, "amount": limit.amount, "window": limit.window},
    )


def header_fields(standings: Iterable[Standing]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the header fields that tell a client how its limits stand; none without a limit on calls in a time."""
    told = [one for one in standings if one.limit.measure == CALLS][:8]
    if not told:
        return ()
    policy = ", ".join(f'"{one.limit.id}";q={one.limit.amount};w={one.limit.seconds}' for one in told)
    state = ", ".join(f'"{one.limit.id}";r={max(0, one.remaining)};t={max(0, int(one.reset + 0.999))}' for one in told)
    return ((b"ratelimit-policy", policy.encode()), (b"ratelimit", state.encode()))


def calendar_window(window: str, now: float) -> tuple[int, int]:
    """Return the window of a day or month that a time (seconds since the epoch) falls in: its begin and its end."""
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "day":
        begin = int(day.timestamp())
        return begin, begin + 86_400
    first = day.replace(day=1)
    begin = int(first.timestamp())
    return begin, begin + 86_400 * monthrange(first.year, first.month)[1]


def window_of(limit: LimitFacts, today: float) -> tuple[int, int]:
    """Return begin and end of the window in which a limit counts now; shorter ones than a day are counted from the epoch."""
    length = BUCKETS.get(limit.window)
    if length is None:
        return calendar_window(limit.window, today)
    begin = int(today) // length * length
    return begin, begin + length


class MemoryLimiter:
    """Counters of one process. Exact: a call takes from all its limits in one step of the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, calendar: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._calendar = calendar
        self._buckets: dict[str, tuple[float, float, float]] = {}
        """counter → calls that may be made, as of when, when it is full again."""
        self._windows: dict[str, tuple[int, int]] = {}
        """counter → begin of its window, how much is used in it."""
        self._running: dict[str, int] = {}
        self._sweep_at = SWEEP_AT
        self._changed: set[str] = set()

    async def take(self, applied: tuple[Applied, ...], token: str, reserve: int = 0, lease: float = 60.0) -> Taken:
        """See `Limiter.take`."""
        return self.take_now(applied, token, reserve)

    def take_now(self, applied: tuple[Applied, ...], token: str, reserve: int = 0) -> Taken:
        """See `Limiter.take`."""
        now, today = self._clock(), self._calendar()
        longest: tuple[float, LimitFacts] | None = None
        for one in applied:
            wait = self._wait(one, now, today, reserve)
            if wait > 0 and (longest is None or wait > longest[0]):
                longest = wait, one.limit
        if longest is not None:
            raise refusal(longest[1], longest[0])
        standings = tuple(self._take(one, now, today, reserve) for one in applied)
        if len(self._buckets) + len(self._windows) > self._sweep_at:
            self._sweep(now)
        return Taken(applied, standings, token, reserve)

    def give_back(self, taken: Taken, spent: int = 0) -> None:
        """See `Limiter.give_back`."""
        for one in taken.applied:
            if one.limit.measure == CONCURRENT:
                left = self._running.get(one.counter, 0) - 1
                if left > 0:
                    self._running[one.counter] = left
                else:
                    self._running.pop(one.counter, None)
            elif one.limit.measure == SPEND and spent != taken.reserved:
                self._add(one, spent - taken.reserved, self._calendar())

    async def stands(self, applied: Iterable[Applied]) -> dict[str, int]:
        """See `Limiter.stands`."""
        now, today = self._clock(), self._calendar()
        return {one.counter: one.limit.amount - self._left(one, now, today) for one in applied}

    def remember(self, counter: str, begin: int, used: int) -> None:
        """Put a calendar window back as it was when the process before this one ended."""
        known = self._windows.get(counter)
        if known is None or known[0] < begin or (known[0] == begin and known[1] < used):
            self._windows[counter] = begin, used

    def take_changed(self) -> dict[str, tuple[int, int]]:
        """Return the days and months that changed since the last time, counter → begin and use: they are to outlive the process.

        May be called from another thread.
        """
        if not self._changed:
            return {}
        changed, self._changed = self._changed, set()
        known = [(counter, self._windows.get(counter)) for counter in list(changed)]
        return {counter: window for counter, window in known if window is not None}

    def _left(self, one: Applied, now: float, today: float) -> int:
        limit = one.limit
        if limit.measure == CONCURRENT:
            return limit.amount - self._running.get(one.counter, 0)
        if limit.window in BUCKETS and limit.measure == CALLS:
            return int(self._level(one, now) + 1e-9)
        return limit.amount - self._used(one, today)

    def _level(self, one: Applied, now: float) -> float:
        amount, seconds = one.limit.amount, BUCKETS[one.limit.window]
        level, at, _ = self._buckets.get(one.counter, (float(amount), now, now))
        return min(float(amount), level + (now - at) * amount / seconds)

    def _used(self, one: Applied, today: float) -> int:
        begin, used = self._windows.get(one.counter, (0, 0))
        return used if begin == window_of(one.limit, today)[0] else 0

    def _wait(self, one: Applied, now: float, today: float, reserve: int) -> float:
        """Return the seconds until a call could be taken; 0 = now."""
        limit = one.limit
        if limit.measure == CONCURRENT:
            return 1.0 if self._running.get(one.counter, 0) >= limit.amount else 0.0
        if limit.measure == SPEND:
            used = self._used(one, today)
            full = used >= limit.amount or used + reserve > limit.amount
            return window_of(limit, today)[1] - today if full else 0.0
        if limit.window in BUCKETS:
            level = self._level(one, now)
            if limit.amount == 0:
                return float(BUCKETS[limit.window])
            return 0.0 if level >= 1 - 1e-9 else (1 - level) * BUCKETS[limit.window] / limit.amount
        return window_of(limit, today)[1] - today if self._used(one, today) >= limit.amount else 0.0

    def _take(self, one: Applied, now: float, today: float, reserve: int) -> Standing:
        limit = one.limit
        if limit.measure == CONCURRENT:
            running = self._running[one.counter] = self._running.get(one.counter, 0) + 1
            return Standing(limit, limit.amount - running, 0)
        if limit.measure == SPEND:
            self._add(one, reserve, today)
            return Standing(limit, limit.amount - self._used(one, today), window_of(limit, today)[1] - today)
        if limit.window in BUCKETS:
            level = max(0.0, self._level(one, now) - 1)
            per_call = BUCKETS[limit.window] / limit.amount
            self._buckets[one.counter] = level, now, now + (limit.amount - level) * per_call
            return Standing(limit, int(level + 1e-9), per_call * (1 - level % 1) if level < limit.amount else 0)
        self._add(one, 1, today)
        return Standing(limit, limit.amount - self._used(one, today), window_of(limit, today)[1] - today)

    def _add(self, one: Applied, amount: int, today: float) -> None:
        begin = window_of(one.limit, today)[0]
        self._windows[one.counter] = begin, max(0, self._used(one, today) + amount)
        if one.limit.window in CALENDAR:
            self._changed.add(one.counter)

    def _sweep(self, now: float) -> None:
        """Forget buckets that are full again, and windows of long ago."""
        oldest = self._calendar() - 32 * 86_400
        self._buckets = {counter: state for counter, state in self._buckets.items() if state[2] > now}
        self._windows = {counter: state for counter, state in self._windows.items() if state[0] > oldest}
        self._sweep_at = max(SWEEP_AT, 2 * (len(self._buckets) + len(self._windows)))
