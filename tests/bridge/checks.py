"""What each feature of `matrix.yaml` must show to a client: of the initialize era or not, of whichever SDK."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.bridge import checks_of_inputs  # noqa: F401 - registers its own
from tests.bridge.checking import CHECKS, Pair, check, fresh, heard
from tests.bridge.features import EXTRA, PICTURE
from tests.bridge.talk import Json, Talk
from tests.peers.face import Refused
from tests.support import eventually_async

__all__ = ["CHECKS", "Pair"]


@check
async def plain(talk: Talk, pair: Pair) -> None:
    result = await talk.call("plain", {"n": 41})
    assert result["content"][0]["text"] == "42"
    assert result["structuredContent"] == {"more": 42, "ü": [None, 1.5]}
    assert result["_meta"]["com.example/mark"] is True
    raw = await talk.raw("tools/call", {"name": "plain", "arguments": {"n": 41}})
    if raw is not None:
        assert EXTRA.items() <= raw.items()
        assert raw["content"] == [{"type": "text", "text": "42", **EXTRA}]


@check
async def definitions(talk: Talk, pair: Pair) -> None:
    for method, named in (("tools/list", "plain"), ("prompts/list", "greeting"), ("resources/list", "bytes"),
                          ("resources/templates/list", "item")):  # fmt: skip
        item = next(one for one in await talk.items(method) if one["name"] == named)
        assert item["_meta"]["com.example/mark"] == [named]
        if await talk.raw(method, {}) is not None:
            assert EXTRA.items() <= item.items()
    schema = next(one for one in await talk.items("tools/list") if one["name"] == "plain")["inputSchema"]
    assert schema == {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@check
async def structured_any(talk: Talk, pair: Pair) -> None:
    result = await talk.call("structured_list")
    assert result["structuredContent"] == ([1, 2] if talk.modern else {"result": [1, 2]})


@check
async def progress(talk: Talk, pair: Pair) -> None:
    assert (await talk.call("progress", progress=True))["content"][0]["text"] == "arrived"
    assert await heard(talk, "steps", 3) == [[1, 3, "step 1"], [2, 3, "step 2"], [3, 3, "step 3"]]


@check
async def logging(talk: Talk, pair: Pair) -> None:
    if talk.modern:
        await talk.call("logs", progress=True)  # who does not want any gets none, whatever else it wants to hear
    for wanted, levels in (
        ("warning", ["warning", "error"]),
        ("debug", ["debug", "info", "warning", "error"]),
        ("error", ["error"]),
    ):
        await talk.set_level(wanted)
        expected = [{"level": level, "logger": "bridge", "data": {"said": level}} for level in levels]

        async def said(expected: list[Json] = expected) -> bool:
            before = len((await talk.heard()).logs)
            await talk.call("logs")

            async def arrived() -> bool:
                return any(one["level"] == "error" for one in (await talk.heard()).logs[before:])  # which is the last

            await eventually_async(arrived, because="no log message came")
            assert (await talk.heard()).logs[before:] == expected
            return True

        await eventually_async(said, within=pair.lag)


@check
async def cancellation(talk: Talk, pair: Pair) -> None:
    token = fresh("token")

    async def among(which: str) -> bool:
        return token in (await talk.told("waits"))[which]

    async def ready() -> None:
        await eventually_async(lambda: among("waiting"), because="the call did not reach the server")
        assert not await among("cancelled")

    await talk.cancelled_call("wait", {"token": token}, ready)
    await eventually_async(lambda: among("cancelled"), because="the call goes on at the server")


KINDS = ("tools", "prompts", "resources")


async def changed(talk: Talk, kind: str) -> str:
    """Have one more of a kind; return its name once the client was told of it and it is listed.

    A gateway looks again at a server's lists at most once a second, so a client that stays has all kinds changed at once.
    """
    if not talk.changes:
        await talk.listen()
        kinds = KINDS if talk.stays else (kind,)
        outcomes = await asyncio.gather(*(grown(talk, one) for one in kinds), return_exceptions=True)
        talk.changes = dict(zip(kinds, outcomes, strict=True))
    outcome = talk.changes[kind]
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


async def grown(talk: Talk, kind: str) -> str:
    """Let the server have one more of a kind, and wait until the client knows."""
    name = fresh("later")
    notice = f"notifications/{kind}/list_changed"
    assert (await talk.call("grow", {"kind": kind, "name": name}))["content"][0]["text"] == "grown"

    async def told() -> bool:
        return notice in [one["method"] for one in (await talk.heard()).notices]

    async def listed() -> bool:
        return name in [one["name"] for one in await talk.items(f"{kind}/list")]

    await eventually_async(told, because="no notice came")
    await eventually_async(listed, because="it is not listed")
    return name


async def works(pair: Pair, use: Callable[[], Awaitable[Any]]) -> Any:
    """Use what is new."""

    async def used() -> Any:
        try:
            return await use()
        except Refused as refused:
            raise AssertionError(f"not there: {refused}") from refused

    return await eventually_async(used, within=pair.lag)


@check
async def tools_changed(talk: Talk, pair: Pair) -> None:
    name = await changed(talk, "tools")
    assert (await works(pair, lambda: talk.call(name)))["content"][0]["text"] == f"{name} works"


@check
async def prompts_changed(talk: Talk, pair: Pair) -> None:
    name = await changed(talk, "prompts")
    assert (await works(pair, lambda: talk.prompt(name)))["messages"][0]["content"]["text"] == f"{name} works"


@check
async def resources_changed(talk: Talk, pair: Pair) -> None:
    name = await changed(talk, "resources")
    read = await works(pair, lambda: talk.read(f"bridge://{name}"))
    assert json.loads(read["contents"][0]["text"])["kind"] == name


@check
async def subscription(talk: Talk, pair: Pair) -> None:
    first, second = f"bridge://watched/{fresh('a')}", f"bridge://watched/{fresh('b')}"

    async def updates(uri: str) -> int:
        return sum(one.get("params", {}).get("uri") == uri for one in (await talk.heard()).notices)

    async def touched(uri: str, count: int) -> None:
        await talk.call("touch", {"uri": uri})

        async def told() -> bool:
            return await updates(uri) >= count

        await eventually_async(told, because=f"no update of {uri}")

    await talk.watch([first, second])
    await touched(first, 1)
    await talk.watch([second])

    async def quiet() -> bool:
        before, told = await updates(first), await updates(second)
        await talk.call("touch", {"uri": first})
        await touched(second, told + 1)
        assert await updates(first) == before, "it is not watched any more"
        return True

    await eventually_async(quiet, within=pair.lag)


@check
async def completion(talk: Talk, pair: Pair) -> None:
    argument, context = {"name": "name", "value": "A"}, {"arguments": {"mood": "calm"}}
    for ref, named in (
        ({"type": "ref/prompt", "name": "greeting"}, "greeting"),
        ({"type": "ref/resource", "uri": "bridge://item/{id}"}, "bridge://item/{id}"),
    ):
        result = await talk.complete({"ref": ref, "argument": argument, "context": context})
        assert result["completion"] == {"values": [named, "calm", "Ada", "Alan"], "total": 40, "hasMore": True}


@check
async def templates(talk: Talk, pair: Pair) -> None:
    listed = [one["uriTemplate"] for one in await talk.items("resources/templates/list")]
    assert "bridge://item/{id}" in listed
    read = await talk.read("bridge://item/7")
    assert json.loads(read["contents"][0]["text"]) == {"kind": "item", "name": "7"}
    assert read["contents"][0]["uri"] == "bridge://item/7"


@check
async def tool_error(talk: Talk, pair: Pair) -> None:
    result = await talk.call("fail")
    assert result["isError"] is True
    assert result["content"][0]["text"] == "The signal stands at halt."
    assert result["structuredContent"] == {"signal": "halt"}


@check
async def rpc_error(talk: Talk, pair: Pair) -> None:
    with pytest.raises(Refused, match=r"The points are frozen\.") as refused:
        await talk.call("refuse")
    assert (refused.value.code, refused.value.data) == (4711, {"points": [3, {"deep": None}]})


@check
async def missing_resource(talk: Talk, pair: Pair) -> None:
    uri = "bridge://item/missing"
    with pytest.raises(Refused) as refused:
        await talk.read(uri)
    assert refused.value.code == (-32602 if talk.modern else talk.not_found)
    assert refused.value.data["uri"] == uri


@check
async def binary(talk: Talk, pair: Pair) -> None:
    picture, sound, embedded, link = (await talk.call("binary"))["content"]
    assert (picture["type"], picture["data"], picture["mimeType"]) == ("image", PICTURE, "image/png")
    assert (sound["type"], sound["data"], sound["mimeType"]) == ("audio", PICTURE, "audio/wav")
    assert embedded["resource"] == {"uri": "bridge://bytes", "mimeType": "application/x-points", "blob": PICTURE}
    assert (link["type"], link["uri"]) == ("resource_link", "bridge://bytes")
    assert (await talk.read("bridge://bytes"))["contents"][0]["blob"] == PICTURE


@check
async def ping(talk: Talk, pair: Pair) -> None:
    await talk.ping()


@check
async def server_ping(talk: Talk, pair: Pair) -> None:
    assert (await talk.call("ping_client"))["content"][0]["text"] == "pong"


@check
async def param_headers(talk: Talk, pair: Pair) -> None:
    await talk.items("tools/list")  # a modern client learns from it what stands in headers
    for value, header in (("north", "north"), ("süd ", "=?base64?c8O8ZCA=?=")):
        assert await talk.told("region", {"region": value}) == {"argument": value, "header": header}
