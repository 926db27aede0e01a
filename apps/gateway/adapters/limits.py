"""Counters of limits that several processes share, in Redis: one script looks at all limits of a call and takes from all or none."""

import asyncio
import logging
import time
from collections.abc import Iterable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from apps.gateway.plane.limits import (
    BUCKETS,
    CALLS,
    CONCURRENT,
    SPEND,
    Applied,
    MemoryLimiter,
    Standing,
    Taken,
    refusal,
    window_of,
)

logger = logging.getLogger(__name__)

_NAME = "switchyard:limit:"
LEASE_SECONDS, RENEW_SECONDS = 60, 20
"""A call at once counts so long after its process was last heard of."""
PAUSE_SECONDS = 1.0
"""After a failure the counters of this process serve so long before Redis is asked again."""
AT_ONCE = 16
"""Questions to Redis at a time: each needs a connection, and too few of them must not look like a Redis that is gone."""
WAITING = 10_000
"""Calls to give back that wait for Redis; what is beyond runs out by its lease."""

_TAKE = """
local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1000000
local found, longest, which = {}, 0, 0
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 5
  local kind, amount, length, more, stop = ARGV[at+2], tonumber(ARGV[at+3]), tonumber(ARGV[at+4]), tonumber(ARGV[at+5]), tonumber(ARGV[at+6])
  local wait = 0
  if kind == 'at-once' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    found[i] = redis.call('ZCARD', key)
    if found[i] >= amount then wait = 1 end
  elseif kind == 'bucket' then
    local state = redis.call('HMGET', key, 'level', 'at')
    local level = amount
    if state[1] then level = math.min(amount, tonumber(state[1]) + math.max(0, now - tonumber(state[2])) * amount / length) end
    found[i] = level
    if level < 0.999999999 then
      if amount == 0 then wait = length else wait = (1 - level) * length / amount end
    end
  else
    found[i] = tonumber(redis.call('GET', key) or '0')
    if found[i] >= amount or found[i] + more > amount then wait = math.max(1, stop - now) end
  end
  if wait > longest then longest, which = wait, i end
end
if which > 0 then return {which, tostring(longest)} end
local answer = {0}
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 5
  local kind, amount, length, more, stop = ARGV[at+2], tonumber(ARGV[at+3]), tonumber(ARGV[at+4]), tonumber(ARGV[at+5]), tonumber(ARGV[at+6])
  if kind == 'at-once' then
    redis.call('ZADD', key, now + length, ARGV[1])
    redis.call('EXPIRE', key, math.ceil(length) + 60)
    answer[#answer+1] = tostring(amount - found[i] - 1)
  elseif kind == 'bucket' then
    local level = math.max(0, found[i] - 1)
    redis.call('HSET', key, 'level', string.format('%.9f', level), 'at', string.format('%.6f', now))
    redis.call('EXPIRE', key, math.ceil(length) + 60)
    answer[#answer+1] = string.format('%.9f', level)
  else
    local used = redis.call('INCRBY', key, more)
    redis.call('EXPIREAT', key, math.ceil(stop) + 60)
    answer[#answer+1] = tostring(amount - used)
  end
end
return answer
"""
"""KEYS: a counter of each limit. ARGV: the call, then for each limit kind, amount, length in seconds, what is added, end of the window."""


class RedisLimiter:
    """See `plane.limits.Limiter`. While Redis does not answer, the counters of this process serve alone."""

    def __init__(self, client: Redis, local: MemoryLimiter | None = None) -> None:
        self._client = client
        self._script = client.register_script(_TAKE)
        self._local = local or MemoryLimiter()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._asleep_until = 0.0
        self._held: dict[str, list[str]] = {}
        """call → counters of calls at once that it is in."""
        self._orders: asyncio.Queue[tuple[str, list[str], list[tuple[str, int]]]] = asyncio.Queue(WAITING)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to give back and to renew; on the loop."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._give(), name="limits given back"),
            loop.create_task(self._renew(), name="limits held"),
        ]

    async def aclose(self) -> None:
        """Give back what is left, for a moment, and end."""
        try:
            await asyncio.wait_for(self._orders.join(), 1.0)
        except TimeoutError:
            pass
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def take(self, applied: tuple[Applied, ...], token: str, reserve: int = 0, lease: float = 60.0) -> Taken:
        """See `Limiter.take`."""
        if time.monotonic() < self._asleep_until:
            return self._alone(applied, token, reserve)
        today = time.time()
        keys, arguments = [], [token]
        for one in applied:
            key, words = _words(one, reserve, today)
            keys.append(key)
            arguments += words
        try:
            async with self._room:
                answer = await self._script(keys=keys, args=arguments)
        except (RedisError, OSError, TimeoutError) as error:
            self._asleep_until = time.monotonic() + PAUSE_SECONDS
            logger.warning("limits are counted in this process alone: Redis does not answer (%s)", type(error).__name__)
            return self._alone(applied, token, reserve)
        if int(answer[0]):
            raise refusal(applied[int(answer[0]) - 1].limit, float(answer[1]))
        if held := [key for one, key in zip(applied, keys, strict=True) if one.limit.measure == CONCURRENT]:
            self._held[token] = held
        standings = tuple(_standing(one, float(left), today) for one, left in zip(applied, answer[1:], strict=True))
        return Taken(applied, standings, token, reserve)

    def _alone(self, applied: tuple[Applied, ...], token: str, reserve: int) -> Taken:
        taken = self._local.take_now(applied, token, reserve)
        taken.local = True
        return taken

    def give_back(self, taken: Taken, spent: int = 0) -> None:
        """See `Limiter.give_back`."""
        if taken.local:
            self._local.give_back(taken, spent)
            return
        held = self._held.pop(taken.token, [])
        today = time.time()
        over = spent - taken.reserved
        spends = [(_words(one, 0, today)[0], over) for one in taken.applied if one.limit.measure == SPEND and over]
        if held or spends:
            try:
                self._orders.put_nowait((taken.token, held, spends))
            except asyncio.QueueFull:
                logger.warning("a call is not given back to its limits: too many wait for Redis")

    async def stands(self, applied: Iterable[Applied]) -> dict[str, int]:
        """See `Limiter.stands`."""
        today, found = time.time(), {}
        try:
            for one in applied:
                key, (kind, *_) = _words(one, 0, today)
                if kind == "at-once":
                    found[one.counter] = int(await self._client.zcount(key, today, "+inf"))
                elif kind == "bucket":
                    state = await self._client.hmget(key, ["level", "at"])
                    amount, left = one.limit.amount, float(one.limit.amount)
                    if state[0] is not None and state[1] is not None:
                        level, at = float(state[0]), float(state[1])
                        left = min(left, level + (today - at) * amount / BUCKETS[one.limit.window])
                    found[one.counter] = amount - int(left)
                else:
                    found[one.counter] = int(await self._client.get(key) or 0)
        except (RedisError, OSError):
            return {}
        return found

    async def _give(self) -> None:
        while True:
            token, held, spends = await self._orders.get()
            try:
                pipe = self._client.pipeline(transaction=False)
                for key in held:
                    pipe.zrem(key, token)
                for key, amount in spends:
                    pipe.incrby(key, amount)
                await pipe.execute()
            except (RedisError, OSError):
                logger.warning("a call is not given back to its limits: Redis does not answer")
            finally:
                self._orders.task_done()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if not self._held:
                continue
            until = time.time() + LEASE_SECONDS
            try:
                pipe = self._client.pipeline(transaction=False)
                for token, keys in self._held.items():
                    for key in keys:
                        pipe.zadd(key, {token: until}, xx=True)
                        pipe.expire(key, LEASE_SECONDS + 60)
                await pipe.execute()
            except (RedisError, OSError):
                continue


def _words(one: Applied, reserve: int, today: float) -> tuple[str, list[str]]:
    """Return the counter's name in Redis and what the script is told of the limit."""
    limit = one.limit
    if limit.measure == CONCURRENT:
        return f"{_NAME}{one.counter}", ["at-once", str(limit.amount), str(LEASE_SECONDS), "0", "0"]
    if limit.measure == CALLS and limit.window in BUCKETS:
        return f"{_NAME}{one.counter}", ["bucket", str(limit.amount), str(BUCKETS[limit.window]), "0", "0"]
    begin, end = window_of(one.limit, today)
    more = reserve if limit.measure == SPEND else 1
    return f"{_NAME}{one.counter}:{begin}", ["window", str(limit.amount), "0", str(more), str(end)]


def _standing(one: Applied, left: float, today: float) -> Standing:
    limit = one.limit
    if limit.measure == CONCURRENT:
        return Standing(limit, int(left), 0)
    if limit.measure == CALLS and limit.window in BUCKETS:
        per_call = BUCKETS[limit.window] / max(1, limit.amount)
        return Standing(limit, int(left + 1e-9), per_call * (1 - left % 1) if left < limit.amount else 0)
    return Standing(limit, int(left), window_of(one.limit, today)[1] - today)
