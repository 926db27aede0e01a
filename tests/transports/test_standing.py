"""`subscriptions/listen` as a call that stands: its notifications are its own, it has no largest size, and it is no call in flight."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from apps.common.errors import UpstreamUnavailable
from apps.servers.transports import callers
from apps.servers.transports.announcements import Announcements
from apps.servers.transports.base import LISTEN, UpstreamRequest
from apps.servers.transports.callers import Callers
from apps.servers.transports.channel import Channel
from apps.servers.transports.wire import LATEST_MODERN, META_SUBSCRIPTION
from tests.product import ROOT
from tests.support import eventually_async
from tests.transports.peers import DISCOVERED, PYTHON, Recorder, call, connected, event, peer, reply, result, stream_head

SERVER = (PYTHON, "-m", "tests.e2e.tasks_server", "--stdio")
TASKS = {"extensions": {"io.modelcontextprotocol/tasks": {}}}


class Heard(list):
    """What a subscription was told."""

    async def __call__(self, message: dict[str, Any]) -> None:
        self.append(message)

    async def named(self, method: str) -> dict[str, Any]:
        found = await eventually_async(lambda: [one for one in self if one["method"] == f"notifications/{method}"])
        return found[-1]["params"]


def listen(heard: Heard, *ids: str, **options: Any) -> UpstreamRequest:
    params = {"notifications": {"taskIds": list(ids)}}
    return UpstreamRequest(LISTEN, params, timeout=30, client_capabilities=TASKS, on_message=heard, **options)


@contextlib.asynccontextmanager
async def standing(upstream, request):
    task = asyncio.create_task(upstream.call(request))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_each_subscription_hears_of_its_own_tasks() -> None:
    async with connected("stdio", command=SERVER, cwd=str(ROOT)) as (upstream, _):
        labels = ("one", "two")
        ids = [
            (await upstream.call(call("begin", {"label": label}, client_capabilities=TASKS))).result["taskId"]
            for label in labels
        ]
        first, second = Heard(), Heard()
        async with standing(upstream, listen(first, ids[0])), standing(upstream, listen(second, ids[1])):
            assert (await first.named("subscriptions/acknowledged"))["notifications"] == {"taskIds": ids[:1]}
            assert (await second.named("subscriptions/acknowledged"))["notifications"] == {"taskIds": ids[1:]}
            for label in labels:
                await upstream.call(call("settle", {"label": label}))
            assert (await first.named("tasks"))["x-label"] == "one"
            assert (await second.named("tasks"))["x-label"] == "two"
            assert len(first) == len(second) == 2
        seen = json.loads((await upstream.call(call("seen"))).result["content"][0]["text"])
        assert "progressToken" not in next(one for one in seen if one["method"] == LISTEN)["params"]["_meta"]

        async def left() -> bool:
            text = (await upstream.call(call("seen"))).result["content"][0]["text"]
            return sum(one["method"] == "left" for one in json.loads(text)) == 2

        await eventually_async(left)


def channel() -> tuple[Channel, list[bytes]]:
    written: list[bytes] = []
    return Channel(written.append, Announcements("server-1", Recorder())), written


def fed(it: Channel, **message: Any) -> None:
    it.feed(json.dumps({"jsonrpc": "2.0", **message}).encode())


async def test_a_subscription_does_not_hide_whose_a_message_is() -> None:
    it, written = channel()
    news, asked = Heard(), []

    async def ask(message: dict[str, Any]) -> dict[str, Any]:
        asked.append(message["method"])
        return {"result": {}}

    stands = it.open(it.next_id(), listen(Heard()), LATEST_MODERN)
    pending = it.open(it.next_id(), call(on_message=news, on_request=ask), LATEST_MODERN)
    fed(it, method="notifications/message", params={"level": "info", "data": "x"})
    fed(it, method="roots/list", id=7)
    await eventually_async(lambda: written)
    assert asked == ["roots/list"]
    assert [message["method"] for message, _ in pending.news] == ["notifications/message"]
    assert not stands.news
    it.close(pending)
    fed(it, method="notifications/message", params={"level": "info", "data": "y"})
    fed(it, method="roots/list", id=8)
    assert not stands.news
    assert b'"error"' in written[1]
    it.close(stands)


async def test_a_subscription_has_no_largest_size_over_all_and_others_are_not_taken_for_it() -> None:
    it, _ = channel()
    stands = it.open(it.next_id(), listen(Heard(), max_bytes=1000), LATEST_MODERN)
    plain = it.open(it.next_id(), call(on_message=Heard()), LATEST_MODERN)
    for number in range(20):
        fed(it, method="notifications/tasks", params={"taskId": "x" * 100, "_meta": {META_SUBSCRIPTION: stands.id}})
        fed(it, method="notifications/tasks", params={"taskId": "y", "_meta": {META_SUBSCRIPTION: plain.id}})
        fed(it, method="notifications/tasks", params={"taskId": "z", "_meta": {META_SUBSCRIPTION: str(number)}})
    assert not stands.done.done()
    assert {message["params"]["taskId"] for message, _ in stands.news} == {"x" * 100}
    assert not plain.news
    it.close(stands)
    it.close(plain)


async def test_a_standing_stream_has_no_largest_size_over_all() -> None:
    async def handler(request, writer) -> None:
        if request.json["method"] == "server/discover":
            await reply(writer, result(request, DISCOVERED))
            return
        await stream_head(writer)
        for number in range(50):
            note = {"jsonrpc": "2.0", "method": "notifications/tasks", "params": {"taskId": "x" * 500, "n": number}}
            writer.write(event(note))
        writer.write(event(result(request, {"resultType": "complete"})))
        await writer.drain()
        writer.close()

    heard = Heard()
    async with peer(handler) as there, connected("http", there.url, era="modern") as (upstream, _):
        answer = await upstream.call(listen(heard, "x", max_bytes=2000))
    assert answer.result == {"resultType": "complete"}
    assert len(heard) == 50


# Sessions of one caller


class Thing:
    ended = False


async def made_of_one_caller(monkeypatch, own: int = 3) -> tuple[Callers[Thing], list[Thing]]:
    monkeypatch.setattr(callers, "OWN", own)
    things: list[Thing] = []

    def make(place: str, declared: dict[str, Any]) -> Thing:
        things.append(Thing())
        return things[-1]

    async def end(thing: Thing) -> None:
        thing.ended = True

    return Callers(make, end, 600.0), things


async def test_a_caller_that_declares_something_else_each_time_pushes_out_its_own_sessions_alone(monkeypatch) -> None:
    it, things = await made_of_one_caller(monkeypatch)
    with it.use("other", {"extensions": {"x": {}}}):
        pass
    for number in range(10):
        with it.use("greedy", {"extensions": {"x": {"n": number}}}):
            pass
    await eventually_async(lambda: sum(thing.ended for thing in things) == 7)
    assert not things[0].ended, "another caller's session stays"
    assert len(it) == 4
    await it.aclose()


async def test_a_callers_sessions_in_use_are_not_taken_from_it(monkeypatch) -> None:
    it, _ = await made_of_one_caller(monkeypatch)
    with contextlib.ExitStack() as stack:
        for number in range(3):
            stack.enter_context(it.use("greedy", {"extensions": {"x": {"n": number}}}))
        with pytest.raises(UpstreamUnavailable, match="sessions"):
            stack.enter_context(it.use("greedy", {"extensions": {"x": {"n": 4}}}))
        stack.enter_context(it.use("other"))
    await it.aclose()
