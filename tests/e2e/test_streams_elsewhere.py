"""Streams of one process that clients come back to, or POST for, at another one; and what is said when a process is gone."""

import json

import psutil
import pytest

from tests.e2e.paced import WORK, Paced
from tests.e2e.sessions import FORM, Sse, come_back, data_of, initialized, refused, standalone, started
from tests.e2e.support import Client, connect, made, rest, unique
from tests.support import eventually

pytestmark = pytest.mark.once

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@pytest.fixture(scope="module")
def gateways(start_for_module):
    first = start_for_module("postgres")
    return first, start_for_module("postgres", first=first, role="gateway")


@pytest.fixture(scope="module")
def server(gateways):
    with Paced() as it:
        it.slug = unique("paced")
        settings = {"slug": it.slug, "transport": "http", "url": it.url, "review": "accept"}
        made(rest(gateways[0], "POST", "servers/", settings))
        for product in gateways:
            eventually(lambda p=product: "work" in connect(p, "modern", f"/mcp/{it.slug}").names(), within=25)
        yield it


@pytest.fixture
def here(gateways, server) -> Client:
    return initialized(gateways[0], server, capabilities={"elicitation": {}})


def at(client: Client, product) -> Client:
    """Return the same session at another process."""
    return Client(product, client.era, client.path, client.key, client.session)


def test_a_call_s_stream_is_taken_up_at_another_process_and_back(here, server, gateways):
    there = at(here, gateways[1])
    mark, stream, (primer, first) = started(here, server)
    with stream, come_back(there, primer.id) as again:
        assert again.next().id == primer.id
        assert data_of([again.message()]) == ["one"]
        assert stream.rest() == [], "it is read in one place"
        server.log(mark, "two")
        second = again.event()
        assert data_of([second.message]) == ["two"]
        server.say(mark, {"id": 7, "method": "elicitation/create", "params": FORM})
        asked = again.message()
        assert there.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}}).status == 202
        eventually(lambda: server.answers(7), within=10)
        with come_back(here, second.id) as back:
            assert back.next().id == second.id
            assert back.message()["id"] == asked["id"]
            assert again.rest() == []
            server.finish(mark, "in the end")
            assert data_of(back.rest()) == ["in the end"]
    with come_back(there, first.id) as late:
        said = late.rest()
        assert [one.get("method", "answer") for one in said] == ["notifications/message", "elicitation/create", "answer"]


def test_large_streams_come_whole_from_another_process(here, server, gateways):
    mark, stream, events = started(here, server)
    stream.cut()
    pieces = [f"{number} " + "x" * 700_000 for number in range(8)]
    for piece in pieces:
        server.log(mark, piece)
    server.finish(mark)
    with come_back(at(here, gateways[1]), events[-1].id) as again:
        assert data_of(again.rest()) == [*pieces, "done"]


def test_nobody_else_takes_a_stream_up_at_another_process(here, server, gateways):
    mark, stream, events = started(here, server)
    other = initialized(gateways[1], server)
    for id in (events[-1].id, events[0].id, events[-1].id + "0", "c" + "f" * 8 + events[-1].id[9:]):
        with come_back(other, id) as answer:
            assert answer.status == 404
            assert json.loads(answer.text())["error"]["data"]["type"].endswith("/stream-gone")
    server.finish(mark)
    with stream:
        assert data_of(stream.rest()) == ["done"]


def test_a_standalone_stream_goes_on_at_another_process(here, server, gateways):
    with standalone(here) as stream:
        primer = stream.next()
        server.tools = [{**WORK, "description": unique("changed")}]
        made(rest(gateways[0], "POST", f"servers/{server.slug}/discover/", {}))
        told = stream.event()
        with standalone(at(here, gateways[1]), primer.id) as again:
            new = again.next()
            assert (new.data, new.id.rpartition(".")[0] != told.id.rpartition(".")[0]) == ("", True)
            assert again.event().id == told.id
            assert again.next().id == new.id, "from here on it is this process's"
            methods = {again.message()["method"].split("/")[1] for _ in range(3)}
            assert methods == {"tools", "resources", "prompts"}, "another process does not know what was told"
            assert stream.rest() == []


def test_posts_reach_a_session_at_another_process(gateways, server):
    first, second = gateways
    key = made(rest(first, "POST", "api-keys/", {"name": unique("other"), "inherits_owner": True}))["key"]
    with Sse(first, f"/sse/{server.slug}") as client:
        client.product = second
        client.initialize("2025-03-26", elicitation={})
        mark = unique("mark")
        client.work(mark, "w")
        server.begun(mark)
        server.say(mark, {"id": 8, "method": "elicitation/create", "params": FORM})
        asked = client.stream.message()
        reply = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {"name": "Ada"}}}
        assert client.post(reply).status == 202
        assert eventually(lambda: server.answers(8), within=10)[0]["result"]["content"] == {"name": "Ada"}
        server.finish(mark, "in the end")
        assert client.stream.message()["result"]["content"][0]["text"] == "in the end"
        assert client.post([PING, {**PING, "id": 2}]).status == 202
        assert {client.stream.message()["id"] for _ in range(2)} == {1, 2}
        assert client.ask("no/such", 3)["error"]["code"] == -32601
        assert refused(client.post([])) == (400, "invalid-request")
        assert refused(client.post({"jsonrpc": "2.0", "method": "x", "params": 7})) == (400, "validation-failed")
        assert refused(client.post(PING, Authorization=f"Bearer {key}")) == (404, "session-gone")
        assert refused(client.post(PING, client.address.replace("session_id=", "session_id=ffffffff", 1)[:-8])) == (
            404,
            "session-gone",
        )
        marks = [unique("many") for _ in range(64)]
        for number, mark in enumerate(marks):
            client.work(mark, number)
        more = client.post(PING)
        assert (refused(more), more.error["data"]["rule"]) == ((429, "overloaded"), "sse-requests")
        address = client.address
    again = Sse(second)
    with again:
        eventually(lambda: again.post(PING, address).status == 404, within=5)


def test_when_a_process_is_gone_everybody_is_told(gateways, server, start_for_module):
    doomed = start_for_module("postgres", first=gateways[0], role="gateway")
    eventually(lambda: "work" in connect(doomed, "modern", f"/mcp/{server.slug}").names(), within=25)
    client = initialized(doomed, server)
    there = at(client, gateways[1])
    _, stream, events = started(client, server)
    with Sse(doomed) as sse, stream, come_back(there, events[-1].id) as again:
        assert again.next().id == events[-1].id
        for process in psutil.Process(doomed.pid).children(recursive=True):
            process.kill()
        assert again.rest(6) == []
        sse.product = gateways[1]
        assert refused(sse.post(PING)) == (404, "session-gone")
    with come_back(there, events[-1].id) as answer:
        assert answer.status == 404
    assert there.ask("tools/list").result, "the session itself goes on"
