"""Servers that send more than anybody could want: they lose what they sent it on, and nobody else waits for it."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from apps.common.errors import UpstreamDied, UpstreamProtocolError, UpstreamTimeout
from apps.servers.transports import channel as channels
from apps.servers.transports.announcements import Announcements
from apps.servers.transports.base import UpstreamRequest
from apps.servers.transports.channel import Channel
from apps.servers.transports.floods import NOTICE_WIDTH, REPLIES, REPLY_WIDTH, Flooded, Lane, Pace
from apps.servers.transports.http_wire import PIECE
from tests.support import eventually_async
from tests.transports.peers import Recorder, call, connected, event, legacy_basics, peer, reply, result, stream_head, text_of

PEER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("stdio_peer.py")))
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


class Asker:
    """A legacy HTTP server whose tool `ask` pings `count` times in its answer, and that may be slow to take replies."""

    def __init__(self, count: int, *, deaf: bool) -> None:
        self.count = count
        self.take_replies = asyncio.Event()
        if not deaf:
            self.take_replies.set()
        self.replies = 0
        self.open = 0
        self.most_open = 0
        self.finish = asyncio.Event()

    async def handle(self, request, writer) -> None:
        message = request.json
        if "method" not in message:
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            try:
                await self.take_replies.wait()
            finally:
                self.open -= 1
            self.replies += 1
            await reply(writer, None, 202)
        elif await legacy_basics(request, writer):
            return
        elif message["params"]["name"] == "ask":
            await stream_head(writer)
            writer.write(event(PING) * self.count)
            await writer.drain()
            await self.finish.wait()
            writer.write(event(result(request)))
            await writer.drain()
            writer.close()
        else:
            await reply(writer, result(request))


async def test_a_server_that_asks_without_end_loses_its_call_and_gets_few_connections() -> None:
    asker = Asker(5_000, deaf=True)
    async with peer(asker.handle) as there, connected("http", there.url, era="legacy") as (upstream, _):
        with pytest.raises(UpstreamProtocolError, match="floods with requests"):
            await upstream.call(call("ask"))
        assert there.connections <= REPLY_WIDTH + 4
        assert (await upstream.call(call("other"))).result == {"content": []}
        assert there.connections <= REPLY_WIDTH + 4
        asker.take_replies.set()


async def test_honest_requests_are_all_answered_a_few_at_a_time() -> None:
    asker = Asker(300, deaf=False)
    async with peer(asker.handle) as there, connected("http", there.url, era="legacy") as (upstream, _):
        task = asyncio.create_task(upstream.call(call("ask")))
        await eventually_async(lambda: asker.replies == 300)
        asker.finish.set()
        assert (await task).result == {"content": []}
        assert asker.most_open <= REPLY_WIDTH


async def test_a_cancellation_is_told_though_replies_are_not_taken() -> None:
    asker = Asker(REPLIES // 2, deaf=True)
    async with peer(asker.handle) as there, connected("http", there.url, era="legacy") as (upstream, _):
        task = asyncio.create_task(upstream.call(call("ask")))
        await eventually_async(lambda: asker.open == REPLY_WIDTH)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await eventually_async(lambda: "notifications/cancelled" in there.methods())
        assert asker.replies == 0, "it did not have to wait for them"
        asker.take_replies.set()


async def test_many_cancellations_go_over_few_connections_and_none_is_lost() -> None:
    told: list[int] = []
    open_now = most_open = 0
    go = asyncio.Event()

    async def handle(request, writer) -> None:
        nonlocal open_now, most_open
        message = request.json
        if message.get("method") == "notifications/cancelled":
            open_now += 1
            most_open = max(most_open, open_now)
            await go.wait()
            open_now -= 1
            told.append(message["params"]["requestId"])
            await reply(writer, None, 202)
        elif not await legacy_basics(request, writer):
            await asyncio.Event().wait()

    async with peer(handle) as there, connected("http", there.url, era="legacy") as (upstream, _):
        tasks = [asyncio.create_task(upstream.call(call())) for _ in range(40)]
        await eventually_async(lambda: there.methods().count("tools/call") == 40)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await eventually_async(lambda: open_now == NOTICE_WIDTH)
        go.set()
        await eventually_async(lambda: len(set(told)) == 40)
        assert most_open == NOTICE_WIDTH


async def test_a_standing_stream_that_floods_is_left(monkeypatch) -> None:
    monkeypatch.setattr("apps.servers.transports.http_wire.LISTEN_PACE", 200_000)
    left = asyncio.Event()

    async def handle(request, writer) -> None:
        if request.method == "GET":
            await stream_head(writer)
            try:
                while True:
                    writer.write(event(CHANGED) * 100)
                    await writer.drain()
                    await asyncio.sleep(0)
            finally:
                left.set()
        await legacy_basics(request, writer)

    async with peer(handle) as there, connected("http", there.url, era="legacy") as (upstream, recorder):
        listening = asyncio.create_task(upstream.listen())
        await asyncio.wait_for(left.wait(), 10)
        assert recorder.named("list_changed")
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_flood_of_progress_leaves_the_loop_to_others(era: str) -> None:
    seen = longest = run = 0
    done = asyncio.Event()

    async def handle(request, writer) -> None:
        if era == "legacy" and await legacy_basics(request, writer):
            return
        token = request.json["params"]["_meta"]["progressToken"]
        await stream_head(writer)
        one = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}
        writer.write(b"".join([event(one)] * 4_000) + event(result(request)))
        await writer.drain()
        writer.close()

    async def take(message) -> None:
        nonlocal seen, run, longest
        seen += 1
        run += 1
        longest = max(longest, run)
        sum(range(10_000))  # what a gateway does for each

    async def others() -> None:
        nonlocal run
        while not done.is_set():
            run = 0
            await asyncio.sleep(0)

    async with peer(handle) as there, connected("http", there.url, era=era) as (upstream, _):
        turning = asyncio.create_task(others())
        await upstream.call(call(on_message=take, timeout=60.0))
        done.set()
        await turning
    assert seen == 4_000
    assert longest <= 2 * PIECE / 100, "others had to wait for more than some pieces of the stream"


async def test_a_batch_has_a_bounded_length() -> None:
    async def handle(request, writer) -> None:
        if not await legacy_basics(request, writer):
            await stream_head(writer)
            writer.write(event([CHANGED] * 1001) + event(result(request)))
            await writer.drain()
            writer.close()

    async with peer(handle) as there, connected("http", there.url, era="legacy") as (upstream, _):
        with pytest.raises(UpstreamProtocolError, match="batch"):
            await upstream.call(call())
    channel = Channel(lambda body: None, Announcements("s", Recorder()))
    with pytest.raises(UpstreamProtocolError, match="batch"):
        channel.feed(json.dumps([CHANGED] * 1001).encode())


async def test_the_old_transport_ends_a_stream_that_asks_without_end() -> None:
    deaf = asyncio.Event()
    streams = 0

    async def handle(request, writer) -> None:
        nonlocal streams
        if request.method == "GET":
            streams += 1
            await stream_head(writer)
            writer.write(b"event: endpoint\ndata: /messages\n\n")
            await writer.drain()
            stream.append(writer)
            await asyncio.Event().wait()
        message = request.json
        if "method" not in message:
            await deaf.wait()
        await reply(writer, None, 202)
        if message.get("method") == "initialize":
            stream[-1].write(event(result(request, {"protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": {}})))
        elif message.get("method") == "tools/call" and message["params"]["name"] == "ask":
            stream[-1].write(event(PING) * 5_000)
        elif "id" in message and "method" in message:
            stream[-1].write(event(result(request, {"content": [{"type": "text", "text": "good"}]})))
        await stream[-1].drain()

    stream: list[asyncio.StreamWriter] = []
    async with peer(handle) as there, connected("sse", there.url) as (upstream, _):
        with pytest.raises(UpstreamProtocolError, match="floods with requests"):
            await upstream.call(call("ask"))
        assert there.connections <= REPLY_WIDTH + 6
        assert text_of(await upstream.call(call("good"))) == "good"
        assert streams == 2
        deaf.set()


@pytest.mark.parametrize(("tool", "says"), [("ask-forever", "requests"), ("announce-forever", "no call")])
async def test_a_process_that_floods_is_ended_and_another_takes_its_place(tool: str, says: str) -> None:
    async with connected("stdio", command=PEER) as (upstream, recorder):
        with pytest.raises(UpstreamProtocolError, match=says):
            await upstream.call(call(tool, timeout=60.0))
        await eventually_async(lambda: recorder.named("process_ended"))
        assert (await upstream.call(call("echo", {"a": 1}))).result["arguments"] == {"a": 1}


async def test_a_process_that_writes_empty_lines_without_end_is_ended() -> None:
    async with connected("stdio", command=PEER) as (upstream, recorder):
        with pytest.raises(UpstreamProtocolError, match="not JSON-RPC"):
            await upstream.call(call("blank-forever", timeout=60.0))
        await eventually_async(lambda: recorder.named("process_ended"))


async def test_a_process_that_floods_its_stderr_is_slowed_down(monkeypatch) -> None:
    monkeypatch.setattr("apps.servers.transports.child.LOG_SECONDS", 3600.0)
    async with connected("stdio", command=PEER) as (upstream, _):
        with pytest.raises(UpstreamTimeout):
            await upstream.call(call("hang", timeout=0.05))
        assert (await upstream.call(call("log-forever"))).result == {"content": []}
        child = upstream._own._run.child
        await eventually_async(lambda: child._logged > 1024 * 1024)
        read = child._logged
        for _ in range(200):
            await asyncio.sleep(0)
        assert child._logged == read, "no more is read before the time is over"
        monkeypatch.setattr("apps.servers.transports.child.LOG_SECONDS", 0.01)
        child._log_again()
        await eventually_async(lambda: child._logged > 0)


async def test_news_that_a_caller_does_not_take_are_bounded() -> None:
    channel = Channel(lambda body: None, Announcements("s", Recorder()))
    taken: list[int] = []
    go = asyncio.Event()

    async def take(message) -> None:
        await go.wait()
        taken.append(message["params"]["progress"])

    pending = channel.open(1, UpstreamRequest("x", {}, on_message=take), "r")
    waiting = asyncio.create_task(channel.wait(pending))
    for number in range(50_000):
        params = {"progressToken": 1, "progress": number}
        channel.feed(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).encode())
        if not number:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert pending.news_size <= channels.NEWS_BYTES
    channel.feed(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    go.set()
    assert (await waiting).result == {}
    channel.close(pending)
    assert 5_000 <= len(taken) <= 15_000
    assert taken[-1] == 49_999, "the newest are kept"
    assert taken == sorted(taken)


async def test_all_progress_of_a_process_comes_through_when_it_is_taken() -> None:
    seen: list[int] = []

    async def take(message) -> None:
        seen.append(message["params"]["progress"])

    async with connected("stdio", command=PEER) as (upstream, _):
        await upstream.call(call("news", {"count": 5_000}, on_message=take, timeout=60.0))
    assert seen == list(range(5_000))


async def test_a_lane_does_its_errands_in_order_and_has_an_end() -> None:
    lane = Lane(2, 10, 1000)
    begun: list[int] = []
    done: list[int] = []
    running = most = 0
    go = asyncio.Event()

    async def errand(number: int) -> None:
        nonlocal running, most
        begun.append(number)
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1
        done.append(number)
        if number == 3:
            raise UpstreamDied("of no consequence")

    for number in range(10):
        assert lane.put(lambda number=number: errand(number), 1)
    assert not lane.put(lambda: errand(10), 1), "10 wait"
    await eventually_async(lambda: running == 2)
    assert lane.put(lambda: errand(10), 1)
    assert not lane.put(lambda: errand(11), 1000), "too many bytes"
    go.set()
    await eventually_async(lambda: len(done) == 11)
    assert begun == list(range(11))
    assert most == 2
    for number in range(3):
        # Put at any moment, also while those before are just ending, it is done.
        assert lane.put(lambda number=number: errand(number), 1)
        for _ in range(number):
            await asyncio.sleep(0)
    await eventually_async(lambda: len(done) == 14)
    await lane.aclose()


async def test_an_errand_has_its_time(monkeypatch) -> None:
    monkeypatch.setattr("apps.servers.transports.floods.LANE_SECONDS", 0.01)
    lane = Lane(1, 10, 1000)
    done: list[int] = []

    async def second() -> None:
        done.append(2)

    lane.put(asyncio.Event().wait, 1)  # type: ignore[arg-type]
    lane.put(second, 1)
    await eventually_async(lambda: done == [2])
    await lane.aclose()


def test_a_pace_counts_by_the_window(monkeypatch) -> None:
    now = 1000.0
    monkeypatch.setattr("apps.servers.transports.floods.time.monotonic", lambda: now)
    pace = Pace(10, "things")
    for _ in range(5):
        now += 11.0
        pace.spend(8)
    with pytest.raises(Flooded, match="floods with things"):
        pace.spend(10)
    now += 11.0
    pace.spend(10)
