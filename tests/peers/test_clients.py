"""Each client in each mode: prefixed names, a composed toolset, pages, progress, cancellation, completion, many calls at once."""

import asyncio
import json
import secrets

import pytest

from tests.peers.clients import Kind, Refused, connect
from tests.peers.house import TOOLSET
from tests.support import eventually_async


async def test_everything_under_one_address(house, driver, kind: Kind) -> None:
    async with connect(kind, house.url(), house.key, driver=driver) as client:
        assert client.revision == kind.revision
        names = await client.names()
        assert len(names) == len(set(names)) > 350, "more than one page holds"
        assert {f"many__tool-{number:03}" for number in range(300)} <= set(names)
        assert {"time__convert_time", "git__git_log", "filesystem__read_text_file", "memory__read_graph"} <= set(names)
        assert {"everything__get-sum", "everything-http__get-sum", "everything-sse__get-sum", "system__calculate"} <= set(names)
        for slug in ("everything", "everything-http", "everything-sse"):
            assert await client.text(f"{slug}__get-sum", {"a": 1, "b": 2}) == "The sum of 1 and 2 is 3."
        assert await client.text("many__tool-299") == "tool-299 works"
        assert "42" in await client.text("system__calculate", {"expression": "6 * 7"})
        assert {"everything__simple-prompt", "moving__first", "moving-legacy__first"} <= set(await client.names("prompts"))
        got = await client.prompt("everything-sse__args-prompt", {"city": "Ulm", "state": "BW"})
        assert got["messages"][0]["content"]["text"] == "What's weather in Ulm, BW?"
        for name in ("get-sum", "nowhere__x", "everything__nothing"):
            with pytest.raises(Refused, match="Unknown tool") as refused:
                await client.call(name, {"a": 1, "b": 2})
            assert refused.value.code == -32602
        with pytest.raises(Refused, match="Several servers offer"):
            await client.read("demo://resource/dynamic/text/1")


async def test_a_composed_toolset(house, driver, kind: Kind) -> None:
    async with connect(kind, house.url(TOOLSET), house.key, driver=driver) as client:
        if kind.name != "python-modern":  # pinned, this client asks nothing before its first request
            assert client.instructions == "Add, tell the time, read."
            assert (client.server_info["name"], client.server_info["title"]) == (TOOLSET, "The bench")
        tools = {tool["name"]: tool for tool in await client.items("tools")}
        assert set(tools) == {
            "add",
            "everything__trigger-long-running-operation",
            "time__convert_time",
            "time__get_current_time",
        }
        assert tools["add"]["description"] == "Adds two numbers."
        assert set(tools["add"]["inputSchema"]["required"]) == {"a", "b"}
        assert await client.text("add", {"a": 20, "b": 22}) == "The sum of 20 and 22 is 42."
        with pytest.raises(Refused, match="Unknown tool"):
            await client.call("everything__echo", {"message": "not chosen"})
        with pytest.raises(Refused, match='"b" is a required property') as refused:
            await client.call("add", {"a": 1})
        assert refused.value.data["type"].endswith("arguments-invalid")
        read = await client.read("demo://resource/static/document/features.md")
        assert read["contents"][0]["mimeType"] == "text/markdown"
        assert "everything__args-prompt" in await client.names("prompts")


@pytest.mark.parametrize("slug", ["everything", "everything-http", "everything-sse"])
async def test_progress(house, driver, kind: Kind, slug: str) -> None:
    async with connect(kind, house.url(slug), house.key, driver=driver) as client:
        steps: list[list[float]] = []
        result = await client.call("trigger-long-running-operation", {"duration": 0.15, "steps": 3}, steps=steps)
        assert result["content"][0]["text"].startswith("Long running operation completed")
        # over SSE this client takes an answer before the progress that came just before it, without a gateway too
        wanted = [[1, 3], [2, 3], [3, 3]][: max(2, len(steps)) if kind.mode == "sse" else 3]
        assert [[int(done), int(total)] for done, total in steps] == wanted


@pytest.mark.parametrize("slug", ["moving", "moving-legacy"])
async def test_cancellation_reaches_the_server(house, driver, kind: Kind, slug: str) -> None:
    async with connect(kind, house.url(slug), house.key, driver=driver) as client:
        before = int(await client.text("cancelled"))
        running = len(in_flight(house, slug, kind))

        async def started() -> None:
            await eventually_async(lambda: len(in_flight(house, slug, kind)) > running, because="no intent is recorded")

        await client.cancelled_call("slow", {"seconds": 60}, started)

        async def cancelled() -> bool:
            return int(await client.text("cancelled")) > before

        await eventually_async(cancelled, because="the server was not told")
        assert await client.text("slow", {"seconds": 0}) == "slept"


def in_flight(house, slug: str, kind: Kind) -> list[dict]:
    """Return one client's intents of the slow tool: a call that is being carried out has one."""
    events = house.events(server=slug, tool="slow", event_type="call.intent")
    return [one for one in events if one["agent"] == f"peer-{kind.name} 1.0"]


async def test_completion(house, driver, kind: Kind) -> None:
    async with connect(kind, house.url("everything"), house.key, driver=driver) as client:
        prompt = {"type": "ref/prompt", "name": "completable-prompt"}
        found = await client.complete(prompt, {"name": "department", "value": "S"})
        assert found["completion"]["values"] == ["Sales", "Support"]
        found = await client.complete(prompt, {"name": "name", "value": ""}, {"department": "Sales"})
        assert found["completion"]["values"] == ["David", "Eve", "Frank"]
        template = {"type": "ref/resource", "uri": "demo://resource/dynamic/text/{resourceId}"}
        assert (await client.complete(template, {"name": "resourceId", "value": "7"}))["completion"]["values"] == ["7"]


@pytest.mark.filterwarnings("ignore:ping is removed")
async def test_ping(house, driver, kind: Kind) -> None:
    async with connect(kind, house.url("time"), house.key, driver=driver) as client:
        if not kind.modern:
            await client.ping()
            return
        with pytest.raises(Refused, match="ping"):
            await client.ping()
        assert await client.names()


async def test_many_calls_at_once(house, driver, kind: Kind) -> None:
    async with connect(kind, house.url(), house.key, driver=driver) as client:
        pairs = [("everything__get-sum", number) for number in range(10)]
        pairs += [("everything-http__get-sum", number) for number in range(10)]
        pairs += [("everything-sse__get-sum", number) for number in range(10)]
        texts = await asyncio.gather(*(client.text(name, {"a": number, "b": 1}) for name, number in pairs))
        assert texts == [f"The sum of {number} and 1 is {number + 1}." for _, number in pairs]


async def test_rich_results_arrive_whole(house, driver, kind: Kind) -> None:
    async with connect(kind, house.url("everything"), house.key, driver=driver) as client:
        structured = await client.call("get-structured-content", {"location": "Chicago"})
        assert structured["structuredContent"] == json.loads(structured["content"][0]["text"])
        image = (await client.call("get-tiny-image"))["content"][1]
        assert (image["type"], image["mimeType"]) == ("image", "image/png")
        links = (await client.call("get-resource-links", {"count": 2}))["content"]
        assert [block["type"] for block in links] == ["text", "resource_link", "resource_link"]
        embedded = await client.call("get-resource-reference", {"resourceType": "Text", "resourceId": 3})
        assert embedded["content"][1]["resource"]["uri"] == "demo://resource/dynamic/text/3"
        annotated = await client.call("get-annotated-message", {"messageType": "error", "includeImage": False})
        assert annotated["content"][0]["annotations"] == {"priority": 1, "audience": ["user", "assistant"]}


async def test_the_log_names_client_revision_and_outcome(house, driver, kind: Kind) -> None:
    agent = f"{kind.name}-{secrets.token_hex(4)}"
    async with connect(kind, house.url("time"), house.key, driver=driver, agent=agent) as client:
        await client.text("convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"})
        await client.call("get_current_time", {"timezone": "Nowhere/Land"})
        with pytest.raises(Refused):
            await client.call("no_such_tool")

    def rows() -> list[dict]:
        return [row for row in house.events(text=agent) if row["event_type"].startswith("call.")]

    await eventually_async(lambda: len(rows()) >= 5, because="calls are not in the log")
    found = rows()
    assert {row["agent"] for row in found} == {f"{agent} 1.0"}
    assert {row["revision"] for row in found} == {kind.revision}
    assert {(row["event_type"], row["tool"] or row["object"], row["outcome"]) for row in found} == {
        ("call.intent", "convert_time", None),
        ("call.outcome", "convert_time", "ok"),
        ("call.intent", "get_current_time", None),
        ("call.outcome", "get_current_time", "error"),
        ("call.refused", "no_such_tool", "refused"),
    }
    outcome = next(row for row in found if row["outcome"] == "ok")
    intent = next(row for row in found if row["event_type"] == "call.intent" and row["call_id"] == outcome["call_id"])
    assert intent["time"] <= outcome["time"]
    assert (outcome["server"], outcome["action"], outcome["actor"]) == ("time", "tool.call", intent["actor"])
