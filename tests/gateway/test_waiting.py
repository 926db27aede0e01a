"""Calls that wait for their client: how many, how much, how long, and what ends them."""

import asyncio
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from apps.common.errors import NotReady, Overloaded
from apps.common.policy import Grant
from apps.gateway.plane.call import Call
from apps.gateway.plane.mcp import waiting
from apps.gateway.plane.mcp.legacy import LegacyLive
from apps.gateway.plane.mcp.waiting import NotAnswered, Waits
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.plane.views import find_target
from tests.gateway.pictures import TENANT, caller, definition, picture, server
from tests.support import eventually_async

FIRST = {"user:user-1": (Grant("allow", "server", TENANT, server_id="id-first"),)}


def snapshot(*, granted: bool = True, known: bool = True) -> Any:
    made = picture(servers=(server("first"),), definitions=(definition("first", "read"),), superuser=granted, inherits=True)
    if not known:
        made.keys.clear()  # type: ignore[attr-defined]
    return made


class Visiting(SimpleNamespace):
    """As much of a visit as waiting needs."""

    __hash__ = object.__hash__


class House:
    """As much of a plane as waiting needs."""

    def __init__(self) -> None:
        self.store = SnapshotStore()
        self.store.swap(snapshot())
        self.live = LegacyLive()
        self.parking: tuple[Any, ...] = ()
        self.flying = 0
        self.pipeline = SimpleNamespace(rest=self._rest, go_on=self._go_on)
        self.waits = Waits(self)  # type: ignore[arg-type]

    def _rest(self, call: Call) -> None:
        self.flying -= 1

    def _go_on(self, call: Call) -> None:
        self.flying += 1

    def call(self, size: int = 100, principal: str = "") -> Call:
        current = self.store.current
        one = caller(current)
        call = Call(
            snapshot=current,
            caller=one,
            target=find_target(current, one, "first"),
            method="tools/call",
            params={},
            revision="2025-11-25",
            modern=False,
            request_bytes=size,
        )
        call.name = "read"
        if principal:
            call.caller = SimpleNamespace(principal=SimpleNamespace(id=principal), key=None)  # type: ignore[assignment]
        return call


class Waiter:
    """One call that waits, in a task of its own."""

    def __init__(self, house: House, session: str = "s1", size: int = 10, call: Call | None = None, name: str = "") -> None:
        self.call = call or house.call()
        self.visit: Any = Visiting(lost=False, reply=SimpleNamespace(keeper=SimpleNamespace(name=name), cut_off=False))
        self.task = asyncio.create_task(self._run(house, session, size))

    async def _run(self, house: House, session: str, size: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        with house.waits.question(self.visit, session, self.call, task, size):
            await asyncio.Event().wait()

    async def ended(self) -> Any:
        """Return what it was ended with."""
        await eventually_async(self.task.done)
        assert self.task.cancelled()
        return self.call.stopped


@pytest.fixture
async def house():
    made = House()
    yield made
    made.waits.aclose()


async def begun(house: House, *waiters: Waiter) -> None:
    await eventually_async(lambda: len(house.waits) == len(waiters))


async def test_a_call_that_waits_is_not_in_flight_until_its_last_question_has_its_answer(house):
    call, task, visit = house.call(), asyncio.current_task(), Waiter(house).visit
    with house.waits.question(visit, "s1", call, task, 10):
        with house.waits.question(visit, "s1", call, task, 10):
            assert house.flying == -1
            assert len(house.waits) == 1
        assert house.flying == -1
    assert house.flying == 0
    assert not len(house.waits)


async def test_one_principal_has_a_share_and_all_together_have_a_bound(house, monkeypatch):
    monkeypatch.setattr(waiting, "WAITING", 40)
    task = asyncio.current_task()
    with ExitStack() as stack:

        def wait(principal: str) -> None:
            visit: Any = Visiting(lost=False, reply=None)
            stack.enter_context(house.waits.question(visit, "s", house.call(principal=principal), task, 1))

        for _ in range(2):
            wait("greedy")
        with pytest.raises(Overloaded) as full:
            wait("greedy")
        assert full.value.extra["rule"] == "waiting-calls-per-key"
        for number in range(38):
            wait(f"p{number}")
        with pytest.raises(Overloaded) as full:
            wait("one more")
        assert full.value.extra["rule"] == "waiting-calls"
    assert not len(house.waits)
    wait("greedy")


async def test_what_waits_is_bounded_in_bytes(house):
    task, quarter = asyncio.current_task(), waiting.BYTES // 4
    visit: Any = Visiting(lost=False, reply=None)
    other: Any = Visiting(lost=False, reply=None)
    big = house.call(size=quarter - 100)
    for _ in range(2):  # what it held is free again
        with house.waits.question(visit, "s", big, task, 50):
            with pytest.raises(Overloaded), house.waits.question(visit, "s", big, task, 51):
                pass
            with pytest.raises(Overloaded), house.waits.question(other, "s", house.call(size=51), task, 1):
                pass
            assert len(house.waits) == 1
    assert house.waits._bytes.used == 0


async def test_a_client_that_does_not_answer_in_time_ends_its_call(house, monkeypatch):
    monkeypatch.setattr(waiting, "SECONDS", 0.02)
    assert isinstance(await Waiter(house).ended(), NotAnswered)


async def test_a_session_s_end_ends_its_calls_alone(house):
    mine, other = Waiter(house), Waiter(house, session="s2")
    await begun(house, mine, other)
    house.waits.end_session("s1")
    assert (await mine.ended()).slug == "session-gone"
    assert not other.task.done()
    other.task.cancel()


async def test_a_stop_ends_what_waits_at_once_and_nothing_waits_after_it(house):
    one = Waiter(house)
    await begun(house, one)
    house.waits.close()
    assert isinstance(await one.ended(), NotReady)
    late = Waiter(house)
    with pytest.raises(NotReady):
        await late.task


@pytest.mark.parametrize(
    ("change", "slug"), [({"granted": False}, "permission-denied"), ({"known": False}, "authentication-required")]
)
async def test_what_is_taken_away_ends_what_waits_for_it(house, change, slug):
    one = Waiter(house)
    cancelled: list[Any] = []
    house.parking = (SimpleNamespace(call=house.call(), cancel=cancelled.append),)
    await begun(house, one)
    house.store.swap(snapshot())
    house.store.swap(snapshot(**change))
    error = await one.ended()
    assert error.slug == slug
    await eventually_async(lambda: [type(one) for one in cancelled] == [type(error)])
    assert error.__traceback__ is None


async def test_another_change_ends_nothing(house):
    one = Waiter(house)
    await begun(house, one)
    house.store.swap(snapshot())
    await asyncio.sleep(2 * waiting.SETTLE)
    assert not one.task.done()
    one.task.cancel()


async def test_a_client_that_left_and_cannot_come_back_ends_its_call(house, monkeypatch):
    monkeypatch.setattr(waiting, "RETAIN_SECONDS", 0.05)
    without, kept, taken_up = Waiter(house), Waiter(house, name="stream-1"), Waiter(house, name="stream-2")
    await begun(house, without, kept, taken_up)
    for one in (without, kept, taken_up):
        house.waits.client_left(one.visit)
    taken_up.visit.reply.cut_off = True
    assert isinstance(await without.ended(), NotAnswered)
    assert isinstance(await kept.ended(), NotAnswered)
    await asyncio.sleep(0.05)
    assert not taken_up.task.done()
    taken_up.task.cancel()


async def test_who_has_left_before_is_not_asked(house):
    visit: Any = Visiting(lost=False, reply=SimpleNamespace(keeper=None))
    house.waits.client_left(visit)
    with pytest.raises(NotAnswered), house.waits.question(visit, "s1", house.call(), asyncio.current_task(), 1):
        pass
