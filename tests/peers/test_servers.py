"""Every client before every server: the server's own toolset, a call with arguments, an error of the tool, resources, prompts."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.peers.clients import Connection, Kind, Refused, connect
from tests.peers.house import House


@dataclass(frozen=True)
class Sample:
    """What a server must show through the gateway. Texts in arguments may name `{files}`, `{repository}` and `{unique}`."""

    info: str
    tools: set[str]
    call: tuple[str, dict[str, Any]]
    answer: str
    error: tuple[str, dict[str, Any]]
    complaint: str
    resources: tuple[str, ...] = ()
    read: dict[str, str] = field(default_factory=dict)
    templates: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    got: dict[str, tuple[dict[str, str], str]] = field(default_factory=dict)


EVERYTHING = Sample(
    info="mcp-servers/everything",
    tools={
        "echo",
        "get-sum",
        "get-structured-content",
        "trigger-long-running-operation",
        "get-tiny-image",
        "get-roots-list",
        "trigger-elicitation-request",
        "trigger-sampling-request",
        "trigger-url-elicitation",
    },
    call=("get-sum", {"a": 2, "b": 40}),
    answer="The sum of 2 and 40 is 42.",
    error=("gzip-file-as-resource", {"name": "x", "data": "ftp://example.org/x", "outputType": "resource"}),
    complaint="Unsupported URL protocol",
    resources=("demo://resource/static/document/features.md",),
    read={
        "demo://resource/static/document/features.md": "Everything Server",
        "demo://resource/dynamic/text/7": "Resource 7: This is a plaintext resource",
    },
    templates=("demo://resource/dynamic/text/{resourceId}", "demo://resource/dynamic/blob/{resourceId}"),
    prompts=("simple-prompt", "args-prompt", "completable-prompt"),
    got={"args-prompt": ({"city": "Ulm"}, "What's weather in Ulm?"), "simple-prompt": ({}, "simple prompt")},
)
SAMPLES = {
    "everything": EVERYTHING,
    "everything-http": EVERYTHING,
    "everything-sse": EVERYTHING,
    "filesystem": Sample(
        info="secure-filesystem-server",
        tools={"read_text_file", "write_file", "list_directory", "search_files"},
        call=("read_text_file", {"path": "{files}/hello.txt"}),
        answer="Grüße aus dem Stellwerk",
        error=("read_text_file", {"path": "/etc/passwd"}),
        complaint="Access denied",
    ),
    "memory": Sample(
        info="memory-server",
        tools={"create_entities", "search_nodes", "read_graph"},
        call=(
            "create_entities",
            {"entities": [{"name": "{unique}", "entityType": "signal", "observations": ["stands at halt"]}]},
        ),
        answer="stands at halt",
        error=("add_observations", {"observations": [{"entityName": "nobody {unique}", "contents": ["x"]}]}),
        complaint="not found",
    ),
    "time": Sample(
        info="mcp-time",
        tools={"get_current_time", "convert_time"},
        call=("convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}),
        answer="21:00",
        error=("get_current_time", {"timezone": "Nowhere/Land"}),
        complaint="timezone",
    ),
    "git": Sample(
        info="mcp-git",
        tools={"git_status", "git_log", "git_diff"},
        call=("git_log", {"repo_path": "{repository}", "max_count": 1}),
        answer="The first points",
        error=("git_status", {"repo_path": "/nowhere"}),
        complaint="/nowhere",
    ),
    "system": Sample(
        info="system",
        tools={"calculate"},
        call=("calculate", {"expression": "6 * 7"}),
        answer="42",
        error=("calculate", {"expression": "1 / 0"}),
        complaint="zero",
    ),
    "moving": Sample(
        info="moving",
        tools={"add_tool", "process_id"},
        call=("slow", {"seconds": 0}),
        answer="slept",
        error=("slow", {"seconds": "long"}),
        complaint="schema",
        resources=("moving://first",),
        read={"moving://first": "first"},
        prompts=("first",),
        got={"first": ({}, "first")},
    ),
}


@pytest.fixture
def filled(house: House) -> Callable[[Any], Any]:
    """A function that puts this run's paths and a unique name into arguments."""
    words = {
        "files": str(house.directory / "files"),
        "repository": str(house.directory / "repository"),
        "unique": f"signal-{secrets.token_hex(4)}",
    }

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: fill(one) for name, one in value.items()}
        if isinstance(value, list):
            return [fill(one) for one in value]
        return value.format(**words) if isinstance(value, str) else value

    return fill


@pytest.mark.parametrize("slug", SAMPLES)
async def test_each_client_before_each_server(house, driver, filled, kind: Kind, slug: str) -> None:
    sample = SAMPLES[slug]
    async with connect(kind, house.url(slug), house.key, driver=driver) as client:
        assert client.revision == kind.revision
        if kind.name != "python-modern":  # pinned, this client asks nothing before its first request
            assert client.server_info["name"] == sample.info
            assert client.capabilities["tools"] == {"listChanged": True}
        assert sample.tools <= set(await client.names())
        name, arguments = sample.call
        assert sample.answer in await client.text(name, filled(arguments))
        await fails(client, sample.error[0], filled(sample.error[1]), sample.complaint)
        if sample.resources:
            assert set(sample.resources) <= set(await client.names("resources"))
            assert set(sample.templates) == set(await client.names("templates"))
        for uri, beginning in sample.read.items():
            assert beginning in (await client.read(uri))["contents"][0]["text"]
        if sample.prompts:
            assert set(sample.prompts) <= set(await client.names("prompts"))
        for prompt, (given, expected) in sample.got.items():
            answer = await client.prompt(prompt, given)
            assert expected in answer["messages"][0]["content"]["text"]


async def fails(client: Connection, name: str, arguments: dict[str, Any], complaint: str) -> None:
    """Require that a call fails as the tool's own error, or, where `complaint` is `schema`, that its arguments are refused."""
    if complaint == "schema":
        with pytest.raises(Refused) as refused:
            await client.call(name, arguments)
        assert refused.value.code == -32602
        assert refused.value.data["type"].endswith("/arguments-invalid")
        return
    result = await client.call(name, arguments)
    assert result.get("isError") is True, result
    assert complaint.lower() in json.dumps(result["content"], ensure_ascii=False).lower()
