"""What is kept of event streams: for whom, how much, how long, and what somebody gets who comes too late."""

import asyncio
import random
from functools import partial
from weakref import ref

import pytest

from apps.gateway.plane.mcp import replay
from apps.gateway.plane.mcp.replay import (
    CALL,
    SHARE,
    STANDALONE,
    STREAMS,
    MemoryReplays,
    ReplayLimits,
    StreamGone,
    event_id,
    new_name,
    read_event_id,
)

NOBODY: dict[str, int] = {}


def untaken() -> dict[str, int]:
    return NOBODY


def _note(closed: list[str], name: str) -> dict[str, int]:
    closed.append(name)
    return NOBODY


async def kept(store: MemoryReplays, *data: bytes, session: str = "one", principal: str = "p", kind: str = CALL) -> str:
    name = new_name(kind)
    assert await store.open(name, session=session, principal=principal, taken=untaken)
    for number, one in enumerate(data, 1):
        await store.append(name, number, one)
    return name


async def test_what_came_after_an_event_is_given_once_and_in_order():
    store = MemoryReplays()
    name = await kept(store, b"a", b"b", b"c")
    other = await kept(store, b"x")
    assert (await store.take(name, session="one", after=1, taken=untaken)).last == 3
    assert await store.read(name, 1, 0) == ([(2, b"b"), (3, b"c")], False)
    assert await store.read(name, 3, 0) == ([], False)
    assert await store.read(other, 0, 0) == ([(1, b"x")], False)
    await store.end(name)
    assert await store.read(name, 0, 0) == ([(1, b"a"), (2, b"b"), (3, b"c")], True)


async def test_a_reader_waits_for_the_next_event_and_for_the_end():
    store = MemoryReplays()
    name = await kept(store)
    waiting = asyncio.create_task(store.read(name, 0, 10))
    await asyncio.sleep(0)
    await store.append(name, 1, b"a")
    assert await waiting == ([(1, b"a")], False)
    waiting = asyncio.create_task(store.read(name, 1, 10))
    await asyncio.sleep(0)
    await store.end(name)
    assert await waiting == ([], True)
    assert await store.read(await kept(store), 0, 0.001) == ([], False)


@pytest.mark.parametrize("session", ["two", "", "onE"])
async def test_another_session_gets_nothing(session):
    store = MemoryReplays()
    name = await kept(store, b"secret")
    with pytest.raises(StreamGone):
        await store.take(name, session=session, after=0, taken=untaken)


async def test_an_event_that_never_was_is_no_place_to_go_on_from():
    store = MemoryReplays()
    name = await kept(store, b"a")
    for forged in (name, new_name(CALL)):
        with pytest.raises(StreamGone):
            await store.take(forged, session="one", after=2, taken=untaken)


async def test_who_takes_a_stream_up_takes_it_from_who_had_it():
    store = MemoryReplays()
    lost = []
    name = new_name(STANDALONE)
    readers = [lambda: lost.append("first") or {"tools": 1}, lambda: lost.append("second") or {"tools": 2}]
    await store.open(name, session="one", principal="p", taken=readers[0])
    resumed = await store.take(name, session="one", after=0, taken=readers[1])
    assert (lost, resumed.state) == (["first"], {"tools": 1})
    await store.take(name, session="one", after=0, taken=untaken)
    assert lost == ["first", "second"]
    await store.rest(name, {"tools": 3})
    assert (await store.take(name, session="one", after=0, taken=untaken)).state == {"tools": 3}


async def test_a_session_s_oldest_events_give_way_and_that_shows():
    store = MemoryReplays(ReplayLimits(session_events=3, session_bytes=1000))
    name = await kept(store, b"a", b"b", b"c", b"d")
    for late in (0,):
        with pytest.raises(StreamGone, match="no longer kept"):
            await store.take(name, session="one", after=late, taken=untaken)
        with pytest.raises(StreamGone):
            await store.read(name, late, 0)
    assert await store.read(name, 1, 0) == ([(2, b"b"), (3, b"c"), (4, b"d")], False)
    other = await kept(store, b"1", session="two")
    assert await store.read(other, 0, 0) == ([(1, b"1")], False), "another session's are another's"


@pytest.mark.parametrize("size", [600, 2000])
async def test_bytes_are_bounded_too(size):
    store = MemoryReplays(ReplayLimits(session_bytes=1000, all_bytes=100_000))
    name = await kept(store, b"a" * 600, b"b" * size)
    assert store.size == (600 if size == 600 else 0)
    with pytest.raises(StreamGone):
        await store.take(name, session="one", after=0, taken=untaken)


async def test_all_sessions_together_and_one_principal_are_bounded():
    store = MemoryReplays(ReplayLimits(session_bytes=1000, all_bytes=8000))
    victim = await kept(store, b"v" * 500, session="victim", principal="honest")
    for number in range(20):
        await kept(store, b"x" * 900, session=f"s{number}", principal="greedy")
    assert store.size <= 8000 // SHARE + 500
    assert await store.read(victim, 0, 0) == ([(1, b"v" * 500)], False)
    for number in range(20):
        await kept(store, b"x" * 900, session=f"t{number}", principal=f"greedy-{number}")
    assert store.size <= 8000
    with pytest.raises(StreamGone):
        await store.read(victim, 0, 0)


async def test_streams_are_counted_and_those_that_have_ended_give_way():
    store = MemoryReplays()
    first = await kept(store, b"a")
    for _ in range(STREAMS - 1):
        await kept(store, b"b")
    assert not await store.open(new_name(CALL), session="one", principal="p", taken=untaken), "all of them go on"
    assert await store.open(new_name(CALL), session="two", principal="p", taken=untaken)
    await store.end(first)
    assert await store.open(new_name(CALL), session="one", principal="p", taken=untaken)
    with pytest.raises(StreamGone):
        await store.take(first, session="one", after=0, taken=untaken)


async def test_what_has_ended_is_forgotten_after_a_while(monkeypatch):
    monkeypatch.setattr(replay, "RETAIN_SECONDS", 0.05)
    store = MemoryReplays()
    ended, resting, goes_on = await kept(store, b"a"), await kept(store, b"b", kind=STANDALONE), await kept(store, b"c")
    await store.end(ended)
    await store.rest(resting, {})
    async with asyncio.timeout(5):
        while len(store) > 1:
            await asyncio.sleep(0.01)
    assert store.size == 1
    assert await store.read(goes_on, 0, 0) == ([(1, b"c")], False)
    store.close()
    assert (len(store), store.size) == (0, 0)


async def test_the_end_of_a_session_forgets_it_and_closes_its_standalone_stream():
    store = MemoryReplays()
    closed = []
    call, beside = new_name(CALL), new_name(STANDALONE)
    readers = {name: partial(_note, closed, name) for name in (call, beside)}
    for name, taken in readers.items():
        await store.open(name, session="one", principal="p", taken=taken)
    other = await kept(store, b"a", session="two")
    await store.drop("one")
    assert closed == [beside]
    assert len(store) == 1
    await store.append(call, 1, b"late")
    await store.end(call)
    await store.rest(beside, {})
    assert await store.read(other, 0, 0) == ([(1, b"a")], False)
    with pytest.raises(StreamGone):
        await store.take(call, session="one", after=0, taken=untaken)


async def test_who_no_longer_reads_is_not_held_by_what_is_kept():
    store = MemoryReplays()
    name = new_name(CALL)
    reader = partial(_note, [], name)
    await store.open(name, session="one", principal="p", taken=reader)
    gone = ref(reader)
    del reader
    assert gone() is None
    assert (await store.take(name, session="one", after=0, taken=untaken)).state is None


@pytest.mark.parametrize(
    "id", ["", ".", "x", "x.", ".1", "x.-1", "x.1e3", "x.\u0661", "x.1" + "0" * 20, "y" * 80 + ".1", "x.1.\n"]
)
def test_ids_that_are_none(id):
    with pytest.raises(StreamGone):
        read_event_id(id)


def test_an_id_says_stream_and_number():
    name = new_name(CALL)
    assert read_event_id(event_id(name, 17)) == (name, 17)
    assert len({new_name(CALL) for _ in range(1000)}) == 1000


async def test_whatever_happens_nothing_is_counted_twice_or_left():
    chance = random.Random(7)
    limits = ReplayLimits(session_events=20, session_bytes=400, all_events=200, all_bytes=2000)
    store = MemoryReplays(limits)
    names: dict[str, int] = {}
    for _ in range(3000):
        step = chance.random()
        if step < 0.2 or not names:
            session = f"s{chance.randrange(8)}"
            name = new_name(chance.choice((CALL, STANDALONE)))
            if await store.open(name, session=session, principal=session[:2], taken=untaken):
                names[name] = 0
        elif step < 0.8:
            name = chance.choice(list(names))
            names[name] += 1
            await store.append(name, names[name], b"e" * chance.randrange(60))
        elif step < 0.9:
            await store.end(names.popitem()[0])
        elif step < 0.95:
            await store.rest(chance.choice(list(names)), {})
        else:
            await store.drop(f"s{chance.randrange(8)}")
        assert store.size <= limits.all_bytes
        for name, last in list(names.items()):
            try:
                events, _ = await store.read(name, 0, 0)
            except StreamGone:
                continue
            assert [number for number, _ in events] == list(range(1, last + 1))
    store.close()
    assert (store.size, len(store)) == (0, 0)
    assert not store._sessions
    assert not store._owners
    assert not store._resting
