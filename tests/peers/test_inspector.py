"""MCP Inspector's command line, as its users call it."""

import asyncio
import json
import tempfile
from typing import Any

import pytest

from tests import npm
from tests.peers.house import NODE, package


async def inspect(house, slug: str, *arguments: str, key: str = "") -> tuple[int, Any, str]:
    """Run one command; return the exit code, what it printed as JSON (or None), and its complaints."""
    with tempfile.TemporaryDirectory() as home:
        process = await asyncio.create_subprocess_exec(
            NODE, package(house.modules, "inspector", "clients/launcher/build/index.js"), "--cli", house.url(slug),
            "--transport", "http", "--header", f"Authorization: Bearer {key or house.key}", *arguments,
            env={**npm.environment(), "HOME": home}, cwd=home,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode is not None
    try:
        return process.returncode, json.loads(out), err.decode()
    except ValueError:
        return process.returncode, None, (out + err).decode()


@pytest.mark.parametrize("era", ["legacy", "auto", "modern"])
async def test_the_inspector_uses_a_server(house, era: str) -> None:
    asked = {
        "tools": ("--method", "tools/list"),
        "called": ("--method", "tools/call", "--tool-name", "get-sum", "--tool-arg", "a=2", "b=40"),
        "failed": ("--method", "tools/call", "--tool-name", "gzip-file-as-resource", "--tool-arg", "data=ftp://example.org/x"),
        "templates": ("--method", "resources/templates/list"),
        "read": ("--method", "resources/read", "--uri", "demo://resource/static/document/features.md"),
        "prompt": ("--method", "prompts/get", "--prompt-name", "args-prompt", "--prompt-args", "city=Ulm"),
    }
    if era == "auto":  # it finds the modern revision, which is seen in whole
        asked = {name: asked[name] for name in ("tools", "called", "failed")}
    answers = await asyncio.gather(*(inspect(house, "everything", "--protocol-era", era, *one) for one in asked.values()))
    found = dict(zip(asked, answers, strict=True))
    for name, (code, _, said) in found.items():
        assert name == "failed" or code == 0, (name, code, said)
    assert {"echo", "get-sum"} <= {tool["name"] for tool in found["tools"][1]["tools"]}
    assert found["called"][1]["content"][0]["text"] == "The sum of 2 and 40 is 42."
    assert "Unsupported URL protocol" in json.dumps(found["failed"][1] or found["failed"][2])
    if era == "auto":
        return
    assert len(found["templates"][1]["resourceTemplates"]) == 2
    assert "Everything Server" in found["read"][1]["contents"][0]["text"]
    assert found["prompt"][1]["messages"][0]["content"]["text"] == "What's weather in Ulm?"


async def test_the_inspector_before_a_composed_toolset_and_all_servers(house) -> None:
    asked = (
        ("bench", "--method", "tools/call", "--tool-name", "add", "--tool-arg", "a=20", "b=22"),
        ("", "--method", "tools/call", "--tool-name", "system__calculate", "--tool-arg", "expression=6 * 7"),
        ("", "--method", "tools/list"),
    )
    added, calculated, listed = await asyncio.gather(*(inspect(house, *one) for one in asked))
    assert added[1]["content"][0]["text"] == "The sum of 20 and 22 is 42.", added
    assert "42" in calculated[1]["content"][0]["text"], calculated
    assert "many__tool-299" in {tool["name"] for tool in listed[1]["tools"]}


async def test_the_inspector_is_told_why_it_may_not(house) -> None:
    key = await asyncio.to_thread(house.make_key, "inspector")
    refused, unknown = await asyncio.gather(
        inspect(house, "everything", "--method", "resources/read", "--uri", "demo://resource/dynamic/text/1", key=key["key"]),
        inspect(house, "everything", "--method", "tools/list", "--stored-auth-only", key="sy_abcdefgh_" + "x" * 43),
    )
    assert refused[0] != 0
    assert "no grant allows" in refused[2] or "no grant allows" in json.dumps(refused[1])
    assert unknown[0] != 0
