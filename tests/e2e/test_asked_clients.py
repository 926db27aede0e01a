"""Servers that ask in the middle of a call, across the eras: modern clients before a legacy server (the call is parked), legacy clients
before a modern one (the call is made in rounds). Who may take up whose call, and what becomes of one that nobody takes up.
"""

import concurrent.futures
import contextlib
import json
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.raw import Wire
from tests.e2e.support import LEGACY, META, Client, audit_mark, audit_rows, connect, made, program, recorded, rest, unique
from tests.support import eventually

CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
ASKED = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
NAME = {"action": "accept", "content": {"response": "Ada"}}


def fixture(era: str) -> contextlib.AbstractContextManager[str]:
    return program("tests.conformance.fixture", "--era", era)


@pytest.fixture(scope="module")
def servers(shared_product) -> Iterator[dict[str, str]]:
    """Era → slug of a server that speaks it alone."""
    slugs = {era: unique(f"asks-{era}") for era in ("legacy", "modern")}
    with fixture("legacy") as legacy, fixture("modern") as modern:
        for era, url in (("legacy", legacy), ("modern", modern)):
            made(rest(shared_product, "POST", "servers/", {"slug": slugs[era], "transport": "http", "url": url}))
        for era, slug in slugs.items():
            client = connect(shared_product, "modern", f"/mcp/{slug}")
            eventually(lambda client=client: "x_elicit_twice" in client.names(), within=25)
            assert era
        yield slugs


@pytest.fixture(scope="module")
def other_key(shared_product, servers) -> str:
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("other"), "inherits_owner": True}))
    return key["key"]


class Asked(Client):
    """A modern client that declares all it can be asked for."""

    def again(self, name: str, arguments: dict, state: str, answers: dict, **meta):
        params = {"name": name, "arguments": arguments, "requestState": state, "inputResponses": answers}
        return self.ask("tools/call", {**params, "_meta": {CAPABILITIES: ASKED, **meta}})

    def first(self, name: str, arguments: dict, capabilities: dict | None = None):
        declared = ASKED if capabilities is None else capabilities
        return self.ask("tools/call", {"name": name, "arguments": arguments, "_meta": {CAPABILITIES: declared}})


def parked(client: Asked, name: str = "test_elicitation", arguments: dict | None = None) -> tuple[str, dict]:
    """Begin a call that is parked; return its state and what was asked."""
    result = client.first(name, {"message": "Name?"} if arguments is None else arguments).result
    assert result["resultType"] == "input_required", result
    return result["requestState"], result["inputRequests"]


@pytest.fixture
def asked(shared_product, servers) -> Asked:
    return Asked(shared_product, "modern", f"/mcp/{servers['legacy']}")


def test_a_parked_call_ends_with_the_client_s_answer_and_is_one_call_in_the_log(asked, shared_product):
    mark = audit_mark(shared_product)
    state, requests = parked(asked)
    (key, request), *none = requests.items()
    assert not none
    assert request["method"] == "elicitation/create"
    assert request["params"]["message"] == "Name?"
    answer = asked.again("test_elicitation", {"message": "Name?"}, state, {key: NAME}).result
    assert answer["resultType"] == "complete"
    assert "action=accept" in answer["content"][0]["text"]
    assert "Ada" in answer["content"][0]["text"]
    slug = asked.path.rsplit("/", 1)[1]
    row = recorded(shared_product, "event_type = 'call.asked' AND server = ?", slug, since=mark)
    assert row["action"] == "elicitation/create"
    assert row["details"]["answered"] == "result"
    kinds = [one["event_type"] for one in audit_rows(shared_product, "call_id = ?", row["details"]["call_id"])]
    assert kinds == ["call.intent", "call.outcome"]


def test_several_questions_in_a_row_and_answers_that_do_not_fit(asked):
    state, requests = parked(asked, "x_elicit_twice", {})
    assert [one["params"]["message"] for one in requests.values()] == ["first?"]
    same = asked.again("x_elicit_twice", {}, state, {"nonsense": NAME}).result
    assert same["resultType"] == "input_required", "what was not answered is asked again"
    assert same["inputRequests"] == requests
    (key,) = requests
    second = asked.again("x_elicit_twice", {}, same["requestState"], {key: NAME}).result
    assert [one["params"]["message"] for one in second["inputRequests"].values()] == ["second?"]
    (key,) = second["inputRequests"]
    last = asked.again("x_elicit_twice", {}, second["requestState"], {key: {"action": "decline"}}).result
    assert last["content"][0]["text"] == "accept/decline"


def test_a_state_is_good_for_its_caller_and_its_request_alone(asked, other_key, shared_product):
    state, requests = parked(asked)
    (key,) = requests
    answers = {key: NAME}
    stranger = Asked(shared_product, "modern", asked.path, other_key)
    tries = {
        "another key": stranger.again("test_elicitation", {"message": "Name?"}, state, answers),
        "other arguments": asked.again("test_elicitation", {"message": "Other?"}, state, answers),
        "another tool": asked.again("test_sampling", {"prompt": "x"}, state, answers),
        "another place": Asked(shared_product, "modern", "/mcp").again(
            "test_elicitation", {"message": "Name?"}, state, answers
        ),
        "a changed state": asked.again("test_elicitation", {"message": "Name?"}, state[:-2] + "AA", answers),
        "rubbish": asked.again("test_elicitation", {"message": "Name?"}, "p.***", answers),
        "nothing": asked.again("test_elicitation", {"message": "Name?"}, "p.", answers),
    }
    assert {name: answer.error["code"] for name, answer in tries.items()} == dict.fromkeys(tries, -32602)
    for wrong in ([], "x", {key: "Ada"}, {key: None}):
        assert asked.again("test_elicitation", {"message": "Name?"}, state, wrong).error["code"] == -32602
    assert "Ada" in asked.again("test_elicitation", {"message": "Name?"}, state, answers).result["content"][0]["text"]
    gone = asked.again("test_elicitation", {"message": "Name?"}, state, answers)
    assert gone.error["code"] == -32602
    assert "has ended" in gone.error["message"]


def test_of_several_that_take_up_a_call_at_once_one_gets_its_answer(asked):
    state, requests = parked(asked)
    (key,) = requests
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        tries = [pool.submit(asked.again, "test_elicitation", {"message": "Name?"}, state, {key: NAME}) for _ in range(8)]
    answers = [one.result().json for one in tries]
    assert sum("result" in answer for answer in answers) == 1
    assert all(answer["error"]["code"] in (-32602, -32000, -32600) for answer in answers if "error" in answer), answers


def test_a_client_that_leaves_when_it_has_taken_a_call_up_ends_it(asked, shared_product):
    state, requests = parked(asked, "x_elicit_twice", {})
    (key,) = requests
    second = asked.again("x_elicit_twice", {}, state, {key: NAME}).result
    state = second["requestState"]
    # it is taken up and left at once: either the question came first, or the call has ended with its client
    body = asked.message("tools/call", {"name": "x_elicit_twice", "arguments": {}, "requestState": state, "inputResponses": {}})
    body["params"]["_meta"] = {**META, CAPABILITIES: ASKED}
    raw = json.dumps(body).encode()
    with Wire(shared_product) as wire:
        wire.send(wire.head("POST", asked.path, {**asked.headers(body), "Content-Length": str(len(raw))}) + raw)

    def settled() -> bool:
        answer = asked.again("x_elicit_twice", {}, state, {}).json
        return answer.get("result", {}).get("resultType") == "input_required" or answer["error"]["code"] == -32602

    eventually(settled, within=3)


def test_a_withdrawn_grant_ends_a_parked_call(shared_product, servers):
    slug = servers["legacy"]
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("brief")}))
    made(rest(shared_product, "POST", "grants/", {"kind": "server", "api_key": key["id"], "server": slug}))
    client = Asked(shared_product, "modern", f"/mcp/{slug}", key["key"])
    eventually(lambda: "test_elicitation" in client.names(), within=2)
    state, requests = parked(client)
    (asked_for,) = requests
    made(rest(shared_product, "POST", "grants/", {"kind": "server", "effect": "deny", "api_key": key["id"], "server": slug}))
    eventually(lambda: "test_elicitation" not in client.names(), within=2)
    answer = client.again("test_elicitation", {"message": "Name?"}, state, {asked_for: NAME})
    assert answer.type == "permission-denied"


def test_what_a_client_has_not_declared_is_not_asked_of_it(asked):
    for declared in ({}, {"roots": {}}):
        result = asked.first("test_elicitation", {"message": "Name?"}, declared).result
        assert result["resultType"] == "complete"
        assert result["isError"]


@pytest.mark.parametrize(
    ("tool", "asked_for", "given", "said"),
    [
        ("test_input_required_result_elicitation", "elicitation/create", {"action": "accept", "content": {"name": "Ada"}}, "Hello, Ada!"),
        ("test_input_required_result_list_roots", "roots/list", {"roots": [{"uri": "file:///a"}]}, "Client exposed 1 root(s)."),
        ("test_input_required_result_multi_round", "elicitation/create", {"action": "accept", "content": {"name": "Ada", "color": "red"}}, "Ada likes red."),
    ],
)  # fmt: skip
def test_a_legacy_client_is_asked_on_its_call_s_stream(shared_product, servers, tool, asked_for, given, said):
    client = asking_session(shared_product, servers["modern"])
    answered: set[str] = set()

    def answer(message: dict) -> None:
        assert message["method"] == asked_for
        if message["id"] not in answered:
            answered.add(message["id"])
            assert client.send({"jsonrpc": "2.0", "id": message["id"], "result": given}).status == 202

    assert said in json.dumps(carried(client, tool, {}, answer))
    assert answered


def asking_session(product, slug: str, key: str = "") -> Client:
    """A session of the initialize era that takes all requests."""
    client = Client(product, "legacy", f"/mcp/{slug}", key)
    params = {"protocolVersion": LEGACY, "capabilities": ASKED, "clientInfo": {"name": "asked", "version": "1"}}
    client.session = client.send(client.message("initialize", params), {"MCP-Protocol-Version": None}).headers["mcp-session-id"]
    return client


def carried(client: Client, tool: str, arguments: dict, answer: Callable[[dict], None]) -> dict:
    """Call a tool, have each request that comes on the call's stream answered, and return the call's own answer."""
    body = client.message("tools/call", {"name": tool, "arguments": arguments})
    raw = json.dumps(body).encode()
    text, seen = b"", 0
    with Wire(client.product) as wire:
        wire.send(wire.head("POST", client.path, {**client.headers(body), "Content-Length": str(len(raw))}) + raw)
        wire.socket.settimeout(15)
        while True:
            text += wire.socket.recv(65536)
            events = [line[6:] for line in text.splitlines() if line.startswith(b"data: {") and line.endswith(b"}")]
            for event in events[seen:]:
                seen += 1
                message = json.loads(event)
                if "method" not in message:
                    return message
                if "id" in message:
                    answer(message)


@pytest.mark.parametrize(
    ("era", "tool"), [("modern", "test_input_required_result_elicitation"), ("legacy", "test_elicitation")]
)
def test_what_is_taken_away_while_a_client_is_asked_is_not_gone_on_with(shared_product, servers, era, tool):
    slug = servers[era]
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("brief")}))
    given = made(rest(shared_product, "POST", "grants/", {"kind": "server", "api_key": key["id"], "server": slug}))
    client = asking_session(shared_product, slug, key["key"])
    eventually(lambda: tool in client.names(), within=2)
    mark = audit_mark(shared_product)

    def answer(message: dict) -> None:
        assert rest(shared_product, "DELETE", f"grants/{given['id']}/").status == 204
        eventually(lambda: tool not in client.names(), within=2)
        reply = {"action": "accept", "content": {"name": "Ada", "response": "Ada"}}
        assert client.send({"jsonrpc": "2.0", "id": message["id"], "result": reply}).status == 202

    ended = carried(client, tool, {"message": "Name?"} if era == "legacy" else {}, answer)
    assert ended["error"]["data"]["type"].endswith("/permission-denied")
    row = recorded(shared_product, "event_type = 'call.outcome' AND server = ?", slug, since=mark)
    assert row["outcome"] == "cancelled"


def test_a_legacy_client_that_takes_no_requests_is_told_so(shared_product, servers):
    client = connect(shared_product, "legacy", f"/mcp/{servers['modern']}")
    answer = client.call("test_input_required_result_elicitation")
    assert answer.type in ("not-expressible", "upstream-protocol-error") or answer.error["code"] == -32021


# Several processes


@pytest.fixture(scope="module")
def pair(start_for_module) -> Iterator[tuple]:
    """Two gateways of one installation, with both fixtures registered; era → slug."""
    first = start_for_module("postgres")
    second = start_for_module("postgres", first=first, role="gateway")
    slugs = {era: unique(f"asks-{era}") for era in ("legacy", "modern")}
    with fixture("legacy") as legacy, fixture("modern") as modern:
        for era, url in (("legacy", legacy), ("modern", modern)):
            made(rest(first, "POST", "servers/", {"slug": slugs[era], "transport": "http", "url": url}))
        for product in (first, second):
            for slug in slugs.values():
                client = connect(product, "modern", f"/mcp/{slug}", first.key)
                eventually(lambda client=client: "x_elicit_twice" in client.names(), within=25)
        yield first, second, slugs


def test_a_call_parked_in_one_process_is_taken_up_from_another(pair):
    first, second, slugs = pair
    here, there = (Asked(product, "modern", f"/mcp/{slugs['legacy']}", first.key) for product in (first, second))
    state, requests = parked(here, "x_elicit_twice", {})
    (key,) = requests
    again = there.again("x_elicit_twice", {}, state, {key: NAME}).result
    assert [one["params"]["message"] for one in again["inputRequests"].values()] == ["second?"]
    (key,) = again["inputRequests"]
    assert here.again("x_elicit_twice", {}, again["requestState"], {key: NAME}).result["content"][0]["text"] == "accept/accept"
    assert "has ended" in there.again("x_elicit_twice", {}, state, {}).error["message"]


def test_a_session_is_one_session_in_every_process(pair):
    first, second, slugs = pair
    path = f"/mcp/{slugs['legacy']}"
    here = connect(first, "legacy", path, first.key)
    there = Client(second, "legacy", path, first.key, session=here.session)
    assert there.ask("logging/setLevel", {"level": "error"}).result == {}
    assert there.ask("resources/subscribe", {"uri": "test://watched-resource"}).result == {}
    with Wire(first) as stream:
        headers = {name: value for name, value in here.headers().items() if name != "Content-Type"}
        stream.send(stream.head("GET", path, {**headers, "Accept": "text/event-stream"}))
        stream.socket.settimeout(10)
        said = b""

        def told() -> bool:
            nonlocal said
            there.call("x_touch_resource")
            with contextlib.suppress(TimeoutError):
                stream.socket.settimeout(0.3)
                said += stream.socket.recv(65536)
            return b"notifications/resources/updated" in said

        eventually(told, within=10)
        assert there.send(None, {"Content-Type": None}, method="DELETE").status == 204
        stream.socket.settimeout(5)
        while not said.endswith(b"0\r\n\r\n"):  # the stream ends with its session, in the other process too
            said += stream.socket.recv(65536)
    eventually(lambda: here.ask("tools/list").status == 404, within=2)


def test_the_answer_to_a_server_s_question_may_come_to_any_process(pair):
    first, second, slugs = pair
    path = f"/mcp/{slugs['modern']}"
    here = Client(first, "legacy", path, first.key)
    params = {"protocolVersion": LEGACY, "capabilities": ASKED, "clientInfo": {"name": "asked", "version": "1"}}
    here.session = here.send(here.message("initialize", params), {"MCP-Protocol-Version": None}).headers["mcp-session-id"]
    there = Client(second, "legacy", path, first.key, session=here.session)
    body = here.message("tools/call", {"name": "test_input_required_result_elicitation", "arguments": {}})
    raw = json.dumps(body).encode()
    with Wire(first) as wire:
        wire.send(wire.head("POST", path, {**here.headers(body), "Content-Length": str(len(raw))}) + raw)
        wire.socket.settimeout(10)
        text = b""
        while b"elicitation/create" not in text:
            text += wire.socket.recv(65536)
        message = next(json.loads(line[6:]) for line in text.splitlines() if b"elicitation/create" in line)
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": {"action": "accept", "content": {"name": "Ada"}}}
        assert there.send(answer).status == 202
        while b"Hello, Ada!" not in text:
            text += wire.socket.recv(65536)


def test_a_killed_process_leaves_no_client_of_its_parked_calls_without_an_answer(pair, start_for_module):
    first, _, slugs = pair
    third = start_for_module("postgres", first=first, role="gateway")
    here, there = (Asked(product, "modern", f"/mcp/{slugs['legacy']}", first.key) for product in (first, third))
    eventually(lambda: "x_elicit_twice" in there.names(), within=10)
    state, _ = parked(there, "x_elicit_twice", {})
    for process in third.processes():
        with contextlib.suppress(Exception):
            process.kill()
    answer = here.again("x_elicit_twice", {}, state, {})
    assert answer.error["code"] in (-32602, -32603)
    assert "process" in answer.error["message"], "typed, and soon: the other process is gone"
    assert answer.seconds < 5
