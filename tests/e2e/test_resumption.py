"""Streams of the initialize era whose connection broke: what was missed is said again, to nobody else, and while the call goes on."""

import asyncio
import json

import httpx2
import pytest
from mcp import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client

from tests.e2e.events import Relay
from tests.e2e.paced import WORK, Paced
from tests.e2e.sessions import come_back, data_of, initialized, standalone, started
from tests.e2e.support import Client, audit_mark, connect, made, recorded, rest, unique
from tests.support import eventually, eventually_async

pytestmark = pytest.mark.once

ASKS = {"elicitation": {}}


@pytest.fixture(scope="module")
def server(shared_product):
    with Paced() as it:
        it.slug = unique("paced")
        settings = {"slug": it.slug, "transport": "http", "url": it.url, "review": "accept"}
        made(rest(shared_product, "POST", "servers/", settings))
        eventually(lambda: "work" in connect(shared_product, "modern", f"/mcp/{it.slug}").names(), within=25)
        yield it


@pytest.fixture
def client(shared_product, server):
    return initialized(shared_product, server)


def test_a_call_s_stream_is_taken_up_while_the_call_goes_on(client, server):
    mark, stream, (primer, first) = started(client, server)
    assert (primer.data, primer.retry) == ("", "1000")
    assert primer.id
    assert first.id not in ("", primer.id)
    stream.cut()
    server.log(mark, "two")
    with come_back(client, first.id) as again:
        assert (again.status, again.headers["content-type"]) == (200, "text/event-stream")
        assert again.next().id == first.id, "where it stands"
        second = again.event()
        assert data_of([second.message]) == ["two"]
        server.log(mark, "three")
        assert data_of([again.message()]) == ["three"]
        server.finish(mark)
        assert data_of(again.rest()) == ["done"]
    with come_back(client, primer.id) as all_of_it:
        assert data_of(all_of_it.rest()) == ["one", "two", "three", "done"]
    with come_back(client, second.id) as some:
        assert data_of(some.rest()) == ["three", "done"]


def test_the_answer_waits_for_a_client_that_was_away_when_it_came(client, server, shared_product):
    mark, stream, events = started(client, server)
    since = audit_mark(shared_product)
    stream.cut()
    server.finish(mark, "while you were away")
    recorded(shared_product, "event_type = 'call.outcome' AND outcome = 'ok' AND server = ?", server.slug, since=since)
    for _ in range(2):
        with come_back(client, events[-1].id) as again:
            (answer,) = again.rest()
            assert data_of([answer]) == ["while you were away"]
    with come_back(client, again_id(client, events[0].id)) as nothing:
        assert nothing.rest() == [], "who has the answer has all"


def again_id(client: Client, first: str) -> str:
    """Return the id of the last event of a stream that has ended."""
    last = ""
    with come_back(client, first) as stream:
        while (event := stream.next()) is not None:
            last = event.id or last
    return last


def test_each_stream_says_its_own_and_all_clients_may_use_the_same_ids(client, server, shared_product):
    other = initialized(shared_product, server)
    calls = [started(one, server, id=7) for one in (client, other)]
    beside = started(client, server, id=8)
    for mark, stream, _ in (*calls, beside):
        stream.cut()
        server.log(mark, f"two {mark}")
        server.finish(mark, f"done {mark}")
    for who, (mark, _, events) in ((client, calls[0]), (other, calls[1]), (client, beside)):
        with come_back(who, events[-1].id) as again:
            assert data_of(again.rest()) == [f"two {mark}", f"done {mark}"]


def test_nobody_else_takes_a_stream_up(client, server, shared_product):
    mark, stream, events = started(client, server)
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("other"), "inherits_owner": True}))["key"]
    stranger = initialized(shared_product, server, key=key)
    same_key = initialized(shared_product, server)
    first = events[-1].id
    name, _, number = first.rpartition(".")
    for who in (stranger, same_key):
        for id in (first, events[0].id):
            with come_back(who, id) as refused:
                assert refused.status == 404
                error = json.loads(refused.text())["error"]
                assert error["data"]["type"].endswith("/stream-gone")
    thief = Client(shared_product, "legacy", client.path, key, client.session)
    with come_back(thief, first) as refused:
        assert (refused.status, "session-gone" in refused.text()) == (404, True)
    forged = [
        f"{name}.{int(number) + 1}",
        f"{name}.999999",
        f"{name}x.1",
        f"c{'A' * 16}.0",
        name,
        "1",
        "." + number,
        f"{name}.-1",
        "x" * 4000,
    ]
    for id in forged:
        with come_back(client, id) as refused:
            assert refused.status == 404, id
    server.finish(mark)
    with stream:
        assert data_of(stream.rest()) == ["done"], "the one who has it is not disturbed"


def test_a_stream_is_read_in_one_place(client, server):
    mark, stream, (primer, first) = started(client, server)
    with stream, come_back(client, primer.id) as second:
        assert data_of([second.message()]) == ["one"]
        assert stream.rest() == [], "the first connection ends"
        with come_back(client, first.id) as third:
            assert third.next().id == first.id
            assert second.rest() == []
            server.log(mark, "two")
            server.finish(mark)
            assert data_of(third.rest()) == ["two", "done"]


def test_a_reader_that_is_stuck_holds_nothing_up_when_it_comes_back_elsewhere(client, server):
    mark, stream, events = started(client, server, receive_buffer=4096)
    pieces = [f"{number} " + "x" * 200_000 for number in range(40)]
    with stream:
        for piece in pieces:
            server.log(mark, piece)
        with come_back(client, events[-1].id) as again:
            server.finish(mark)
            assert data_of(again.rest()) == [*pieces, "done"]


def test_a_question_reaches_a_client_that_comes_back_and_its_answer_the_server(server, shared_product):
    client = initialized(shared_product, server, capabilities=ASKS)
    mark, stream, events = started(client, server)
    stream.cut()
    server.say(mark, {"id": 99, "method": "elicitation/create", "params": {"message": "Name?", "requestedSchema": {}}})
    with come_back(client, events[-1].id) as again:
        asked = again.message()
        assert (asked["method"], asked["params"]["message"]) == ("elicitation/create", "Name?")
        reply = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {"name": "Ada"}}}
        assert client.send(reply).status == 202
        answer = eventually(lambda: server.answers(99), within=10)
        assert answer[0]["result"]["content"] == {"name": "Ada"}
        server.finish(mark)
        assert data_of(again.rest()) == ["done"]


def test_a_call_is_cancelled_by_its_notification_and_not_by_a_broken_stream(client, server):
    mark, stream, events = started(client, server, id=4711)
    stream.cut()
    with come_back(client, events[-1].id) as again:
        assert again.next().id == events[-1].id
        arrival = next(one for one in server.calls(mark=mark))
        assert not arrival.left
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 4711}}
        assert client.send(cancelled).status == 202
        (answer,) = again.rest()
        assert (answer["id"], answer["error"]["code"]) == (4711, -32800)


@pytest.mark.parametrize("revision", ["2025-06-18", "2025-03-26"])
def test_older_clients_get_ids_and_no_event_without_data(server, shared_product, revision):
    client = initialized(shared_product, server, revision)
    mark, stream, events = started(client, server)
    (first,) = events
    assert first.id
    assert not first.retry
    stream.cut()
    server.log(mark, "two")
    server.finish(mark)
    with come_back(client, first.id) as again:
        event = again.next()
        assert data_of([event.message]) == ["two"]
        assert data_of(again.rest()) == ["done"]


def test_without_a_session_and_in_plain_answers_there_are_no_ids(server, shared_product):
    client = Client(shared_product, "legacy", f"/mcp/{server.slug}")
    mark, stream, (first,) = started(client, server)
    assert not first.id
    server.finish(mark)
    with stream:
        assert stream.next().id == ""
    plain = connect(shared_product, "legacy").call("system__calculate", {"expression": "6 * 7"})
    assert plain.headers["content-type"] == "application/json"


def test_the_end_of_a_session_is_the_end_of_its_streams(client, server):
    mark, stream, events = started(client, server)
    stream.cut()
    with standalone(client) as beside:
        assert client.send(None, method="DELETE").status == 204
        assert beside.rest() == []
    with come_back(client, events[-1].id) as refused:
        assert (refused.status, "session-gone" in refused.text()) == (404, True)
    server.finish(mark)


def test_a_revoked_key_ends_a_stream_that_was_taken_up(server, shared_product):
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("brief"), "inherits_owner": True}))
    client = initialized(shared_product, server, key=key["key"])
    mark, stream, events = started(client, server)
    stream.cut()
    with come_back(client, events[-1].id) as again:
        assert again.next().id == events[-1].id
        made(rest(shared_product, "POST", f"api-keys/{key['id']}/revoke/", {}))
        assert again.rest(5) == []
    with come_back(client, events[-1].id) as refused:
        assert refused.status == 401
    server.finish(mark)


def test_what_nobody_reads_is_not_kept_without_end(client, server):
    def left_unread(who: Client) -> str:
        mark, stream, events = started(who, server)
        stream.cut()
        for number in range(12):
            server.log(mark, f"{number} " + "x" * 1_000_000)
        server.finish(mark)
        with come_back(who, events[-1].id) as again:
            assert len(again.rest()) == 13, "the newest are there"
        return events[-1].id

    first, *_ = (left_unread(client) for _ in range(3))
    with come_back(client, first) as refused:
        assert refused.status == 404
        assert "no longer kept" in json.loads(refused.text())["error"]["message"]
    assert client.ask("tools/list").result, "the session is as good as before"


# The stream that a session has beside its calls


def change_tools(server: Paced, product, text: str) -> None:
    server.tools = [{**WORK, "description": text}]
    made(rest(product, "POST", f"servers/{server.slug}/discover/", {}))
    eventually(
        lambda: (
            connect(product, "modern", f"/mcp/{server.slug}").ask("tools/list").result["tools"][0].get("description") == text
        ),
        within=15,
    )


def test_a_standalone_stream_goes_on_where_it_broke(client, server, shared_product):
    with standalone(client) as stream:
        primer = stream.next()
        assert (primer.data, primer.retry) == ("", "1000")
        change_tools(server, shared_product, unique("here"))
        told = stream.event()
        assert told.message["method"] == "notifications/tools/list_changed"
        stream.cut()
    with standalone(client, told.id) as quiet:
        assert quiet.next().id == told.id
        with pytest.raises(TimeoutError):
            quiet.event(0.5)
        quiet.cut()
    change_tools(server, shared_product, unique("away"))
    with standalone(client, told.id) as stream:
        assert stream.next().id == told.id
        later = stream.event()
        assert later.message["method"] == "notifications/tools/list_changed"
        assert later.id not in (told.id, primer.id)
    with standalone(client, primer.id) as stream:
        assert [stream.event().id for _ in range(2)] == [told.id, later.id], "what was told may not have been read"
        with standalone(client, later.id) as taken:
            assert stream.rest() == []
            assert taken.next().id == later.id
            with pytest.raises(TimeoutError):
                taken.event(0.5)


def test_a_resource_that_changed_meanwhile_is_told(client, server, shared_product):
    with standalone(client) as stream:
        primer = stream.next()
        assert client.ask("resources/subscribe", {"uri": "test://watched"}).result == {}
        server.announce_update("test://watched")
        told = stream.event()
        assert told.message["params"] == {"uri": "test://watched"}
        stream.cut()
    server.announce_update("test://watched")
    with standalone(client, told.id) as stream:
        assert stream.event().message["params"] == {"uri": "test://watched"}
    assert primer.id


def test_a_standalone_stream_that_is_not_known_goes_on_as_a_new_one(client, server, shared_product):
    other = initialized(shared_product, server)
    with standalone(other) as theirs:
        id = theirs.next().id
        change_tools(server, shared_product, unique("theirs"))
        assert theirs.event().id
        with standalone(client, id) as stream:
            primer = stream.next()
            assert primer.id.rpartition(".")[0] != id.rpartition(".")[0]
            told = {stream.message()["method"].split("/")[1] for _ in range(3)}
            assert told == {"tools", "resources", "prompts"}, "all may have changed"
        with pytest.raises(TimeoutError):
            theirs.next(0.3)


# Official clients


async def test_the_official_client_gets_its_answer_over_a_wire_that_is_cut(server, shared_product):
    heard: list[str] = []
    mark = unique("mark")

    async def note(params) -> None:
        heard.append(params.data)

    with Relay(shared_product) as relay:
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {shared_product.key}"}, timeout=30) as http:
            transport = streamable_http_client(f"{relay.base_url}/mcp/{server.slug}", http_client=http)
            async with SdkClient(transport, mode="legacy", logging_callback=note) as client:
                asking = asyncio.create_task(client.call_tool("work", {"mark": mark}))
                await asyncio.to_thread(server.begun, mark)
                for said in ("one", "two"):  # as often as this client comes back for one answer
                    await asyncio.to_thread(server.log, mark, said)
                    await eventually_async(lambda said=said: said in heard)
                    assert relay.cut()
                    await asyncio.to_thread(server.log, mark, f"after {said}")
                await asyncio.to_thread(server.finish, mark, "in the end")
                result = await asyncio.wait_for(asking, 15)
    assert result.content[0].text == "in the end"
    # this client names the event that it first came back with each time, so it hears what came after that again
    assert list(dict.fromkeys(heard)) == ["one", "after one", "two", "after two"]


async def test_the_official_client_hears_of_changes_over_a_wire_that_is_cut(server, shared_product):
    heard: list[str] = []

    async def note(message) -> None:
        heard.append(getattr(message, "method", ""))

    with Relay(shared_product) as relay:
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {shared_product.key}"}, timeout=30) as http:
            transport = streamable_http_client(f"{relay.base_url}/mcp/{server.slug}", http_client=http)
            async with SdkClient(transport, mode="legacy", message_handler=note):
                await eventually_async(lambda: relay.connections >= 2)
                await asyncio.to_thread(change_tools, server, shared_product, unique("first"))
                await eventually_async(lambda: "notifications/tools/list_changed" in heard)
                heard.clear()
                assert relay.cut()
                await asyncio.to_thread(change_tools, server, shared_product, unique("second"))
                await eventually_async(lambda: "notifications/tools/list_changed" in heard, within=10)
    assert "notifications/prompts/list_changed" not in heard
