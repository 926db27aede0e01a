"""Recordings in the data plane: who is recorded, what belongs together, what is never kept, and that there are bounds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from apps.common.errors import UpstreamTimeout
from apps.gateway.plane.call import Call
from apps.gateway.plane.http import Headers
from apps.gateway.plane.mcp.session import SessionSealer
from apps.gateway.plane.mcp.tap import OPEN, REMEMBERED, Tap
from apps.gateway.plane.mcp.tapped import BUFFERED, CUT
from apps.gateway.plane.mcp.visit import Visit
from apps.gateway.plane.ports import RecordedMessage, RecordingFacts
from apps.gateway.plane.reply import Reply
from apps.gateway.plane.views import find_target
from apps.servers.transports.base import UpstreamAnswer, UpstreamRequest
from tests.gateway.pictures import TENANT, caller, definition, picture, server

FOREVER = 2**62
NOTHING = Headers(())


class Taken:
    """The port, which keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[RecordedMessage] = []
        self.dropped: dict[str, int] = {}

    def messages_recorded(self, messages: Sequence[RecordedMessage], dropped: Mapping[str, int]) -> None:
        self.messages += messages
        for id, number in dropped.items():
            self.dropped[id] = self.dropped.get(id, 0) + number


class House:
    """A picture with two servers, and a plane of which a tap needs no more than its sessions."""

    def __init__(self) -> None:
        from apps.common.crypto.keyring import Keyring

        self.snapshot = picture(
            servers=(server("first"), server("second")),
            definitions=(definition("first", "read"), definition("second", "search")),
            superuser=True,
            inherits=True,
        )
        self.caller = caller(self.snapshot)
        self.taken = Taken()
        self.tap: Tap | None = None
        self.sessions = SessionSealer(Keyring.parse("k1:" + "a" * 43 + "="))
        self.written: list[dict] = []

    def record(self, *recordings: RecordingFacts) -> Tap:
        self.tap = Tap(recordings, self.taken)
        return self.tap

    async def send(self, message: dict) -> None:
        self.written.append(message)

    def visit(self, slug: str = "", *, session: str | None = None) -> Visit:
        target = find_target(self.snapshot, self.caller, slug)
        made = Visit(self, self.snapshot, self.caller, target, Reply(self.send, accepts_stream=True), address="::1", size=70)  # type: ignore[arg-type]
        made.revision, made.client, made.session = "2026-07-28", "agent 1", session
        return made

    def call(self, visit: Visit, message: dict, slug: str) -> Call:
        call = visit.call(message["method"], message["params"], modern=True)
        call.server = self.snapshot.servers[f"id-{slug}"]
        return call

    def read(self) -> list[tuple[str, str, str, str]]:
        assert self.tap is not None
        self.tap.flush()
        return [(one.side, one.direction, one.kind, one.method) for one in self.taken.messages]


@pytest.fixture
def house():
    return House()


def recording(kind: str, object_id: str, **changes: Any) -> RecordingFacts:
    return replace(RecordingFacts("r1", TENANT, kind, object_id, "it", FOREVER, 1000, 1_000_000), **changes)


def request(method: str = "tools/call", id: Any = 1, **params: Any) -> dict:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": {"name": "read", "arguments": {}, **params}}


async def run(
    house: House, visit: Visit, message: dict, slug: str, answer: UpstreamAnswer | Exception, talk: Any = None
) -> Call:
    """Let a request go the whole way."""
    assert house.tap is not None
    house.tap.received(visit, message, NOTHING, None)
    call = house.call(visit, message, slug)

    async def upstream(facts: Any, sent: UpstreamRequest) -> UpstreamAnswer:
        if talk is not None:
            await talk(sent)
        if isinstance(answer, Exception):
            raise answer
        return answer

    sent = UpstreamRequest(call.method, {"name": "read", "_meta": {"switchyard/assertion": "secret-assertion"}})
    sent.on_message, sent.on_request = _hear, _answer
    outcome: dict[str, Any] = {"result": {"content": []}}
    try:
        await house.tap.through(call, upstream)(call.server.facts, sent)
    except UpstreamTimeout:
        outcome = {"error": {"code": -32603, "message": "late"}}
    await visit.reply.finish(200, json.dumps({"jsonrpc": "2.0", "id": message["id"], **outcome}).encode())
    return call


async def _hear(message: dict) -> None:
    """Take a notification."""


async def _answer(message: dict) -> dict:
    return {"result": {"action": "accept", "content": {"password": "hunter2-hunter2", "city": "Bern"}}}


OK = UpstreamAnswer({"content": []}, None, "2025-11-25", 30, b'{"jsonrpc":"2.0","id":9,"result":{"content":[]}}')


@pytest.mark.parametrize(("kind", "object_id"), [("api_key", "key-1"), ("toolset", "ts-first"), ("server", "id-first")])
async def test_both_sides_of_a_call_belong_together(house, kind, object_id):
    house.record(recording(kind, object_id))
    call = await run(house, house.visit("first"), request(), "first", OK)
    assert house.read() == [
        ("client", "in", "request", "tools/call"),
        ("server", "out", "request", "tools/call"),
        ("server", "in", "result", "tools/call"),
        ("client", "out", "result", "tools/call"),
    ]
    assert {one.call_id for one in house.taken.messages} == {call.call_id}
    assert {one.server for one in house.taken.messages} == {"first"}
    assert [one.rpc_id for one in house.taken.messages if one.side == "client"] == ["1", "1"]


async def test_others_are_not_recorded(house):
    house.record(
        recording("api_key", "key-2"), recording("toolset", "ts-second", id="r2"), recording("server", "id-second", id="r3"),
        recording("session", "other", id="r4"), recording("server", "id-first", id="r5", tenant_id="tenant-2"),
    )  # fmt: skip
    await run(house, house.visit("first", session="mine"), request(), "first", OK)
    assert house.read() == []


async def test_a_server_behind_an_address_of_several_is_recorded_from_the_clients_first_word(house):
    house.record(recording("server", "id-second"))
    await run(house, house.visit(), request(id="a"), "first", OK)
    call = await run(house, house.visit(), request(id="b"), "second", OK)
    assert [side for side, *_ in house.read()] == ["client", "server", "server", "client"]
    assert {one.call_id for one in house.taken.messages} == {call.call_id}
    house.tap.received(house.visit(), request("tools/list"), NOTHING, None)
    assert len(house.read()) == 4, "a list is asked of no server"


async def test_what_a_server_says_and_asks_in_between(house):
    house.record(recording("api_key", "key-1"))

    async def talk(sent: UpstreamRequest) -> None:
        await sent.on_message({"method": "notifications/progress", "params": {"progress": 1}})
        await sent.on_request({"id": 5, "method": "elicitation/create", "params": {"message": "Where?"}})

    await run(house, house.visit("first"), request(), "first", OK, talk)
    assert house.read()[2:5] == [
        ("server", "in", "notification", "notifications/progress"),
        ("server", "in", "request", "elicitation/create"),
        ("server", "out", "result", "elicitation/create"),
    ]
    answered = house.taken.messages[4]
    assert "Bern" in answered.text
    assert "hunter2" not in answered.text


async def test_a_request_that_is_sent_again_is_heard_once_each_time(house):
    tap = house.record(recording("api_key", "key-1"))
    visit, message = house.visit("first"), request()
    tap.received(visit, message, NOTHING, None)
    call = house.call(visit, message, "first")

    async def upstream(facts: Any, sent: UpstreamRequest) -> UpstreamAnswer:
        await sent.on_message({"method": "notifications/message", "params": {}})
        return OK

    first = UpstreamRequest(call.method, {}, on_message=_hear)
    await tap.through(call, upstream)(call.server.facts, first)
    await tap.through(call, upstream)(call.server.facts, replace(first, params={"requestState": "s" * 40}))
    assert [kind for side, _, kind, _ in house.read() if side == "server"] == ["request", "notification", "result"] * 2


async def test_a_failure_of_the_server_is_an_error_on_its_side(house):
    house.record(recording("api_key", "key-1"))
    await run(house, house.visit("first"), request(), "first", UpstreamTimeout("No answer within 60 s."))
    assert house.read()[2:] == [("server", "in", "error", "tools/call"), ("client", "out", "error", "tools/call")]
    assert "upstream-timeout" in house.taken.messages[2].text


async def test_a_session_is_known_by_its_token_and_answers_are_tied_to_their_question(house):
    token = house.sessions.issue(
        principal="key-1", toolset="first", revision="2025-11-25", client_info={}, capabilities={}, seconds=60
    )
    sid = house.sessions.open(token, principal="key-1", toolset="first").sid
    tap = house.record(recording("session", sid))
    asked = Headers(((b"mcp-session-id", token.encode()),))
    visit, message = house.visit("first"), request()
    tap.received(visit, message, asked, None)
    visit.session = sid
    call = house.call(visit, message, "first")
    await visit.reply.event(b'{"jsonrpc":"2.0","id":"sy-1","method":"elicitation/create","params":{}}')
    answering = house.visit("first")
    tap.received(answering, {"jsonrpc": "2.0", "id": "sy-1", "result": {"action": "decline"}}, asked, None)
    assert house.read() == [
        ("client", "in", "request", "tools/call"), ("client", "out", "request", "elicitation/create"), ("client", "in", "result", "elicitation/create"),
    ]  # fmt: skip
    assert {one.call_id for one in house.taken.messages} == {call.call_id}
    for foreign in (b"", b"nonsense", token.encode()[:-4]):
        tap.received(house.visit("first"), message, Headers(((b"mcp-session-id", foreign),)), None)
    assert len(house.read()) == 3


async def test_on_a_stream_of_many_answers_are_known_by_their_ids(house):
    tap = house.record(recording("session", "sid"))
    stream = house.visit("first", session="sid")
    calls = []
    for id in (1, "1"):
        visit, message = house.visit("first"), request(id=id, _meta={"progressToken": f"t{id!r}"})
        tap.received(visit, message, NOTHING, "sid")
        visit.session = "sid"
        calls.append(house.call(visit, message, "first").call_id)
    await stream.reply.event(
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t\'1\'","progress":1}}'
    )
    await stream.reply.event(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    await stream.reply.event(b'{"jsonrpc":"2.0","id":"1","result":{}}')
    await stream.reply.event(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}')
    house.read()
    assert [one.call_id for one in house.taken.messages] == [*calls, calls[1], *calls, ""]


async def test_a_batch_is_its_messages(house):
    tap = house.record(recording("api_key", "key-1"))
    visit = house.visit("first")
    tap.received(visit, [request(id=1), request(id=2), 7, "x"], NOTHING, None)
    await visit.reply.finish(
        200, b'[{"jsonrpc":"2.0","id":2,"result":{}},{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no"}}]'
    )
    assert [(kind, one.rpc_id) for (_, _, kind, _), one in zip(house.read(), house.taken.messages, strict=True)] == [
        ("request", "1"), ("request", "2"), ("result", "2"), ("error", "1"),
    ]  # fmt: skip


async def test_secrets_and_carried_state_are_not_kept_and_what_is_long_is_cut(house):
    house.record(recording("api_key", "key-1"))
    secret, state = "sy_abcd1234_" + "S" * 43, "opaque" * 20
    message = request(arguments={"token": secret, "text": f"key {secret} x", "long": "y" * 50_000}, requestState=state)
    await run(house, house.visit("first"), message, "first", UpstreamAnswer({"requestState": state}, None, "2026-07-28", 9))
    house.read()
    for one in house.taken.messages:
        assert "S" * 20 not in one.text
        assert "opaqueopaque" not in one.text
        assert "secret-assertion" not in one.text
        assert len(one.text.encode()) <= CUT + 200
    assert house.taken.messages[0].cut


async def test_announcements_beside_calls_belong_to_the_server(house):
    tap = house.record(recording("server", "id-first", label="first"))
    tap.announced("id-first", "notifications/tools/list_changed", {})
    tap.announced("id-second", "notifications/tools/list_changed", {})
    assert house.read() == [("server", "in", "notification", "notifications/tools/list_changed")]
    assert house.taken.messages[0].server == "first"


async def test_there_are_bounds_and_what_is_dropped_is_counted(house):
    tap = house.record(
        recording("api_key", "key-1", messages_left=5), recording("toolset", "ts-first", id="r2", bytes_left=300)
    )
    for number in range(20):
        tap.received(house.visit("first"), request("ping", number), NOTHING, None)
    house.read()
    held = {id: sum(id in one.recordings for one in house.taken.messages) for id in ("r1", "r2")}
    assert held["r1"] == 5
    assert 0 < held["r2"] < 5
    assert house.taken.dropped == {"r1": 15, "r2": 20 - held["r2"]}
    tap = house.record(recording("api_key", "key-1", messages_left=10**6, bytes_left=10**9))
    for number in range(BUFFERED + REMEMBERED + OPEN):
        tap.received(house.visit("first"), request("ping", number), NOTHING, None)
    assert len(tap._asked) <= REMEMBERED
    assert len(tap._open) <= OPEN
    house.taken.messages.clear()
    house.read()
    assert len(house.taken.messages) == BUFFERED


class Read(dict):
    """A message that knows how often it is read for a recording."""

    times = 0

    def items(self):
        Read.times += 1
        return super().items()


async def test_what_is_full_looks_at_nothing_more(house):
    tap = house.record(
        recording("api_key", "key-1", messages_left=3), recording("server", "id-first", id="r2", messages_left=2)
    )
    for number in range(10):
        await run(house, house.visit("first"), Read(request(id=number)), "first", OK)
    house.read()
    held = {id: sum(id in one.recordings for one in house.taken.messages) for id in ("r1", "r2")}
    assert held == {"r1": 3, "r2": 2}
    before = Read.times
    assert before
    for number in range(10):
        tap.received(house.visit("first"), Read(request(id=number)), NOTHING, None)
    assert Read.times == before
    house.read()
    assert house.taken.dropped["r1"] >= 10, "and they are counted all the same"


async def test_a_recording_that_is_full_for_a_message_is_full_for_smaller_ones(house):
    tap = house.record(recording("api_key", "key-1", bytes_left=400))
    tap.received(house.visit("first"), request(text="x" * 600), NOTHING, None)
    tap.received(house.visit("first"), request(), NOTHING, None)
    assert house.read() == []
    assert house.taken.dropped == {"r1": 2}


async def test_what_was_begun_before_the_end_is_not_kept_after_it(house):
    tap = house.record(recording("api_key", "key-1"), recording("toolset", "ts-first", id="r2"))
    visit, message = house.visit("first"), request()
    tap.received(visit, message, NOTHING, None)
    call = house.call(visit, message, "first")
    tap.update([recording("toolset", "ts-first", id="r2")])

    async def upstream(facts: Any, sent: UpstreamRequest) -> UpstreamAnswer:
        tap.update(())
        return OK

    await tap.through(call, upstream)(call.server.facts, UpstreamRequest("tools/call", {}))
    house.read()
    assert [sorted(one.recordings) for one in house.taken.messages] == [["r1", "r2"], ["r2"]]


async def test_without_a_recording_nothing_looks(house):
    visit = house.visit("first")
    call = house.call(visit, request(), "first")
    await visit.reply.event(b'{"jsonrpc":"2.0","method":"x"}')
    await visit.reply.finish(200, b"{}")
    assert visit.heard is None
    assert visit.reply.visit is None, "an answer that was given holds nobody"
    assert call.call_id


async def test_a_tap_is_put_in_force_and_ends_by_itself(house):
    from apps.common.clock import now_us
    from apps.gateway.plane.plane import Plane
    from tests.support import eventually_async

    plane: Any = object.__new__(Plane)
    import asyncio

    plane.loop, plane.tap, plane._tap_over, plane.facts = asyncio.get_running_loop(), None, None, house.taken
    plane.pipeline, plane._events = SimpleNamespace(tap=None), SimpleNamespace(tap=None)
    Plane.record(plane, [recording("api_key", "key-1", until_us=now_us() - 1)])
    assert plane.tap is None
    Plane.record(
        plane,
        [
            recording("api_key", "key-1", until_us=now_us() + 150_000),
            recording("toolset", "x", id="r2", until_us=now_us() + 400_000),
        ],
    )
    first = plane.tap
    assert plane.pipeline.tap is plane._events.tap is first is not None
    await eventually_async(lambda: plane.tap is None, within=5)
    assert plane.pipeline.tap is None
    Plane.record(plane, [recording("api_key", "key-1", messages_left=0)])
    assert plane.tap is None, "one that is full is not begun"
    wanted = [recording("api_key", "key-1", messages_left=1), recording("toolset", "x", id="r2", messages_left=0)]
    Plane.record(plane, wanted)
    assert plane.tap is not None
    house.tap = plane.tap
    plane.tap.received(house.visit("first"), request(), NOTHING, None)
    await eventually_async(lambda: plane.tap is None, within=5)
    assert plane.pipeline.tap is plane._events.tap is None
    assert len(house.taken.messages) == 1
    Plane.record(plane, [recording("api_key", "key-1", id="r3")])
    assert plane.tap is not None, "another one is begun as ever"
    Plane.record(plane, [])
