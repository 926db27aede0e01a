"""A server's requests to the client during a call: who is asked, who may answer, and what becomes of what nobody answers."""

import asyncio

import pytest

from apps.gateway.plane.mcp.asking import AT_ONCE, Asking
from tests.support import eventually_async

ALL = {"sampling": {}, "elicitation": {}, "roots": {}}
ELICIT = {"jsonrpc": "2.0", "id": 7, "method": "elicitation/create", "params": {"message": "Name?", "x-unknown": [1]}}


class Client:
    """Keeps what it is sent; `reads` says whether it takes anything."""

    def __init__(self, reads: bool = True) -> None:
        self.sent: list[dict] = []
        self.reads = reads

    async def __call__(self, message: dict) -> bool:
        self.sent.append(message)
        return self.reads


@pytest.fixture
def asking():
    return Asking()


async def asked(asking: Asking, client: Client, owner: str = "one", message: dict = ELICIT) -> asyncio.Task:
    before = len(client.sent)
    task = asyncio.create_task(asking.ask(owner, ALL, message, client))
    await eventually_async(lambda: len(client.sent) > before)
    return task


@pytest.mark.parametrize(
    "said", [{"result": {"action": "accept", "content": {"a": 1}}}, {"error": {"code": -1, "message": "No.", "data": {"b": 2}}}]
)
async def test_the_client_is_asked_under_our_id_and_its_words_come_back(asking, said):
    client = Client()
    task = await asked(asking, client)
    sent = client.sent[0]
    assert {**sent, "id": 7} == ELICIT
    assert sent["id"] != 7
    assert asking.answer("one", {"jsonrpc": "2.0", "id": sent["id"], **said})
    assert await task == said
    assert not asking.answer("one", {"id": sent["id"], **said}), "once"


async def test_nobody_else_answers(asking):
    client = Client()
    task = await asked(asking, client)
    id = client.sent[0]["id"]
    for owner, answer_id in (("other", id), ("one", 7), ("one", "sy-0"), ("one", None), ("one", [id]), ("", id)):
        assert not asking.answer(owner, {"id": answer_id, "result": {}})
    assert not task.done()
    asking.answer("one", {"id": id, "result": {"action": "cancel"}})
    assert (await task)["result"] == {"action": "cancel"}


@pytest.mark.parametrize(
    "said", [{"result": "text"}, {"result": None}, {"error": "no"}, {"error": {"code": "x", "message": 1}}]
)
async def test_an_answer_that_is_none_is_an_error_for_the_server(asking, said):
    client = Client()
    task = await asked(asking, client)
    assert asking.answer("one", {"id": client.sent[0]["id"], **said})
    assert (await task)["error"]["code"] == -32603


@pytest.mark.parametrize("method", ["sampling/createMessage", "elicitation/create", "roots/list", "tools/list", "x", None, 7])
async def test_what_the_client_has_not_declared_is_refused_in_its_name(asking, method):
    client = Client()
    outcome = await asking.ask("one", {"other": {}}, {"id": 1, "method": method}, client)
    assert outcome["error"]["code"] == -32601
    assert not client.sent


async def test_a_client_that_reads_no_stream_is_not_waited_for(asking):
    assert "error" in await asking.ask("one", ALL, ELICIT, Client(reads=False))


async def test_a_request_that_is_taken_back_is_taken_back_from_the_client(asking):
    client = Client()
    task = await asked(asking, client)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert client.sent[1]["method"] == "notifications/cancelled"
    assert client.sent[1]["params"] == {"requestId": client.sent[0]["id"]}
    assert not asking.answer("one", {"id": client.sent[0]["id"], "result": {}})


async def test_a_server_cannot_ask_without_end(asking):
    client = Client()
    tasks = [await asked(asking, client) for _ in range(AT_ONCE)]
    assert (await asking.ask("one", ALL, ELICIT, client))["error"]["code"] == -32603
    other = await asked(asking, Client(), "other")
    for task in (*tasks, other):
        task.cancel()
    await asyncio.gather(*tasks, other, return_exceptions=True)
    assert not asking._waiting
