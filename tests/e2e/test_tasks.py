"""The tasks extension through the product: who may ask about a task, what comes through, what is recorded."""

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import httpx2
import mcp
import mcp_types
import pytest
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.streamable_http import streamable_http_client

from tests.e2e.raw import Wire
from tests.e2e.support import META, Answer, Client, audit_mark, audit_rows, made, program, recorded, rest, unique
from tests.e2e.tasks_server import CAPABILITIES, EXTENSION, LONG, NAME, SUBSCRIPTION
from tests.product import ROOT
from tests.support import eventually, eventually_async

pytestmark = pytest.mark.once  # what it is about does not know the database

DECLARED = {"elicitation": {"form": {}}, "extensions": {EXTENSION: {}, "com.example/other": {"x": 1}}}
METHODS = ("tasks/get", "tasks/update", "tasks/cancel")


def served() -> contextlib.AbstractContextManager[str]:
    return program("tests.e2e.tasks_server")


@pytest.fixture(scope="module", params=["http", "stdio"])
def slug(request, shared_product) -> Iterator[str]:
    """A server with tasks, reached over each transport that has them."""
    slug = unique("tasks")
    with contextlib.ExitStack() as stack:
        if request.param == "http":
            settings: dict[str, Any] = {"transport": "http", "url": stack.enter_context(served())}
        else:
            arguments = ["-m", "tests.e2e.tasks_server", "--stdio"]
            settings = {"transport": "stdio", "command": sys.executable, "args": arguments, "cwd": str(ROOT)}
        made(rest(shared_product, "POST", "servers/", {"slug": slug, **settings}))
        eventually(lambda: "begin" in Client(shared_product, "modern", f"/mcp/{slug}").names(), within=25)
        yield slug


class Begins(Client):
    """A modern client that says with each request what it can."""

    capabilities: dict = DECLARED

    def params(self, **members: Any) -> dict:
        return {**members, "_meta": {CAPABILITIES: self.capabilities}}

    def tool(self, name: str, **arguments: Any) -> Answer:
        return self.ask("tools/call", self.params(name=name, arguments=arguments))

    def begin(self, label: str, prefix: str = "") -> dict:
        return self.tool(f"{prefix}begin", label=label).result

    def about(self, method: str, handle: Any, **members: Any) -> Answer:
        if method == "tasks/update":
            members.setdefault("inputResponses", {})
        message = self.message(method, self.params(taskId=handle, **members))
        return self.send(message, {"Mcp-Name": handle if isinstance(handle, str) else None})

    def seen(self, method: str) -> list[dict]:
        return [one for one in json.loads(self.tool("seen").result["content"][0]["text"]) if one["method"] == method]


@pytest.fixture
def client(shared_product, slug) -> Begins:
    return Begins(shared_product, "modern", f"/mcp/{slug}")


@pytest.fixture
def label() -> str:
    return unique("label")


def no_task(answer: Answer) -> None:
    assert (answer.status, answer.error["code"], answer.type) == (400, -32602, "not-found"), answer.body


def test_a_task_begins_and_ends_and_everything_it_says_comes_through(client, label):
    begun = client.begin(label)
    assert begun["resultType"] == "task"
    assert {"status", "createdAt", "lastUpdatedAt", "ttlMs", "pollIntervalMs"} <= begun.keys()
    assert begun["x-new"] == {"long": LONG}
    handle = begun["taskId"]
    assert "theirs" not in handle
    assert len(handle) < 200
    assert handle.isascii()
    assert not set(handle) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    working = client.about("tasks/get", handle).result
    assert (working["status"], working["taskId"], working["resultType"]) == ("working", handle, "complete")
    client.tool("settle", label=label)
    done = client.about("tasks/get", handle)
    assert done.result["result"]["content"][0]["text"] == f"settled {label}"
    assert str(LONG).encode() in done.body, "numbers come through digit by digit"


def test_the_server_gets_its_own_id_and_the_clients_word(client, slug, label):
    handle = client.begin(label)["taskId"]
    client.about("tasks/get", handle)
    got = client.seen("tasks/get")[-1]
    assert got["params"]["taskId"].startswith("theirs/")
    assert got["params"]["_meta"][CAPABILITIES] == DECLARED
    if got["mcp-name"] is not None:
        encoded = got["mcp-name"].removeprefix("=?base64?").removesuffix("?=")
        assert base64.b64decode(encoded).decode() == got["params"]["taskId"]


def test_a_task_asks_and_is_answered(client, label):
    handle = client.begin(label)["taskId"]
    client.tool("need", label=label)
    asking = client.about("tasks/get", handle).result
    assert (asking["status"], asking["inputRequests"]) == ("input_required", {"who": NAME})
    answers = {"who": {"action": "accept", "content": {"name": "Ada"}, "x-new": LONG}}
    told = client.about("tasks/update", handle, inputResponses=answers)
    assert told.result["resultType"] == "complete"
    assert "taskId" not in told.result
    after = client.about("tasks/get", handle).result
    assert (after["status"], after["x-answers"]) == ("working", answers)


def test_a_task_is_cancelled(client, label):
    handle = client.begin(label)["taskId"]
    assert client.about("tasks/cancel", handle).result["resultType"] == "complete"
    assert client.about("tasks/get", handle).result["status"] == "cancelled"


def test_without_the_capability_there_are_no_tasks(client, label):
    handle = client.begin(label)["taskId"]
    client.capabilities = {"extensions": {"com.example/other": {}}}
    needed = {"extensions": {EXTENSION: {}}}
    for method in METHODS:
        for asked in (handle, "nonsense"):
            refused = client.about(method, asked)
            assert (refused.status, refused.error["code"], refused.type) == (400, -32021, "missing-capability")
            assert refused.error["data"]["requiredCapabilities"] == needed
    own = client.tool("begin", label=label)
    assert (own.status, own.error["code"]) == (400, -32021)
    assert own.error["data"]["requiredCapabilities"] == needed
    rogue = client.tool("rogue", label=label)
    assert rogue.type == "upstream-protocol-error"


def test_legacy_clients_never_get_a_task(shared_product, slug, label):
    client = Client(shared_product, "legacy", f"/mcp/{slug}")
    params = {"protocolVersion": "2025-11-25", "capabilities": DECLARED, "clientInfo": {"name": "old", "version": "1"}}
    first = client.send(client.message("initialize", params), {"MCP-Protocol-Version": None})
    client.session = first.headers["mcp-session-id"]
    assert EXTENSION not in first.result["capabilities"].get("extensions", {})
    assert client.call("begin", {"label": label}).error["code"] == -32021
    assert "error" in client.call("rogue", {"label": label}).json
    seen = json.loads(client.call("seen").result["content"][0]["text"])
    last = [one for one in seen if one["method"] == "tools/call"][-1]
    assert EXTENSION not in last["params"]["_meta"][CAPABILITIES].get("extensions", {})
    for method in METHODS:
        assert client.ask(method, {"taskId": "x"}).error["code"] == -32601


@pytest.mark.parametrize("method", ["tasks/list", "tasks/result", "tasks/listen"])
def test_removed_methods_are_unknown(client, method):
    refused = client.ask(method, client.params(taskId="x"))
    assert (refused.status, refused.error["code"]) == (404, -32601)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("handle", ["theirs/1 ü", "", 7, None, "A" * 300, "x" * 5000, "AAAA=", "ümlaut"])
def test_what_is_no_handle_is_no_task(client, method, handle):
    message = client.message(method, client.params(taskId=handle, inputResponses={}))
    header = f"=?base64?{base64.b64encode(handle.encode()).decode()}?=" if isinstance(handle, str) else None
    refused = client.send(message, {"Mcp-Name": header})
    assert (refused.status, refused.error["code"]) == ((400, -32020) if handle == 7 else (400, -32602))


def test_a_changed_handle_is_no_task(client, label):
    handle = client.begin(label)["taskId"]
    for place in (0, len(handle) // 2, len(handle) - 2):
        mark = "A" if handle[place] != "A" else "B"
        no_task(client.about("tasks/get", handle[:place] + mark + handle[place + 1 :]))


def test_the_header_must_name_the_task(client, label):
    handle = client.begin(label)["taskId"]
    for header in (None, "other"):
        message = client.message("tasks/get", client.params(taskId=handle))
        refused = client.send(message, {"Mcp-Name": header})
        assert (refused.status, refused.error["code"]) == (400, -32020)


def test_a_task_is_its_callers_own_and_of_its_place(shared_product, client, slug, label):
    handle = client.begin(label)["taskId"]
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("other"), "inherits_owner": True}))["key"]
    for method in METHODS:
        no_task(Begins(shared_product, "modern", client.path, key).about(method, handle))
        no_task(Begins(shared_product, "modern", "/mcp").about(method, handle))
    assert client.about("tasks/get", handle).result["status"] == "working"


def test_tasks_of_several_servers_find_their_way(shared_product, slug, label):
    client = Begins(shared_product, "modern", "/mcp")
    handle = client.begin(label, prefix=f"{slug}__")["taskId"]
    assert client.about("tasks/get", handle).result["x-label"] == label
    extensions = client.ask("server/discover", client.params()).result["capabilities"]["extensions"]
    assert extensions == {EXTENSION: {}}


def test_discovery_announces_what_the_server_announces(client):
    found = client.ask("server/discover", client.params()).result["capabilities"]
    assert found["extensions"] == {EXTENSION: {"x-setting": 1}}
    assert "tasks" not in found


def test_a_right_that_is_withdrawn_ends_the_way_to_the_task(shared_product, slug, label):
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("granted")}))
    grant = made(rest(shared_product, "POST", "grants/", {"kind": "server", "server": slug, "api_key": key["id"]}))
    client = Begins(shared_product, "modern", f"/mcp/{slug}", key["key"])
    handle = eventually(lambda: client.tool("begin", label=label).json.get("result"), within=5)["taskId"]
    assert client.about("tasks/get", handle).result["status"] == "working"
    assert rest(shared_product, "DELETE", f"grants/{grant['id']}/").status < 300
    since = audit_mark(shared_product)
    for method in METHODS:
        eventually(
            lambda method=method: client.about(method, handle).json.get("error", {}).get("data", {}).get("type", "").endswith(
                "permission-denied"
            ),
            within=2,
        )  # fmt: skip
    refused = recorded(shared_product, "event_type = 'call.refused' AND action = 'tasks/cancel'", since=since)
    assert (refused["server"], refused["tool"], refused["error_type"]) == (slug, "begin", "permission-denied")


def test_a_paused_server_tells_nothing_of_its_tasks(shared_product, client, slug, label):
    handle = client.begin(label)["taskId"]
    made(rest(shared_product, "POST", f"servers/{slug}/pause/", {}))
    try:
        eventually(lambda: "error" in client.about("tasks/get", handle).json, within=2)
        assert client.about("tasks/update", handle).type == "paused"
        assert client.about("tasks/cancel", handle).type == "paused"
    finally:
        made(rest(shared_product, "POST", f"servers/{slug}/resume/", {}))
    eventually(lambda: "begin" in client.names(), within=5)


def test_every_request_about_a_task_is_recorded_with_it(shared_product, client, slug, label):
    since = audit_mark(shared_product)
    handle = client.begin(label)["taskId"]
    client.about("tasks/get", handle)
    client.about("tasks/update", handle)
    client.about("tasks/cancel", handle)
    wanted = [
        ("call.intent", "tool.call"),
        ("call.outcome", "tool.call"),
        ("call.outcome", "tasks/get"),
        ("call.intent", "tasks/update"),
        ("call.outcome", "tasks/update"),
        ("call.intent", "tasks/cancel"),
        ("call.outcome", "tasks/cancel"),
    ]
    rows = audit_rows(shared_product, "server = ? AND event_type LIKE 'call.%'", slug, since=since)
    assert [(row["event_type"], row["action"]) for row in rows] == wanted
    assert {row["tool"] for row in rows} == {"begin"}
    marks = {row["task"] for row in rows[1:]}
    assert len(marks) == 1
    assert len(marks.pop()) == 32
    assert "theirs" not in str(rows)


# Being told of tasks


class Told(Wire):
    """A stream of `subscriptions/listen`."""

    def listen(self, client: Begins, handles: Any, capabilities: dict | None = None, **others: Any) -> "Told":
        wanted = {"taskIds": handles, **others}
        meta = {**META, CAPABILITIES: DECLARED if capabilities is None else capabilities}
        message = client.message("subscriptions/listen") | {"id": "mine", "params": {"notifications": wanted, "_meta": meta}}
        body = json.dumps(message).encode()
        self.send(self.head("POST", client.path, {**client.headers(message), "Content-Length": str(len(body))}) + body)
        return self

    def next(self) -> dict:
        """Return the next message."""
        self.socket.settimeout(10)
        while True:
            line, end, rest_of_it = self._buffer.partition(b"\n")
            if end:
                self._buffer = rest_of_it
                if line.startswith(b"data: "):
                    return json.loads(line[6:])
            else:
                self._more()


def test_a_client_is_told_of_its_tasks(shared_product, client, slug, label):
    since = audit_mark(shared_product)
    first, second = client.begin(label)["taskId"], client.begin(f"{label}-2")["taskId"]
    with Told(shared_product) as told:
        told.listen(client, [first, "nonsense", second, first], toolsListChanged=True)
        acknowledged = told.next()
        assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
        assert acknowledged["params"]["notifications"] == {"toolsListChanged": True, "taskIds": [first, second]}
        client.tool("need", label=f"{label}-2")
        asking = told.next()
        assert asking["method"] == "notifications/tasks"
        assert (asking["params"]["taskId"], asking["params"]["inputRequests"]) == (second, {"who": NAME})
        assert asking["params"]["_meta"][SUBSCRIPTION] == "mine"
        client.tool("settle", label=label)
        done = told.next()["params"]
        assert (done["taskId"], done["status"]) == (first, "completed")
        assert done["result"]["content"][0]["text"] == f"settled {label}"
        wishes = [one["params"] for one in client.seen("subscriptions/listen")]
        asked = next(one for one in wishes if len(one["notifications"].get("taskIds", ())) == 2)
        assert asked["_meta"][CAPABILITIES] == DECLARED
    rows = audit_rows(shared_product, "action IN ('tasks/listen', 'notifications/tasks') AND server = ?", slug, since=since)
    assert [(row["action"], row["outcome"]) for row in rows] == [("tasks/listen", "ok")] * 2 + [
        ("notifications/tasks", "ok")
    ] * 2
    eventually(lambda: client.seen("left"), within=5, because="the server was not left alone")


def test_nobody_is_told_of_anothers_task(shared_product, client, slug, label):
    handle = client.begin(label)["taskId"]
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("other"), "inherits_owner": True}))["key"]
    other = Begins(shared_product, "modern", client.path, key)
    since = audit_mark(shared_product)
    with Told(shared_product) as told:
        told.listen(other, [handle])
        assert told.next()["params"]["notifications"] == {"taskIds": []}
    recorded(shared_product, "event_type = 'call.refused' AND action = 'tasks/listen'", since=since)


def test_who_has_not_declared_tasks_is_not_told_of_them(client):
    message = client.message("subscriptions/listen", {"notifications": {"taskIds": []}, "_meta": {CAPABILITIES: {}}})
    refused = client.send(message)
    assert (refused.status, refused.error["code"]) == (400, -32021)
    for wrong in ("x", [1], ["x"] * 257):
        params = client.params(notifications={"taskIds": wrong})
        assert client.ask("subscriptions/listen", params).error["code"] == -32602


def test_a_right_that_is_withdrawn_ends_the_news(shared_product, client, slug, label):
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("granted")}))
    grant = made(rest(shared_product, "POST", "grants/", {"kind": "server", "server": slug, "api_key": key["id"]}))
    granted = Begins(shared_product, "modern", client.path, key["key"])
    since = audit_mark(shared_product)
    handle = eventually(lambda: granted.tool("begin", label=label).json.get("result"), within=5)["taskId"]
    with Told(shared_product) as told:
        told.listen(granted, [handle], toolsListChanged=True)
        assert told.next()["params"]["notifications"]["taskIds"] == [handle]
        client.tool("need", label=label)
        assert told.next()["params"]["status"] == "input_required"
        assert rest(shared_product, "DELETE", f"grants/{grant['id']}/").status < 300
        assert told.next()["method"] == "notifications/tools/list_changed"
        client.tool("settle", label=label)
        assert told.next()["result"]["resultType"] == "complete", "the next and last word is the end"
    refused = recorded(shared_product, "event_type = 'call.refused' AND action = 'notifications/tasks'", since=since)
    assert (refused["actor_id"], refused["error_type"]) == (key["id"], "permission-denied")


def test_a_stream_ends_with_its_servers(shared_product, client, slug, label):
    handle = client.begin(label)["taskId"]
    with Told(shared_product) as told:
        told.listen(client, [handle])
        assert told.next()["params"]["notifications"] == {"taskIds": [handle]}
        made(rest(shared_product, "POST", f"servers/{slug}/pause/", {}))
        try:
            assert told.next()["result"]["resultType"] == "complete"
        finally:
            made(rest(shared_product, "POST", f"servers/{slug}/resume/", {}))
    eventually(lambda: "begin" in client.names(), within=5)


class Begun(mcp_types.Result):
    """What a call that became a task is answered with, as the SDK's client claims it."""

    result_type: Literal["task"]
    task_id: str


class Known(mcp_types.Result):
    """What is known of a task."""

    result: dict[str, Any] = {}


class GetTask(mcp_types.Request[dict[str, Any], Literal["tasks/get"]]):
    """Asks about a task."""

    name_param: ClassVar[str | None] = "taskId"
    method: Literal["tasks/get"] = "tasks/get"


async def test_a_client_of_the_sdk_finishes_a_call_that_became_a_task(shared_product, client, slug, label):
    """The SDK's own client claims the extension's result and asks about the task until it is done."""

    class Finishing(ClientExtension):
        identifier = EXTENSION

        def claims(self) -> list[ResultClaim[Begun]]:
            return [ResultClaim(result_type="task", model=Begun, resolve=self.finish)]

        async def finish(self, begun: Begun, context: ClaimContext) -> mcp_types.CallToolResult:
            await asyncio.to_thread(client.tool, "settle", label=label)

            async def done() -> dict[str, Any]:
                return (await context.session.send_request(GetTask(params={"taskId": begun.task_id}), Known)).result

            return mcp_types.CallToolResult.model_validate(await eventually_async(done))

    async with (
        httpx2.AsyncClient(headers=shared_product.headers) as http,
        mcp.Client(
            streamable_http_client(f"{shared_product.base_url}/mcp/{slug}", http_client=http), extensions=[Finishing()]
        ) as sdk,
    ):
        result = await sdk.call_tool("begin", {"label": label})
    assert result.content[0].text == f"settled {label}"
