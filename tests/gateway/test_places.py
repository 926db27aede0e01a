"""Limits on how many hold for those that ask at the same time, whatever is waited for between the question and the place."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from apps.common.errors import Overloaded
from apps.gateway.plane.bus import NoBus
from apps.gateway.plane.limits import LimitFacts, LimitSet, MemoryLimiter, Taken
from apps.gateway.plane.mcp.session import Session
from apps.gateway.plane.mcp.watching import EACH, LegacyWatches
from apps.servers.transports.base import UpstreamAnswer, UpstreamRequest
from tests.gateway.pictures import TENANT, server
from tests.gateway.planes import Request, answered, plane_before
from tests.gateway.test_garbage import META, MODERN, call
from tests.support import eventually_async

LISTEN = {**MODERN, "mcp_method": "subscriptions/listen"}
LISTEN.pop("mcp_name")


class Slow(Request):
    """A client whose connection takes a moment for each write."""

    async def send(self, message: dict[str, Any]) -> None:
        await asyncio.sleep(0.01)
        await super().send(message)


async def nothing(request: UpstreamRequest) -> Any:
    return answered({"resultType": "complete", "content": []})


async def test_a_stream_has_its_place_before_it_is_acknowledged():
    async with plane_before(nothing, max_streams=32) as plane:
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "subscriptions/listen",
            "params": {"notifications": {"toolsListChanged": True}, "_meta": META},
        }
        requests = [Slow(plane, message, **LISTEN) for _ in range(6)]
        tasks = [asyncio.create_task(one.serve()) for one in requests]
        await eventually_async(lambda: sum(task.done() for task in tasks) == 4 and plane.streams.count == 2)
        for one, task in zip(requests, tasks, strict=True):
            said = [each.get("method", "error") for each in one.messages]
            assert said == (["error"] if task.done() else ["notifications/subscriptions/acknowledged"])
            assert one.status == (429 if task.done() else 200)
            one.left.set()
        await asyncio.gather(*tasks)
        assert plane.streams._places == 0
        assert not plane.streams._of_owner


async def test_subscriptions_that_are_being_made_count():
    go = asyncio.Event()

    async def add(facts: Any, request: UpstreamRequest, watcher: Any) -> UpstreamAnswer:
        await go.wait()
        return UpstreamAnswer({}, None, "2025-11-25", 2)

    watching = LegacyWatches(SimpleNamespace(add=add, drop=lambda *_: None), NoBus())  # type: ignore[arg-type]
    session = Session("sid", "p", "", "2025-11-25", 2**40, {})

    async def subscribe(number: int) -> bool:
        try:
            await watching.subscribe(session, server("first"), UpstreamRequest("resources/subscribe", {"uri": f"a:{number}"}))
        except Overloaded:
            return False
        return True

    tasks = [asyncio.create_task(subscribe(number)) for number in range(2 * EACH)]
    tasks += [asyncio.create_task(subscribe(1)) for _ in range(3)]
    await eventually_async(lambda: sum(task.done() for task in tasks) == EACH)
    go.set()
    assert sum(await asyncio.gather(*tasks)) == EACH + 3, "the same one again takes no place"
    mine = watching._sessions["sid"]
    assert len(mine.uris) == EACH
    assert not mine.coming
    assert watching.unsubscribe(session, "a:1")
    assert await subscribe(1000)
    watching.end("sid")


class Distant(MemoryLimiter):
    """Counters that take a while to answer."""

    async def take(self, applied: Any, token: str, reserve: int = 0, lease: float = 60.0) -> Taken:
        await asyncio.sleep(0.02)
        return await super().take(applied, token, reserve, lease)


@pytest.mark.parametrize("amount", [1000, 1])
async def test_a_call_is_in_flight_before_its_limits_are_asked(amount):
    running = asyncio.Event()

    async def answer(request: UpstreamRequest) -> Any:
        await running.wait()
        return answered({"resultType": "complete", "content": []})

    limits = LimitSet.of([LimitFacts("l", TENANT, "tenant", "all", "calls", amount, "hour")])
    async with plane_before(answer, limiter=Distant(), limits=limits, server_facts={"max_concurrency": 2}) as plane:
        tasks = [asyncio.create_task(Request(plane, call(), **MODERN).serve()) for _ in range(6)]
        await eventually_async(lambda: sum(task.done() for task in tasks) == (4 if amount > 1 else 5))
        assert plane.pipeline.total_in_flight == min(amount, 2)
        running.set()
        served = await asyncio.gather(*tasks)
        assert sum("result" in one.messages[0] for one in served) == min(amount, 2)
        assert plane.pipeline.total_in_flight == 0
