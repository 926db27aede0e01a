"""What a request held is free when it is over, without a collection: dead requests that hold megabytes are few objects, and wait long."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from apps.gateway.plane.budget import Budget
from apps.gateway.plane.mcp.visit import Visit
from apps.servers.transports.base import UpstreamRequest
from tests.gateway.planes import Request, answered, plane_before
from tests.support import eventually_async

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
MODERN = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call", "mcp_name": "read"}
ASK = {
    "q": {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {"type": "object", "properties": {}}}}
}


class Visits:
    """The visits that are alive."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[weakref.ref[Any]] = []
        noted = self.made

        class Noted(Visit):
            """A visit that can be looked for."""

            __slots__ = ("__weakref__",)

            def __init__(self, *given: Any, **named: Any) -> None:
                super().__init__(*given, **named)
                noted.append(weakref.ref(self))

        for module in ("front", "batches", "sseposts"):
            monkeypatch.setattr(f"apps.gateway.plane.mcp.{module}.Visit", Noted)

    @property
    def alive(self) -> int:
        return sum(one() is not None for one in self.made)


@pytest.fixture
def visits(monkeypatch) -> Iterator[Visits]:
    gc.collect()
    gc.disable()
    yield Visits(monkeypatch)
    gc.enable()


def call(id: Any = 1, modern: bool = True, **params: Any) -> dict:
    meta = {"_meta": META} if modern else {}
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "read", "arguments": {}, **meta, **params}}


async def opened(plane: Any, capabilities: dict | None = None, revision: str = "2025-11-25") -> dict[str, str]:
    """Shake hands; return the headers of the session."""
    params = {"protocolVersion": revision, "capabilities": capabilities or {}, "clientInfo": {"name": "t", "version": "1"}}
    answer = await Request(plane, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).serve()
    return {"mcp_session_id": answer.headers["mcp-session-id"], "mcp_protocol_version": revision}


async def gone(visits: Visits) -> None:
    assert visits.made
    await eventually_async(lambda: visits.alive == 0, within=3)


async def test_a_request_that_was_answered_or_refused(visits):
    async def answer(request: UpstreamRequest) -> Any:
        return answered({"content": [], "resultType": "complete"})

    async with plane_before(answer) as plane:
        good = await Request(plane, call(), **MODERN).serve()
        assert "result" in good.messages[0]
        for message, headers in (
            (call(name="nobody"), {**MODERN, "mcp_name": "nobody"}),
            (call(requestState="p.wrong"), MODERN),
            ({"jsonrpc": "1.0", "id": 1, "method": "x"}, {}),
            ({"jsonrpc": "2.0", "id": 1, "method": "no/such"}, {}),
            (call(modern=False), {"mcp_session_id": "none"}),
            ([], {}),
        ):
            assert "error" in (await Request(plane, message, **headers).serve()).messages[0]
        assert (await Request(plane, call(), **{**MODERN, "authorization": "Bearer no"}).serve()).status == 401
        del good, message, headers
        await gone(visits)


async def test_a_call_whose_client_left_or_that_was_cancelled(visits):
    running = asyncio.Event()

    async def answer(request: UpstreamRequest) -> Any:
        running.set()
        await asyncio.Event().wait()

    async with plane_before(answer) as plane:
        request = Request(plane, call(), **MODERN)
        task = asyncio.create_task(request.serve())
        await running.wait()
        request.left.set()
        await task
        running.clear()
        session = await opened(plane)
        task = asyncio.create_task(Request(plane, call(7, modern=False), **session).serve())
        await running.wait()
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
        await Request(plane, cancelled, **session).serve()
        assert (await task).messages[-1]["error"]["code"] == -32800
        del request, task
        await gone(visits)


async def test_a_call_that_waits_for_its_client_ends_with_its_session_and_leaves_nothing(visits):
    async def answer(request: UpstreamRequest) -> Any:
        return answered({"resultType": "input_required", "inputRequests": ASK, "requestState": "s"})

    async with plane_before(answer) as plane:
        session = await opened(plane, {"elicitation": {}})
        request = Request(plane, call(modern=False), **session)
        task = asyncio.create_task(request.serve())
        await eventually_async(partial(getattr, request, "written"))
        assert len(plane.waits) == 1
        assert request.messages[0]["method"] == "elicitation/create"
        assert plane.pipeline.total_in_flight == 0
        await Request(plane, None, method="DELETE", **session).serve()
        await task
        assert [one.get("method") or one["error"]["data"]["type"].rsplit("/", 1)[1] for one in request.messages] == [
            "elicitation/create",
            "notifications/cancelled",
            "session-gone",
        ]
        assert not len(plane.waits)
        assert plane.pipeline.total_in_flight == 0
        outcomes = [row for row in plane.sink.rows if row.event_type == "call.outcome"]
        assert [(row.outcome, row.error_type) for row in outcomes] == [("cancelled", "session-gone")]
        del request, task
        await gone(visits)


async def test_a_call_for_which_there_is_no_room_to_wait_ends_with_the_reason(visits, monkeypatch):
    monkeypatch.setattr("apps.gateway.plane.mcp.waiting.WAITING", 0)

    async def answer(request: UpstreamRequest) -> Any:
        return answered({"resultType": "input_required", "inputRequests": {**ASK, "p": ASK["q"]}, "requestState": "s"})

    async with plane_before(answer) as plane:
        session = await opened(plane, {"elicitation": {}})
        refused = await Request(plane, call(modern=False), **session).serve()
        assert refused.messages[-1]["error"]["data"]["rule"] == "waiting-calls"
        row = next(row for row in plane.sink.rows if row.event_type == "call.asked")
        assert row.details["answered"] == "refused"
        del refused
        await gone(visits)


class Stuck(Request):
    """A client of HTTP+SSE that reads the name of its address and nothing more, until it is told to."""

    def __init__(self, plane: Any) -> None:
        super().__init__(plane, None, "/sse/first", "GET")
        self.reads = asyncio.Event()
        self.task = asyncio.create_task(self.serve())

    async def send(self, message: dict[str, Any]) -> None:
        if b"".join(self.written).startswith(b"event: endpoint"):
            await self.reads.wait()
        await super().send(message)

    def heard(self, number: int) -> bool:
        """Tell whether so many messages have come."""
        return len(self.messages) == number

    async def post(self, message: dict) -> Request:
        await eventually_async(lambda: b"\n\n" in b"".join(self.written))
        address = b"".join(self.written).decode().split("data: ")[1].split("\n")[0]
        return await Request(self.plane, message, address).serve()


async def test_of_requests_whose_answers_wait_for_a_slow_reader_nothing_is_left_but_the_answers(visits):
    async def answer(request: UpstreamRequest) -> Any:
        return answered({"content": [], "data": "x" * 10_000}, "2025-11-25")

    async with plane_before(answer) as plane:
        reader = Stuck(plane)
        for number in range(5):
            assert (await reader.post(call(number, modern=False))).status == 202
        refused = await reader.post({"jsonrpc": "1.0", "id": 1, "method": "x"})
        assert refused.status == 400
        del refused
        await eventually_async(lambda: visits.alive == 1, within=3)
        (channel,) = plane.channels.values()
        assert 50_000 < channel.waiting < 70_000
        assert plane.sse_held.used == channel.waiting
        reader.reads.set()
        await eventually_async(partial(reader.heard, 5))
        await eventually_async(lambda: plane.sse_held.used == 0)
        reader.left.set()
        await reader.task
        assert not plane.channels
        del reader, channel
        await gone(visits)


async def test_slow_readers_of_one_key_have_a_share_and_the_one_with_most_ends(visits):
    async def answer(request: UpstreamRequest) -> Any:
        return answered({"content": [], "data": "x" * request.params["arguments"]["size"]}, "2025-11-25")

    async with plane_before(answer) as plane:
        plane.sse_held = Budget(400_000)
        small, large = Stuck(plane), Stuck(plane)
        assert (await small.post(call(arguments={"size": 20_000}, modern=False))).status == 202
        assert (await large.post(call(arguments={"size": 60_000}, modern=False))).status == 202
        await eventually_async(lambda: plane.sse_held.used > 80_000)
        full = await small.post(call(2, arguments={"size": 1, "pad": "x" * 20_000}, modern=False))
        assert (full.status, full.messages[0]["error"]["data"]["rule"]) == (429, "sse-unread-of-key")
        assert (await small.post(call(3, arguments={"size": 30_000}, modern=False))).status == 202
        await large.task
        assert not small.task.done(), "the one with less goes on"
        assert plane.sse_held.used < 80_000
        small.left.set()
        await small.task
        assert plane.sse_held.used == 0
        del small, large, full
        await gone(visits)
