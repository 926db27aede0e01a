"""Real MCP servers: the conformance fixture on the official SDK in every mode, fastmcp, and the reference servers of PyPI."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from apps.common.errors import UpstreamTimeout, UpstreamTooLarge
from apps.servers.domain import Secrets
from apps.servers.transports import discover
from apps.servers.transports.base import UpstreamRequest
from tests.support import eventually_async
from tests.transports.peers import FIXTURE, PYTHON, call, connected, start_real, text_of

PATH = Path(PYTHON).parent
ALL_LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26")
MODES = {
    "http dual": ("http", "dual", (), "dual", ("2026-07-28", *ALL_LEGACY)),
    "http modern": ("http", "modern", (), "modern", ("2026-07-28",)),
    "http legacy": ("http", "legacy", (), "legacy", ALL_LEGACY),
    "http legacy json": ("http", "legacy", ("--json",), "legacy", ALL_LEGACY),
    "sse": ("sse", "dual", (), "legacy", ("2025-11-25",)),
    "stdio": ("stdio", "dual", (), "modern", ("2026-07-28",)),
}


@pytest.mark.parametrize("mode", MODES)
async def test_the_fixture_server(mode: str, fixture_server) -> None:
    transport, era, extra, found_era, revisions = MODES[mode]
    if transport == "stdio":
        url, command = "", (PYTHON, str(FIXTURE), "--transport", "stdio")
    else:
        url, command = fixture_server(transport, era, *extra).url, ()
    modern = found_era != "legacy"
    secrets = Secrets(headers={"X-Upstream-Key": "k1"})
    async with connected(transport, url, command=command, secrets=secrets) as (upstream, recorder):
        listening = asyncio.create_task(upstream.listen())
        said = await discover(upstream, timeout=30, survey=True)
        assert (said.era, said.revisions) == (found_era, revisions)
        assert said.server_info["name"] == "own-everything-fixture"
        assert len(said.tools) > 30
        assert (len(said.resources), len(said.templates), len(said.prompts)) == (3, 1, 5)
        schema = next(tool for tool in said.tools if tool["name"] == "json_schema_2020_12_tool")["inputSchema"]
        assert schema["$defs"]["address"]["$anchor"] == "addressDef"

        answer = await upstream.call(call("test_simple_text"))
        assert text_of(answer) == "This is a simple text response for testing."
        assert answer.revision == ("2026-07-28" if modern else "2025-11-25")

        notes = []

        async def take(message) -> None:
            notes.append(message)

        await upstream.call(call("test_tool_with_progress", on_message=take))
        await upstream.call(call("test_tool_with_logging", on_message=take, log_level="info"))
        if "json" not in mode:
            assert [note["params"].get("progress", note["params"].get("data")) for note in notes] == [
                0, 50, 100, "Tool execution started", "Tool processing data", "Tool execution completed",
            ]  # fmt: skip
            assert all(note["params"]["progressToken"] is None for note in notes[:3])

        echoed = json.loads(text_of(await upstream.call(call("x_echo_meta"))))
        if transport == "http":
            assert echoed["headers"]["x-upstream-key"] == "k1"
        if modern:
            assert echoed["meta"]["io.modelcontextprotocol/clientInfo"]["name"] == "switchyard"

        read = await upstream.call(UpstreamRequest("resources/read", {"uri": "test://static-text"}))
        assert read.result["contents"][0]["text"].startswith("This is the content")
        missing = await upstream.call(UpstreamRequest("resources/read", {"uri": "test://nöpe"}))
        assert missing.error["code"] == (-32602 if modern else -32002)
        prompt = await upstream.call(
            UpstreamRequest("prompts/get", {"name": "test_prompt_with_arguments", "arguments": {"arg1": "ü", "arg2": "2"}})
        )
        assert "arg1='ü'" in prompt.result["messages"][0]["content"]["text"]
        assert (await upstream.call(UpstreamRequest("nope/x", {}))).error["code"] == -32601

        before = int(text_of(await upstream.call(call("x_cancel_count"))))
        with pytest.raises(UpstreamTimeout):
            await upstream.call(call("x_slow", {"seconds": 30}, timeout=0.3))

        async def cancelled() -> bool:
            return int(text_of(await upstream.call(call("x_cancel_count")))) > before

        await eventually_async(cancelled)

        assert (await upstream.call(call("x_big", {"kb": 2000}))).size > 2_000_000
        with pytest.raises(UpstreamTooLarge):
            await upstream.call(call("x_big", {"kb": 2000}, max_bytes=500_000))
        assert text_of(await upstream.call(call("test_reconnection"))) == "Reconnection test completed"

        async def announced() -> bool:
            await upstream.call(call("x_tools_changed"))
            return ("server-1", "tools") in recorder.named("list_changed")

        await eventually_async(announced)
        await upstream.aclose()
        await asyncio.wait_for(listening, 5)


async def test_questions_of_a_legacy_server_reach_the_caller(fixture_server) -> None:
    async def accept(message):
        assert message["method"] == "elicitation/create"
        return {"result": {"action": "accept", "content": {"response": "yes"}}}

    capabilities = {"elicitation": {}, "sampling": {}}
    async with connected("http", fixture_server("http", "legacy").url, capabilities=capabilities) as (upstream, _):
        answer = await upstream.call(call("test_elicitation", {"message": "Well?"}, on_request=accept))
        assert text_of(answer) == 'User response: action=accept, content={"response": "yes"}'
        both = await asyncio.gather(*(upstream.call(call("x_elicit_twice", on_request=accept)) for _ in range(5)))
        assert {text_of(one) for one in both} == {"accept/accept"}


async def test_a_modern_server_asks_in_its_answer_and_is_answered_by_another_call(fixture_server) -> None:
    async with connected("http", fixture_server("http", "dual").url) as (upstream, _):
        capabilities = {"elicitation": {}}
        asked = await upstream.call(call("test_input_required_result_elicitation", client_capabilities=capabilities))
        assert asked.result["resultType"] == "input_required"
        assert "user_name" in asked.result["inputRequests"]
        again = call("test_input_required_result_elicitation", client_capabilities=capabilities)
        again.params["inputResponses"] = {"user_name": {"action": "accept", "content": {"name": "Ada"}}}
        assert text_of(await upstream.call(again)) == "Hello, Ada!"


async def test_parameter_headers_are_taken_by_the_official_server(fixture_server) -> None:
    async with connected("http", fixture_server("http", "modern").url) as (upstream, _):
        good = await upstream.call(call("test_x_mcp_header", {"region": "eu"}, param_headers={"Mcp-Param-Region": "eu"}))
        assert text_of(good) == "region=eu"
        bad = await upstream.call(call("test_x_mcp_header", {"region": "eu"}))
        assert bad.error["code"] == -32020


async def test_a_dual_server_in_either_era(fixture_server) -> None:
    async with connected("http", fixture_server("http", "dual").url, era="dual") as (upstream, _):
        for era, revision in (("modern", "2026-07-28"), ("legacy", "2025-11-25"), (None, "2026-07-28")):
            assert (await upstream.call(call("test_simple_text", era=era))).revision == revision


@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_fastmcp(transport: str, free_port: int) -> None:
    script = str(Path(__file__).with_name("fastmcp_peer.py"))
    server = start_real([PYTHON, script, str(free_port)], free_port, "/mcp") if transport == "http" else None
    try:
        async with connected(transport, server.url if server else "", command=(PYTHON, script)) as (upstream, _):
            said = await discover(upstream, timeout=30)
            assert [tool["name"] for tool in said.tools] == ["add"]
            assert [template["uriTemplate"] for template in said.templates] == ["note://{name}"]
            assert [prompt["name"] for prompt in said.prompts] == ["greet"]
            answers = await asyncio.gather(*(upstream.call(call("add", {"a": n, "b": 1})) for n in range(20)))
            assert [answer.result["structuredContent"]["result"] for answer in answers] == list(range(1, 21))
    finally:
        if server is not None:
            server.process.terminate()
            server.process.wait(10)


async def test_mcp_server_time() -> None:
    async with connected("stdio", command=(str(PATH / "mcp-server-time"), "--local-timezone", "UTC")) as (upstream, _):
        said = await discover(upstream, timeout=30)
        assert {tool["name"] for tool in said.tools} >= {"get_current_time", "convert_time"}
        answer = await upstream.call(call("get_current_time", {"timezone": "Europe/Berlin"}))
        assert json.loads(text_of(answer))["timezone"] == "Europe/Berlin"


async def test_mcp_server_git(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "-b", "main", str(tmp_path)], check=True)
    (tmp_path / "new.txt").write_text("x")
    async with connected("stdio", command=("mcp-server-git", "--repository", str(tmp_path))) as (upstream, _):
        said = await discover(upstream, timeout=30)
        assert "git_status" in {tool["name"] for tool in said.tools}
        assert "new.txt" in text_of(await upstream.call(call("git_status", {"repo_path": str(tmp_path)})))
