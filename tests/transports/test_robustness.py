"""Whatever a server says, only typed errors come out; and nothing is left behind."""

import asyncio
import gc
import os
import sys
from pathlib import Path

import orjson
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.common.errors import AddressRefused, UpstreamError, UpstreamProtocolError
from apps.servers.transports.announcements import Announcements
from apps.servers.transports.base import UpstreamRequest
from apps.servers.transports.channel import Channel
from apps.servers.transports.wire import request_body
from tests.support import eventually_async
from tests.transports.peers import Recorder, call, connected, event, legacy_basics, peer, reply, result, stream_head

SCALARS = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=5
)
METHODS = st.sampled_from([
    "ping", "roots/list", "notifications/progress", "notifications/message", "notifications/cancelled",
    "notifications/tools/list_changed", "notifications/resources/updated", "x",
]) | VALUES  # fmt: skip
PARAMS = VALUES | st.fixed_dictionaries(
    {}, optional={"progressToken": VALUES, "requestId": VALUES, "uri": VALUES, "progress": VALUES}
)
MESSAGES = VALUES | st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": VALUES,
        "id": VALUES | st.just(1),
        "method": METHODS,
        "params": PARAMS,
        "result": VALUES,
        "error": VALUES,
    },
)


@given(st.lists(MESSAGES, max_size=5))
async def test_a_channel_takes_any_json(messages) -> None:
    async def take(message) -> None:
        return None

    async def ask(message):
        return {"result": {}}

    sent: list[bytes] = []
    channel = Channel(sent.append, Announcements("s", Recorder()))
    pending = channel.open(1, UpstreamRequest("x", {}, on_message=take, on_request=ask), "r")
    for message in messages:
        try:
            channel.feed(orjson.dumps(message))
        except UpstreamProtocolError:
            continue
    if pending.done.done():
        try:
            await channel.wait(pending)
        except UpstreamError:
            pass
    await asyncio.sleep(0)
    channel.close(pending)
    assert channel.in_flight == 0
    for reply_sent in sent:
        assert orjson.loads(reply_sent)["jsonrpc"] == "2.0"


@pytest.mark.parametrize("era", ["modern", "legacy"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bodies=st.lists(MESSAGES, max_size=4),
    status=st.sampled_from([200, 200, 200, 202, 204, 400, 404, 405, 418, 500]),
    stream=st.booleans(),
)
async def test_http_takes_any_json_and_any_status(era: str, bodies, status: int, stream: bool) -> None:
    async def handle(request, writer) -> None:
        if request.method != "POST":
            await reply(writer, None, 405)
        elif era == "legacy" and await legacy_basics(request, writer):
            return
        elif request.json.get("method") == "server/discover":
            await reply(writer, b"x", 503)
        elif request.json.get("method") == "tools/list":
            await reply(writer, result(request))
        elif stream:
            await stream_head(writer)
            writer.write(b"".join(event(body) for body in bodies))
            await writer.drain()
            writer.close()
        else:
            await reply(writer, bodies[0] if bodies else b"", status)

    async def take(message) -> None:
        return None

    async with peer(handle) as there, connected("http", there.url, era=era) as (upstream, _):
        try:
            await upstream.call(call(on_message=take, timeout=5.0))
        except (UpstreamError, AddressRefused):
            pass
        assert (await upstream.call(UpstreamRequest("tools/list", {}, timeout=5.0))).result is not None


def test_requests_that_are_no_json_are_typed() -> None:
    deep: dict = {}
    for _ in range(5000):
        deep = {"a": deep}
    for params in (deep, {"a": object()}, {"a": float("nan"), "b": 1 << 70}):
        with pytest.raises(UpstreamProtocolError):
            request_body(1, "x", params)


async def test_nothing_is_left_behind_by_many_upstreams() -> None:
    process = psutil.Process()
    script = (sys.executable, "-I", "-S", str(Path(__file__).with_name("stdio_peer.py")))

    async def echo(request, writer) -> None:
        await reply(writer, result(request))

    async def round_trip() -> None:
        async with peer(echo) as there, connected("http", there.url, era="modern") as (upstream, _):
            await asyncio.gather(*(upstream.call(call()) for _ in range(5)))
        async with connected("stdio", command=script) as (upstream, _):
            await upstream.call(call("echo"))

    await round_trip()
    gc.collect()
    files, tasks = process.num_fds(), len(asyncio.all_tasks())
    for _ in range(8):
        await round_trip()
    await eventually_async(lambda: process.num_fds() <= files and len(asyncio.all_tasks()) <= tasks)
    assert not [child for child in process.children() if child.status() == psutil.STATUS_ZOMBIE and child.ppid() == os.getpid()]
