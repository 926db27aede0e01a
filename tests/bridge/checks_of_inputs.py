"""What each feature of `matrix.yaml` must show where the server asks the client for something."""

import asyncio

import pytest

from tests.bridge.checking import Pair, asked, check, fresh, heard
from tests.bridge.talk import CONTENT, EXTENSIONS, ROOTS, Json, Talk
from tests.peers.face import Refused
from tests.support import eventually_async

WHO: Json = {"action": "accept", "content": {"name": CONTENT["name"]}}
FORM: Json = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@check
async def elicitation_form(talk: Talk, pair: Pair) -> None:
    assert await talk.told("elicit_form") == {"who": WHO}
    (request,) = await asked(talk)
    assert request["method"] == "elicitation/create"
    assert request["params"]["message"] == "Who goes there?"
    assert request["params"]["requestedSchema"] == FORM


@check
async def elicitation_declined(talk: Talk, pair: Pair) -> None:
    assert await talk.told("elicit_form") == {"who": {"action": "decline"}}


@check
async def elicitation_url(talk: Talk, pair: Pair) -> None:
    id = fresh("page")
    assert await talk.told("elicit_url", {"id": id}) == {"consent": {"action": "accept"}}
    (request,) = await asked(talk)
    params = request["params"]
    assert (params["mode"], params["url"]) == ("url", f"https://example.org/agree/{id}")
    if pair.client == "legacy":
        assert params["elicitationId"], "the initialize era requires one"
    if pair.client == pair.server == "legacy":
        assert params["elicitationId"] == id
        (notice,) = await heard(talk, "notices", 1)
        assert notice["method"] == "notifications/elicitation/complete"
        assert notice["params"]["elicitationId"] == id


@check
async def url_required(talk: Talk, pair: Pair) -> None:
    id = fresh("login")
    if not talk.modern:
        with pytest.raises(Refused) as refused:
            await talk.call("url_required", {"id": id})
        assert refused.value.code == -32042
        assert [page["elicitationId"] for page in refused.value.data["elicitations"]] == [id]
    assert (await talk.call("url_required", {"id": id}))["content"][0]["text"] == "visited"
    if talk.modern:
        (request,) = await asked(talk)
        assert request["params"]["url"] == f"https://example.org/visit/{id}"


@check
async def sampling(talk: Talk, pair: Pair) -> None:
    answers = await talk.told("sampling", {"question": "Which way?"})
    content = {"type": "text", "text": "About: Which way?"}
    assert answers == {"model": {"role": "assistant", "content": content, "model": "a-model", "stopReason": "endTurn"}}
    (request,) = await asked(talk)
    params = request["params"]
    assert (params["maxTokens"], params["systemPrompt"], params["temperature"]) == (50, "Be short.", 0.5)


@check
async def sampling_tools(talk: Talk, pair: Pair) -> None:
    answer = (await talk.told("sampling_tools"))["model"]
    assert answer["stopReason"] == "toolUse"
    assert answer["content"] == [{"type": "tool_use", "id": "use-1", "name": "lookup", "input": {"of": "points"}}]
    (request,) = await asked(talk)
    assert [tool["name"] for tool in request["params"]["tools"]] == ["lookup"]
    assert request["params"]["toolChoice"] == {"mode": "required"}


@check
async def roots(talk: Talk, pair: Pair) -> None:
    assert await talk.told("roots") == {"roots": {"roots": ROOTS}}


@check
async def roots_changed(talk: Talk, pair: Pair) -> None:
    before = await talk.told("root_changes")
    await talk.roots_changed()

    async def counted() -> bool:
        return await talk.told("root_changes") > before

    await eventually_async(counted, because="the server was not told")


@check
async def inputs_together(talk: Talk, pair: Pair) -> None:
    answers = await talk.told("inputs_together")
    assert answers["who"] == WHO
    assert answers["model"]["content"]["text"] == "About: Together?"
    assert answers["roots"] == {"roots": ROOTS}
    assert sorted(one["method"] for one in await asked(talk)) == [
        "elicitation/create",
        "roots/list",
        "sampling/createMessage",
    ]


@check
async def inputs_in_a_row(talk: Talk, pair: Pair) -> None:
    light = {"action": "accept", "content": {"color": CONTENT["color"]}}
    assert await talk.told("inputs_in_a_row") == {"who": WHO, "light": light}
    assert [one["params"]["message"] for one in await asked(talk)] == ["Who goes there?", "Which light does Ada see?"]


@check
async def inputs_side_by_side(talk: Talk, pair: Pair) -> None:
    assert await asyncio.gather(talk.told("elicit_form"), talk.told("elicit_form")) == [{"who": WHO}, {"who": WHO}]
    assert len(await asked(talk)) == 2


@check
async def loose_input(talk: Talk, pair: Pair) -> None:
    assert await talk.told("elicit_loosely") == WHO
    (request,) = await asked(talk)
    assert request["params"]["requestedSchema"] == FORM


@check
async def loose_inputs_side_by_side(talk: Talk, pair: Pair) -> None:
    assert await asyncio.gather(talk.told("elicit_loosely"), talk.told("elicit_loosely")) == [WHO, WHO]
    assert len(await asked(talk)) == 2


@check
async def prompt_input(talk: Talk, pair: Pair) -> None:
    got = await talk.prompt("asking")
    assert got["messages"][0]["content"]["text"] == "A prompt for Ada"
    assert len(await asked(talk)) == 1


@check
async def resource_input(talk: Talk, pair: Pair) -> None:
    read = await talk.read(f"bridge://asking/{fresh('it')}")
    assert read["contents"][0]["text"] == "Read by Ada"
    assert len(await asked(talk)) == 1


@check
async def capabilities(talk: Talk, pair: Pair) -> None:
    declared = await talk.told("who")
    assert declared["elicitation"] == {"form": {}, "url": {}}
    assert declared["sampling"] == {"tools": {}}
    assert declared["extensions"] == EXTENSIONS
    assert "roots" in declared
