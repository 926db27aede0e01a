"""Counters of limits: exact, whole or not at all, the same in memory and in Redis."""

import asyncio
import time
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from apps.common.errors import RateLimited
from apps.gateway.adapters.limits import RedisLimiter
from apps.gateway.plane.limits import Applied, LimitFacts, LimitSet, MemoryLimiter, applying, calendar_window
from tests.factories import unique


def limit(id="", measure="calls", amount=10, window="minute", subject="tenant", **more) -> LimitFacts:
    window = "" if measure == "concurrent" else window
    return LimitFacts(id or unique("limit"), "tenant-1", subject, "the tenant", measure, amount, window, **more)


def at(*limits: LimitFacts) -> tuple[Applied, ...]:
    return tuple(Applied(one, one.id) for one in limits)


@pytest.fixture(params=["memory", "redis"])
async def limiter(request):
    if request.param == "memory":
        yield MemoryLimiter()
        return
    client = Redis.from_url(request.getfixturevalue("redis_url"))
    made = RedisLimiter(client)
    made.start()
    yield made
    await made.aclose()
    await client.aclose()


async def taken(limiter, applied, **more):
    """Return what was taken, or the refusal."""
    try:
        return await limiter.take(applied, unique("call"), **more)
    except RateLimited as error:
        return error


async def settled(limiter) -> None:
    """Wait until what was given back is there again."""
    if isinstance(limiter, RedisLimiter):
        await limiter._orders.join()


@pytest.mark.parametrize(
    "one", [limit(), limit(window="hour"), limit(window="day"), limit(window="month"), limit(measure="concurrent")]
)
async def test_of_200_at_once_the_amount_passes(limiter, one):
    found = await asyncio.gather(*(taken(limiter, at(one)) for _ in range(200)))
    refused = [error for error in found if isinstance(error, RateLimited)]
    assert len(refused) == 190
    assert refused[0].extra["rule"] == f"limit:{one.id}"
    assert refused[0].extra["retry_after"] >= 1
    assert refused[0].status == 429
    assert await limiter.stands(at(one)) == {one.id: 10}


async def test_two_processes_share_one_count(redis_url):
    clients = [Redis.from_url(redis_url) for _ in range(2)]
    first, second = (RedisLimiter(client) for client in clients)
    one = limit()
    found = await asyncio.gather(*(taken(limiter, at(one)) for _ in range(100) for limiter in (first, second)))
    assert sum(not isinstance(each, RateLimited) for each in found) == 10
    for client in clients:
        await client.aclose()


async def test_a_call_takes_from_all_its_limits_or_from_none(limiter):
    wide, narrow = limit(amount=100), limit(measure="concurrent", amount=1)
    first = await taken(limiter, at(wide, narrow))
    for _ in range(5):
        assert isinstance(await taken(limiter, at(wide, narrow)), RateLimited)
    assert (await limiter.stands(at(wide)))[wide.id] == 1
    limiter.give_back(first)
    await settled(limiter)
    assert not isinstance(await taken(limiter, at(wide, narrow)), RateLimited)
    assert (await limiter.stands(at(wide, narrow))) == {wide.id: 2, narrow.id: 1}


async def test_calls_at_once_are_given_back_once_each(limiter):
    one = limit(measure="concurrent", amount=3)
    running = [await taken(limiter, at(one)) for _ in range(3)]
    for each in running:
        limiter.give_back(each)
    await settled(limiter)
    assert await limiter.stands(at(one)) == {one.id: 0}


async def test_spending_is_set_aside_and_settled(limiter):
    one = limit(measure="spend", amount=1_000_000, window="day")
    found = await asyncio.gather(*(taken(limiter, at(one), reserve=300_000) for _ in range(10)))
    held = [each for each in found if not isinstance(each, RateLimited)]
    assert len(held) == 3
    for each in held:
        limiter.give_back(each, spent=100_000)
    await settled(limiter)
    assert await limiter.stands(at(one)) == {one.id: 300_000}
    last = await taken(limiter, at(one), reserve=700_000)
    limiter.give_back(last, spent=900_000)  # dearer than was said
    await settled(limiter)
    assert isinstance(await taken(limiter, at(one)), RateLimited)


async def test_an_amount_of_nought_stops_everything(limiter):
    for one in (
        limit(amount=0),
        limit(amount=0, window="day"),
        limit(measure="concurrent", amount=0),
        limit(measure="spend", amount=0),
    ):
        assert isinstance(await taken(limiter, at(one)), RateLimited), one


async def test_a_smaller_amount_counts_what_was_taken_before(limiter):
    one = limit(window="day")
    for _ in range(4):
        await taken(limiter, at(one))
    assert isinstance(await taken(limiter, at(limit(one.id, amount=4, window="day"))), RateLimited)
    assert not isinstance(await taken(limiter, at(limit(one.id, amount=5, window="day"))), RateLimited)


async def test_the_client_is_told_how_its_limits_stand(limiter):
    minute, day, at_once = limit(amount=60), limit(amount=5, window="day"), limit(measure="concurrent", amount=9)
    found = await taken(limiter, at(minute, day, at_once))
    headers = {name.decode(): value.decode() for name, value in found.headers}
    assert headers["ratelimit-policy"] == f'"{minute.id}";q=60;w=60, "{day.id}";q=5;w=86400'
    state = headers["ratelimit"].split(", ")
    assert state[0] == f'"{minute.id}";r=59;t=1'
    assert state[1].startswith(f'"{day.id}";r=4;t=')
    assert (await taken(limiter, at(at_once))).headers == ()


async def test_a_bucket_refills_evenly():
    now = [0.0]
    limiter = MemoryLimiter(clock=lambda: now[0])
    one = limit(amount=10)
    for _ in range(10):
        limiter.take_now(at(one), "call")
    with pytest.raises(RateLimited) as refused:
        limiter.take_now(at(one), "call")
    assert refused.value.extra["retry_after"] == 6
    now[0] = 6.0
    limiter.take_now(at(one), "call")
    with pytest.raises(RateLimited):
        limiter.take_now(at(one), "call")
    now[0] = 3600.0
    for _ in range(10):
        limiter.take_now(at(one), "call")
    with pytest.raises(RateLimited):
        limiter.take_now(at(one), "call")


async def test_a_bucket_in_redis_refills(redis_url):
    client = Redis.from_url(redis_url)
    limiter = RedisLimiter(client)
    one = limit(amount=20, window="second")
    while not isinstance(refused := await taken(limiter, at(one)), RateLimited):
        continue
    assert refused.extra["retry_after"] == 1
    async with asyncio.timeout(5):
        while isinstance(await taken(limiter, at(one)), RateLimited):
            await asyncio.sleep(0.01)
    await client.aclose()


async def test_days_and_months_begin_at_midnight_utc():
    moment = datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC).timestamp()
    limiter = MemoryLimiter(calendar=lambda: now)
    day, month = limit(amount=1, window="day"), limit(amount=2, window="month")
    now = moment
    limiter.take_now(at(day, month), "call")
    with pytest.raises(RateLimited) as refused:
        limiter.take_now(at(day, month), "call")
    assert refused.value.extra["retry_after"] == 1
    now = moment + 1  # the first of March
    limiter.take_now(at(day, month), "call")
    assert await limiter.stands(at(month)) == {month.id: 1}
    assert calendar_window("month", moment) == (1832976000, 1835481600)


async def test_days_outlive_the_process_and_an_older_count_takes_nothing_back():
    one = limit(window="day")
    first = MemoryLimiter()
    for _ in range(3):
        first.take_now(at(one), "call")
    kept = first.take_changed()
    assert first.take_changed() == {}
    second = MemoryLimiter()
    for counter, (begin, used) in kept.items():
        second.remember(counter, begin, used)
        second.remember(counter, begin, used - 1)
        second.remember(counter, begin - 86_400, 99)
    assert await second.stands(at(one)) == {one.id: 3}


async def test_without_redis_a_process_counts_alone_and_comes_back():
    client = Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.5)
    limiter = RedisLimiter(client)
    limiter.start()
    one, at_once = limit(amount=3), limit(measure="concurrent", amount=1)
    first = await taken(limiter, at(one, at_once))
    assert first.local
    assert isinstance(await taken(limiter, at(one, at_once)), RateLimited)
    limiter.give_back(first)
    assert not isinstance(await taken(limiter, at(one, at_once)), RateLimited)
    await limiter.aclose()
    await client.aclose()


async def test_a_call_of_a_dead_process_counts_until_its_lease_is_over(redis_url):
    client = Redis.from_url(redis_url)
    dead, other = RedisLimiter(client), RedisLimiter(client)
    one = limit(measure="concurrent", amount=1)
    await taken(dead, at(one))
    assert isinstance(await taken(other, at(one)), RateLimited)
    await client.zadd(
        f"switchyard:limit:{one.id}",
        {name: time.time() - 1 for name in await client.zrange(f"switchyard:limit:{one.id}", 0, -1)},
    )
    assert not isinstance(await taken(other, at(one)), RateLimited)
    await client.aclose()


def test_limits_apply_by_key_user_role_server_tenant_and_name():
    rows = [
        limit("t"), limit("k", subject="api_key:k1"), limit("u", subject="user:u1"), limit("r", subject="role:r1", each=True),
        limit("s", subject="server:s1"), limit("p", subject="tool", pattern="git__*"), limit("x", subject="user:u2"),
    ]  # fmt: skip

    def found(key_id="k1", user_id="u1", roles=("r1",), server_id="s1", full_name="git__log"):
        limits = LimitSet.of(rows)
        return [
            one.counter
            for one in applying(limits, key_id=key_id, user_id=user_id, roles=roles, server_id=server_id, full_name=full_name)
        ]

    assert found() == ["p", "k", "u", "r:u1", "s", "t"]
    assert found(key_id="", full_name="files__read") == ["u", "r:u1", "s", "t"]
    assert found(key_id="k2", user_id="u2", roles=(), server_id="s2") == ["p", "x", "t"]
