"""JSON-RPC batches of 2025-03-26: what is answered and how, what is refused, and that each call is a call of its own."""

import concurrent.futures
import json

import pytest

from tests.e2e.events import EventStream
from tests.e2e.paced import Paced
from tests.e2e.support import Client, assert_serves, audit_mark, audit_rows, connect, made, recorded, rest, unique
from tests.support import eventually

pytestmark = pytest.mark.once

OLD = "2025-03-26"
SIX = {"expression": "6 * 7"}


@pytest.fixture(scope="module")
def server(shared_product):
    with Paced() as it:
        it.slug = unique("paced")
        settings = {"slug": it.slug, "transport": "http", "url": it.url, "review": "accept"}
        made(rest(shared_product, "POST", "servers/", settings))
        eventually(lambda: "work" in connect(shared_product, "modern", f"/mcp/{it.slug}").names(), within=25)
        yield it


def initialized(product, path: str = "/mcp", revision: str = OLD, key: str = "", capabilities: dict | None = None) -> Client:
    client = Client(product, "legacy", path, key)
    params = {"protocolVersion": revision, "capabilities": capabilities or {}, "clientInfo": {"name": "batch", "version": "1"}}
    answer = client.send(client.message("initialize", params), {"MCP-Protocol-Version": None})
    client.session = answer.headers["mcp-session-id"]
    return client


@pytest.fixture
def client(shared_product):
    return initialized(shared_product)


def send(client: Client, batch, version: str | None = OLD, **headers):
    return client.send(batch, {"MCP-Protocol-Version": version, **headers})


def request(id, method: str = "ping", **params) -> dict:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def calculation(id, expression: str = "6 * 7") -> dict:
    return request(id, "tools/call", name="system__calculate", arguments={"expression": expression})


def by_id(answers: list) -> dict:
    assert isinstance(answers, list), answers
    found = {json.dumps(answer["id"]): answer for answer in answers}
    assert len(found) == len(answers), answers
    return found


@pytest.mark.parametrize("how", ["session", "session without header", "header alone", "nothing, which means 2025-03-26"])
def test_requests_notifications_and_responses_together(shared_product, client, how):
    who = client if "session" in how else Client(shared_product, "legacy")
    version = None if "without" in how or "nothing" in how else OLD
    batch = [
        calculation(1),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        request("1", "tools/list"),
        {"jsonrpc": "2.0", "id": "sy-unknown", "result": {}},
        request(-5),
        request(2, "no/such"),
    ]
    answer = send(who, batch, version)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    answers = by_id(json.loads(answer.body))
    assert set(answers) == {"1", '"1"', "-5", "2"}
    assert "42" in answers["1"]["result"]["content"][0]["text"]
    assert answers['"1"']["result"]["tools"]
    assert answers["-5"]["result"] == {}
    assert (answers["2"]["error"]["code"], answers["2"]["error"]["data"]["type"].rsplit("/", 1)[1]) == (
        -32601,
        "method-not-found",
    )


def test_one_request_is_answered_in_an_array_too(client):
    assert json.loads(send(client, [request(3)]).body) == [{"jsonrpc": "2.0", "id": 3, "result": {}}]


@pytest.mark.parametrize(
    "batch",
    [
        [{"jsonrpc": "2.0", "method": "notifications/initialized"}],
        [{"jsonrpc": "2.0", "id": "sy-0", "result": {}}, {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "no"}}],
        [
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
            {"jsonrpc": "2.0", "method": "x"},
        ],
    ],
)
def test_without_requests_there_is_nothing_to_answer(client, batch):
    answer = send(client, batch)
    assert (answer.status, answer.body) == (202, b"")


@pytest.mark.parametrize("revision", ["2025-06-18", "2025-11-25"])
def test_in_every_other_revision_a_batch_is_refused(shared_product, revision):
    client = initialized(shared_product, revision=revision)
    for who, version in ((client, revision), (client, None), (client, OLD), (Client(shared_product, "legacy"), revision)):
        answer = send(who, [request(1)], version)
        assert (answer.status, answer.type, answer.json["id"]) == (400, "invalid-request", None)
        assert "atch" in answer.error["message"]
    modern = Client(shared_product, "modern")
    assert (modern.send([request(1)]).status, modern.send([request(1)]).type) == (400, "invalid-request")


def test_versions_and_sessions_that_are_none(shared_product, client):
    assert send(client, [request(1)], "2024-11-05").type == "unsupported-protocol-version"
    client.session = client.session[:-4] + "AAAA"
    assert (send(client, [request(1)]).status, send(client, [request(1)]).type) == (404, "session-gone")


def test_an_empty_batch_and_too_long_a_one_are_refused_as_a_whole(client):
    for batch in ([], [request(number) for number in range(101)], [1] * 500_000):
        answer = send(client, batch)
        assert (answer.status, answer.type, answer.json["id"]) == (400, "invalid-request", None)
    assert len(json.loads(send(client, [request(number) for number in range(100)]).body)) == 100


def test_what_is_no_message_is_answered_each_and_keeps_no_other_from_its_answer(client):
    batch = [1, "x", None, [], [request(9)], {}, {"jsonrpc": "2.0"}, {"jsonrpc": "1.0", "id": 5, "method": "ping"},
             {"jsonrpc": "2.0", "id": {}, "method": "ping"}, {"jsonrpc": "2.0", "id": 6, "method": 7},
             {"jsonrpc": "2.0", "id": 7, "method": "ping", "params": []}, request(8)]  # fmt: skip
    answers = json.loads(send(client, batch).body)
    assert len(answers) == len(batch)
    assert [one["id"] for one in answers].count(None) == 8
    codes = {one["id"]: one["error"]["code"] for one in answers if one["id"] in (5, 6, 7)}
    assert codes == {5: -32600, 6: -32600, 7: -32602}
    assert all(one["error"]["code"] == -32600 for one in answers if one["id"] is None)
    assert [one["result"] for one in answers if one["id"] == 8] == [{}]


def test_initialize_is_no_part_of_a_batch(client, shared_product):
    params = {"protocolVersion": OLD, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    answer = send(client, [request(1, "initialize", **params), request(2)])
    answers = by_id(json.loads(answer.body))
    assert answers["1"]["error"]["code"] == -32600
    assert answers["2"]["result"] == {}
    assert "mcp-session-id" not in answer.headers


def test_what_belongs_to_another_era_is_no_part_of_a_batch(client):
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    answers = by_id(json.loads(send(client, [request(1, "server/discover", _meta=meta), request(2)]).body))
    assert answers["1"]["error"]["code"] == -32600
    assert answers["2"]["result"] == {}


def test_an_id_twice_runs_neither(client, shared_product):
    since = audit_mark(shared_product)
    answers = json.loads(send(client, [calculation(1, "1 + 1"), calculation(1, "2 + 2"), calculation("1", "3 + 3")]).body)
    assert sorted(("error" in one, json.dumps(one["id"])) for one in answers) == [(False, '"1"'), (True, "1"), (True, "1")]
    recorded(shared_product, "event_type = 'call.outcome'", since=since)
    assert len(audit_rows(shared_product, "event_type = 'call.intent' OR event_type = 'call.outcome'", since=since)) == 2


def test_each_call_is_judged_and_recorded_by_itself(shared_product, server):
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("some")}))
    made(rest(shared_product, "POST", "grants/", {"kind": "server", "api_key": key["id"], "server": "system"}))
    client = initialized(shared_product, key=key["key"])
    eventually(lambda: "system__calculate" in client.names(), within=5)
    since = audit_mark(shared_product)
    denied = request(3, "tools/call", name=f"{server.slug}__work", arguments={"mark": "never"})
    wrong = request(4, "tools/call", name="system__calculate", arguments={"expression": 7})
    answers = by_id(json.loads(send(client, [calculation(1), calculation(2, "2 + 2"), denied, wrong]).body))
    assert "42" in answers["1"]["result"]["content"][0]["text"]
    assert answers["3"]["error"]["data"]["type"].endswith("/permission-denied")
    assert answers["4"]["error"]["data"]["type"].endswith("/arguments-invalid")
    rows = audit_rows(shared_product, "actor_id = ? AND event_type LIKE 'call.%'", key["id"], since=since)
    assert sorted(row["event_type"] for row in rows).count("call.refused") == 2
    assert len({row["call_id"] for row in rows}) == 4
    assert not server.calls(mark="never")


def stream_of(client: Client, batch: list) -> EventStream:
    headers = {**client.headers(), "MCP-Protocol-Version": OLD}
    return EventStream(client.product, "POST", client.path, headers, batch)


def work(id, mark: str) -> dict:
    return request(id, "tools/call", name="work", arguments={"mark": mark})


def test_answers_come_on_a_stream_as_they_are_ready_where_something_is_said_before(shared_product, server):
    client = initialized(shared_product, f"/mcp/{server.slug}", capabilities={"elicitation": {}})
    slow, fast = unique("slow"), unique("fast")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        opening = pool.submit(stream_of, client, [work(1, slow), work(2, fast), request(3)])
        server.begun(slow)
        server.log(slow, "wait")
        stream = opening.result(20)
    with stream:
        event = stream.event()
        assert event.message["params"]["data"] == "wait"
        name = event.id.rpartition(".")[0]
        assert name
        server.finish(fast)
        two = [stream.message() for _ in range(2)]
        assert {one["id"] for one in two} == {2, 3}
        server.say(slow, {"id": 5, "method": "elicitation/create", "params": {"message": "Name?", "requestedSchema": {}}})
        asked = stream.message()
        reply = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}}
        assert send(client, [reply]).status == 202
        eventually(lambda: server.answers(5), within=10)
        stream.cut()
    server.finish(slow, "in the end")
    headers = {**client.headers(), "Accept": "text/event-stream", "Last-Event-ID": event.id, "MCP-Protocol-Version": OLD}
    del headers["Content-Type"]
    with EventStream(shared_product, "GET", client.path, headers) as again:
        said = again.rest()
    assert {one["id"] for one in said if "result" in one} == {1, 2, 3}, "the batch's stream is taken up like every other"


def test_a_cancellation_in_the_batch_and_beside_it(shared_product, server):
    client = initialized(shared_product, f"/mcp/{server.slug}")
    first, second = unique("first"), unique("second")
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answering = pool.submit(send, client, [work(1, first), cancel, work(2, second)])
        server.begun(second)
        assert send(client, [{**cancel, "params": {"requestId": 2}}]).status == 202
        answers = by_id(json.loads(answering.result(20).body))
    assert {one["error"]["code"] for one in answers.values()} == {-32800}


def test_a_client_that_takes_no_stream_gets_all_in_one_array(shared_product, server):
    client = initialized(shared_product, f"/mcp/{server.slug}")
    mark = unique("plain")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answering = pool.submit(send, client, [work(1, mark), request(2)], Accept="application/json")
        server.begun(mark)
        server.log(mark, "for nobody")
        server.finish(mark)
        assert set(by_id(json.loads(answering.result(20).body))) == {"1", "2"}


def test_few_requests_of_a_batch_run_at_once_and_all_in_the_end(shared_product, server):
    client = initialized(shared_product, f"/mcp/{server.slug}")
    marks = [unique("many") for _ in range(20)]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answering = pool.submit(send, client, [work(number, mark) for number, mark in enumerate(marks)])
        for number, mark in enumerate(marks):
            server.begun(mark)
            assert sum(mark in server.calls_open for mark in marks) <= number + 8
            server.finish(mark)
        assert len(by_id(json.loads(answering.result(30).body))) == 20


def test_what_is_taken_away_while_a_batch_runs_is_gone_for_the_rest_of_it(shared_product, server):
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("brief"), "inherits_owner": True}))
    client = initialized(shared_product, f"/mcp/{server.slug}", key=key["key"])
    marks = [unique("taken") for _ in range(9)]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answering = pool.submit(send, client, [work(number, mark) for number, mark in enumerate(marks)])
        for mark in marks[:8]:
            server.begun(mark)
        made(rest(shared_product, "POST", f"api-keys/{key['id']}/revoke/", {}))
        eventually(lambda: Client(shared_product, "legacy", "/mcp", key["key"]).ask("ping").status == 401, within=5)
        for mark in marks[:8]:
            server.finish(mark)
        answers = by_id(json.loads(answering.result(20).body))
    assert answers["8"]["error"]["data"]["type"].endswith("/authentication-required")
    assert not server.calls(mark=marks[8])


@pytest.mark.usefixtures("memory")
def test_hostile_batches(client, shared_product):
    deep = b"[" * 400_000 + b"]" * 400_000
    for body in (b"[" * 2_000_000, deep, b"[" + b"{}," * 1_300_000 + b"{}]", b'[{"a":1,"a":2}]', b"[NaN]", b"[1,]"):
        answer = client.send(body, {"MCP-Protocol-Version": OLD})
        assert answer.status == 400, body[:20]
        assert answer.error["code"] in (-32700, -32600)
    wide = [{**request(number), "params": {"x": "y" * 38_000}} for number in range(100)]
    assert len(json.loads(send(client, wide).body)) == 100
    assert_serves(shared_product, "legacy")
