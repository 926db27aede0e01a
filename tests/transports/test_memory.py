"""What large answers may hold: a bounded number of values, and a bounded amount of memory all together."""

import asyncio
import gc
import json
import sys
import threading
import tracemalloc
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.common.errors import UpstreamDied, UpstreamProtocolError, UpstreamTooLarge
from apps.servers.transports import memory as limits
from apps.servers.transports.event_stream import EventStream
from apps.servers.transports.memory import MOST_VALUES, SMALL, Budget, load_large, memory, values_in, weigh
from apps.servers.transports.wire import parse
from tests.support import eventually_async
from tests.transports.peers import call, connected, event, legacy_basics, peer, reply, result, stream_head, text_of

PEER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("stdio_peer.py")))
BOMB = b"[" + b"{}," * MOST_VALUES + b"{}]"
ROW = {"id": 123456, "name": "Some Name", "email": "name@example.com", "city": "Zurich", "active": True, "tags": ["a", "b"]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\,[{:é\n', max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='a"\\,{:', max_size=3), inner, max_size=4),
    max_leaves=20,
)


def marks(value: object) -> int:
    """Count what begins or parts values, as the text has it."""
    if isinstance(value, list):
        return 1 + max(len(value) - 1, 0) + sum(map(marks, value))
    if isinstance(value, dict):
        return 1 + max(len(value) - 1, 0) + len(value) + sum(map(marks, value.values()))
    return 0


@given(JSON)
def test_values_are_counted_exactly_where_they_decide(value: object) -> None:
    raw = json.dumps(value, ensure_ascii=False).encode()
    limit, block = limits.MOST_VALUES, limits._BLOCK
    # So low that the insides of strings are left out, so high that the number of strings alone is not the answer.
    limits.MOST_VALUES, limits._BLOCK = raw.count(b'"'), 7
    try:
        found = values_in(raw)
    finally:
        limits.MOST_VALUES, limits._BLOCK = limit, block
    if found > raw.count(b'"'):
        assert found == marks(value)
    else:
        assert found >= marks(value)


@pytest.mark.parametrize(
    ("item", "each"),
    [(b"{}", 2), (b"[]", 2), (b"1", 1), (b'""', 1), (b'{"a":1}', 3), (b"[" * 1000 + b"]" * 1000, 1001)],
    ids=["objects", "arrays", "numbers", "strings", "members", "deep"],
)
def test_a_message_of_too_many_values_is_refused_before_it_is_built(item: bytes, each: int) -> None:
    raw = b"[" + b",".join([item] * (MOST_VALUES // each + 2)) + b"]"
    with pytest.raises(UpstreamTooLarge, match="1,000,000 values"):
        parse(raw)


@pytest.mark.parametrize(
    "payload",
    [
        [ROW] * (4 * 1024 * 1024 // len(orjson.dumps(ROW))),
        "QUJD" * (4 * 1024 * 1024),
        "Commas, [brackets], {braces}: all of it text, " * (10 * 1024 * 1024 // 46),
        orjson.dumps([ROW] * 60_000, option=orjson.OPT_INDENT_2).decode(),
        "\\" * 2_000_000 + '"' * 2_000_000 + "," * 2_000_000,
    ],
    ids=["4 MB of rows", "16 MB of base64", "10 MB of commas in a text", "JSON in a text", "escapes"],
)
def test_large_ordinary_answers_are_read(payload: object) -> None:
    raw = orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": [], "structuredContent": {"it": payload}}})
    assert len(raw) > SMALL
    assert parse(raw)["result"]["structuredContent"]["it"] == payload


def test_the_weight_covers_what_the_values_take() -> None:
    for raw in (
        b"[" + b",".join(b'{"%x":1.5}' % n for n in range(50_000)) + b"]",
        b"[" + b"[]," * 50_000 + b"0]",
        ('["' + "a" * 200_000 + '😀"]').encode(),
        b'["' + b"a" * 200_000 + b'\\ud83d\\ude00"]',
        ("[" + '"é",' * 50_000 + "0]").encode(),
    ):
        gc.collect()
        tracemalloc.start()
        value = orjson.loads(raw)
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert value
        assert weigh(raw) >= taken, raw[:40]


def test_the_lines_of_one_event_take_no_more_than_their_bytes() -> None:
    stream = EventStream(16 * 1024 * 1024)
    block = b"data: abc\n" * 1000
    tracemalloc.start()
    for _ in range(300):
        stream.feed(block)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert stream.held == 300_000 * 4
    assert taken < 3_000_000
    (whole,) = stream.feed(b"\n")
    assert whole.data == b"\n".join([b"abc"] * 300_000)


# The budget


async def test_a_budget_is_given_out_and_comes_back() -> None:
    budget = Budget(100)
    one, two = await budget.take("a", 50), await budget.take("b", 40)
    assert budget.used == 90
    waiting = asyncio.create_task(budget.take("c", 20))
    await asyncio.sleep(0)
    assert not waiting.done()
    one.release()
    one.release()
    three = await waiting
    assert budget.used == 60
    del two, three, waiting
    await asyncio.sleep(0)  # the loop itself refers to the task that woke this one until then
    assert budget.used == 0


async def test_one_endpoint_cannot_take_it_all_and_holds_up_nobody_but_itself() -> None:
    budget = Budget(100)
    mine = [await budget.take("greedy", 25) for _ in range(2)]
    more = asyncio.create_task(budget.take("greedy", 10))
    await asyncio.sleep(0)
    other = await asyncio.wait_for(budget.take("other", 50), 5)
    assert not more.done()
    mine.pop().release()
    other.release()
    (await more).release()


async def test_who_asks_for_more_than_a_share_gets_the_share() -> None:
    budget = Budget(100)
    hold = await budget.take("a", 1000)
    assert hold.size == budget.used == 50


async def test_large_wishes_are_not_overtaken_by_small_ones() -> None:
    budget = Budget(100)
    first = await budget.take("a", 50)
    second = await budget.take("b", 20)
    large = asyncio.create_task(budget.take("c", 40))
    await asyncio.sleep(0)
    small = asyncio.create_task(budget.take("d", 5))
    await asyncio.sleep(0)
    assert not large.done()
    assert not small.done()
    second.release()
    (await large).release()
    (await small).release()
    first.release()
    assert budget.used == 0


async def test_waiting_ends_with_a_typed_error_or_with_its_caller(monkeypatch) -> None:
    budget = Budget(100)
    holds = [await budget.take(owner, 50) for owner in "ab"]
    leaving = asyncio.create_task(budget.take("c", 10))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    monkeypatch.setattr(limits, "WAIT_SECONDS", 0.01)
    with pytest.raises(UpstreamTooLarge, match="memory"):
        await budget.take("c", 10)
    late = asyncio.create_task(budget.take("c", 10))
    await asyncio.sleep(0)
    holds.pop().release()
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    holds.clear()
    assert budget.used == 0


async def test_a_hold_dropped_in_another_thread_comes_back() -> None:
    budget = Budget(100)
    holds = [await budget.take("a", 50)]
    thread = threading.Thread(target=holds.clear)
    thread.start()
    thread.join()
    await eventually_async(lambda: budget.used == 0)


async def test_what_is_no_json_gives_its_hold_back() -> None:
    with pytest.raises(UpstreamProtocolError):
        await load_large(b"[" + b"{}," * 400_000, "a")
    assert memory().kept.used == 0


# Over the transports

LARGE = {"text": "x" * (3 * 1024 * 1024)}


async def test_a_large_answer_counts_until_it_is_dropped() -> None:
    async def handle(request, writer) -> None:
        if not await legacy_basics(request, writer):
            await reply(writer, result(request, LARGE))

    async with peer(handle) as there, connected("http", there.url, era="legacy") as (upstream, _):
        answer = await upstream.call(call())
        assert answer.result == LARGE
        assert memory().reading.used == 0
        assert memory().kept.used >= len(answer.raw)
        del answer
        assert memory().kept.used == 0


@pytest.mark.parametrize("framing", ["json", "stream"])
@pytest.mark.parametrize("end", ["cancel", "die", "answer"])
async def test_bodies_that_are_being_read_share_a_budget(framing: str, end: str, monkeypatch) -> None:
    monkeypatch.setattr(limits, "READING_BYTES", 12 * 1024 * 1024)
    go = asyncio.Event()

    async def handle(request, writer) -> None:
        if await legacy_basics(request, writer):
            return
        body = orjson.dumps(result(request, LARGE))
        if framing == "stream":
            await stream_head(writer)
            body = b"data: " + body + b"\n\n"
        else:
            writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        writer.write(body[: len(body) - 10])
        await writer.drain()
        await go.wait()
        if end == "answer":
            writer.write(body[len(body) - 10 :])
            await writer.drain()
        if end != "answer" or framing == "stream":
            writer.close()

    async with peer(handle) as there, connected("http", there.url, era="legacy") as (upstream, _):
        tasks = [asyncio.create_task(upstream.call(call(max_bytes=3 * 1024 * 1024 + 4096))) for _ in range(4)]
        budget = memory().reading
        await eventually_async(lambda: budget.used > 0 and len(there.requests) >= 6)
        assert budget.used <= budget.most // limits.SHARES
        if end == "cancel":
            for task in tasks:
                task.cancel()
        go.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        if end == "answer":
            assert [one.result for one in done] == [LARGE] * 4
        else:
            assert all(isinstance(one, UpstreamDied | asyncio.CancelledError) for one in done), done
        del done, tasks
        await asyncio.sleep(0)
        gc.collect()
        assert budget.used == 0
        assert memory().kept.used == 0


async def test_an_answer_that_finds_no_room_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(limits, "WAIT_SECONDS", 0.05)

    async def handle(request, writer) -> None:
        if not await legacy_basics(request, writer):
            await reply(writer, result(request, LARGE if request.json["params"]["name"] == "large" else None))

    async with peer(handle) as there, connected("http", there.url, era="legacy") as (upstream, _):
        budget = memory().reading
        holds = [await budget.take(owner, budget.most) for owner in "ab"]
        with pytest.raises(UpstreamTooLarge, match="Try again later"):
            await upstream.call(call("large"))
        assert (await upstream.call(call("small"))).result == {"content": []}, "small answers need no room"
        holds.clear()
        assert (await upstream.call(call("large"))).result == LARGE


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("framing", ["json", "stream"])
async def test_a_bomb_over_http_fails_its_call_alone(era: str, framing: str) -> None:
    async def handle(request, writer) -> None:
        if era == "legacy" and await legacy_basics(request, writer):
            return
        if request.json["params"]["name"] == "good":
            await reply(writer, result(request))
            return
        body = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[],"a":%s}}' % (request.json["id"], BOMB)
        if framing == "json":
            await reply(writer, body)
            return
        await stream_head(writer)
        writer.write(b"data: " + body + b"\n\n")
        await writer.drain()
        writer.close()

    async with peer(handle) as there, connected("http", there.url, era=era) as (upstream, _):
        with pytest.raises(UpstreamTooLarge, match="values"):
            await upstream.call(call("bad"))
        assert (await upstream.call(call("good"))).result == {"content": []}


async def test_a_bomb_over_stdio_fails_its_call_alone() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        with pytest.raises(UpstreamTooLarge, match="values"):
            await upstream.call(call("bomb", {"values": MOST_VALUES}))
        pid = upstream.stats()["pid"]
        assert (await upstream.call(call("echo", {"a": 1}))).result["arguments"] == {"a": 1}
        assert upstream.stats()["pid"] == pid


async def test_large_lines_over_stdio_wait_for_room_and_keep_their_order() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        await upstream.call(call("echo"))
        budget = memory().kept
        holds = [await budget.take(owner, budget.most) for owner in "ab"]
        order: list[str] = []

        async def one(name: str, **arguments: object) -> None:
            answer = await upstream.call(call(name, arguments))
            order.append(name)
            assert answer.result is not None

        large = asyncio.create_task(one("large", size=2 * 1024 * 1024))
        small = asyncio.create_task(one("echo"))
        await eventually_async(lambda: len(budget._waiting) == 1)
        assert not small.done()
        holds.clear()
        await asyncio.gather(large, small)
        assert order == ["large", "echo"]
    await eventually_async(lambda: budget.used == 0)


async def test_an_upstream_closes_while_a_large_line_waits() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        await upstream.call(call("echo"))
        budget = memory().kept
        holds = [await budget.take(owner, budget.most) for owner in "ab"]
        large = asyncio.create_task(upstream.call(call("large", {"size": 2 * 1024 * 1024})))
        await eventually_async(lambda: len(budget._waiting) == 1)
        await upstream.aclose()
        with pytest.raises(UpstreamDied):
            await large
        assert not budget._waiting
        assert len(holds) == 2


async def test_a_bomb_over_the_old_transport_fails_its_call_alone() -> None:
    stream: list[asyncio.StreamWriter] = []

    async def handle(request, writer) -> None:
        if request.method == "GET":
            await stream_head(writer)
            writer.write(b"event: endpoint\ndata: /messages\n\n")
            await writer.drain()
            stream.append(writer)
            await asyncio.Event().wait()
        await reply(writer, None, 202)
        message = request.json
        if message.get("method") == "initialize":
            stream[0].write(event(result(request, {"protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": {}})))
        elif message.get("method") == "tools/call" and message["params"]["name"] == "bad":
            stream[0].write(b'data: {"jsonrpc":"2.0","id":%d,"result":{"a":%s}}\n\n' % (message["id"], BOMB))
        elif "id" in message:
            stream[0].write(event(result(request, {"content": [{"type": "text", "text": "good"}]})))
        await stream[0].drain()

    async with peer(handle) as there, connected("sse", there.url) as (upstream, _):
        with pytest.raises(UpstreamTooLarge, match="values"):
            await upstream.call(call("bad"))
        assert text_of(await upstream.call(call("good"))) == "good"
        assert len(stream) == 1


async def test_large_answers_that_come_together_are_parsed_one_at_a_time() -> None:
    raw = b"[" + b"{}," * 200_000 + b"{}]"
    turns: list[str] = []
    done = asyncio.Event()

    async def parse_one() -> None:
        value, hold = await load_large(raw, "a")
        turns.append("parsed")
        assert len(value) == 200_001
        assert hold is not None
        hold.release()

    async def others() -> None:
        while not done.is_set():
            turns.append("other")
            await asyncio.sleep(0)

    turning = asyncio.create_task(others())
    await asyncio.gather(*(parse_one() for _ in range(4)))
    done.set()
    await turning
    text = ",".join(turns)
    assert turns.count("parsed") == 4
    assert "parsed,parsed" not in text
    assert memory().kept.used == 0
