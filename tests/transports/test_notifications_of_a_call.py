"""What a server says during a call beside its answer: log messages at the level that is wanted, notices nobody knows, requests."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from apps.servers.transports.announcements import Announcements
from apps.servers.transports.base import Upstream, UpstreamRequest
from apps.servers.transports.channel import Channel
from apps.servers.transports.wire import LATEST_LEGACY, says_more
from tests.product import ROOT
from tests.support import eventually_async, free_port
from tests.transports.peers import PYTHON, Recorder, call, connected, start_real

KINDS = ("http", "sse", "stdio")


@contextlib.asynccontextmanager
async def legacy(transport: str) -> AsyncIterator[Upstream]:
    """An upstream to a real server of the initialize era."""
    command = [PYTHON, "-m", "tests.bridge.peer", "--era", "legacy", "--transport", transport]
    if transport == "stdio":
        async with connected("stdio", command=tuple(command), cwd=str(ROOT), era="legacy") as (upstream, _):
            yield upstream
        return
    port = free_port()
    server = start_real([*command, str(port)], port, "/sse" if transport == "sse" else "/mcp", cwd=ROOT)
    try:
        async with connected(transport, server.url, era="legacy") as (upstream, _):
            yield upstream
    finally:
        server.process.kill()
        server.process.wait()


@pytest.mark.parametrize("transport", KINDS)
async def test_the_level_falls_when_more_is_wanted_and_unknown_notices_come_through(transport: str) -> None:
    heard: list[dict[str, Any]] = []

    async def on_message(message: dict[str, Any]) -> None:
        heard.append(message)

    async def levels(wanted: str) -> list[str]:
        heard.clear()
        await upstream.call(call("logs", on_message=on_message, log_level=wanted, caller="key:1"))
        return [message["params"]["level"] for message in heard]

    async with legacy(transport) as upstream:
        assert await levels("error") == ["error"]
        assert await levels("info") == ["info", "warning", "error"]
        assert await levels("error") == ["info", "warning", "error"], "others of the session may want them still"
        assert await levels("debug") == ["debug", "info", "warning", "error"]
        heard.clear()
        novelty = {"method": "notifications/com.example/novelty", "params": {"x": [1]}}
        changed = {"method": "notifications/tools/list_changed", "params": {}}
        spec = {"notices": [novelty, changed], "result": {"content": []}}
        answer = await upstream.call(call("mirror", spec, on_message=on_message, caller="key:1"))
        assert answer.result is not None
        assert [{key: one[key] for key in ("method", "params")} for one in heard] == [novelty]


@pytest.mark.parametrize("beside", ["resources/unsubscribe", "logging/setLevel"])
async def test_what_is_no_call_does_not_make_it_doubtful_who_is_asked(beside: str) -> None:
    written: list[bytes] = []
    asked: list[dict[str, Any]] = []
    channel = Channel(written.append, Announcements("server-1", Recorder()))

    async def on_request(message: dict[str, Any]) -> dict[str, Any]:
        asked.append(message)
        return {"result": {"action": "accept"}}

    during = channel.open(channel.next_id(), call(on_request=on_request), LATEST_LEGACY)
    other = channel.open(channel.next_id(), UpstreamRequest(beside, {}), LATEST_LEGACY)
    channel.feed(b'{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}')
    await eventually_async(lambda: written)
    assert json.loads(written[0]) == {"jsonrpc": "2.0", "id": "q", "result": {"action": "accept"}}
    assert len(asked) == 1
    channel.close(during)
    channel.close(other)


def test_which_level_says_more() -> None:
    assert says_more("info", "")
    assert says_more("info", "warning")
    assert not says_more("warning", "info")
    assert not says_more("info", "info")
    assert not says_more("loud", "")
    assert not says_more(None, "")
