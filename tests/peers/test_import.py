"""`manage.py import_servers` with files as Claude Desktop, Cursor and VS Code write them: what is imported works."""

import asyncio
import json
import subprocess
import sys

import pytest

from tests.peers.clients import KINDS, connect
from tests.peers.house import NODE, package
from tests.product import ROOT


def claude_desktop(house) -> dict:
    return {
        "globalShortcut": "",
        "mcpServers": {
            "Claude Files": {
                "command": str(NODE),
                "args": [package(house.modules, "server-filesystem"), str(house.directory / "files")],
            },
            "claude-memory": {
                "command": "node",
                "args": [package(house.modules, "server-memory")],
                "env": {"MEMORY_FILE_PATH": str(house.directory / "claude.jsonl")},
            },
        },
    }


def cursor(house) -> dict:
    remote = house.api("GET", "servers/everything-http/")["endpoints"][0]["url"]
    return {
        "mcpServers": {
            "cursor-time": {"type": "stdio", "command": "mcp-server-time", "args": ["--local-timezone=UTC"], "env": {}},
            "cursor-remote": {"url": remote, "headers": {"X-Team": "signals"}},
        }
    }


def vs_code(house) -> dict:
    remote = house.api("GET", "servers/everything-http/")["endpoints"][0]["url"]
    stream = house.api("GET", "servers/everything-sse/")["endpoints"][0]["url"]
    repository = str(house.directory / "repository")
    return {
        "inputs": [],
        "servers": {
            "code-git": {"type": "stdio", "command": "mcp-server-git", "args": ["--repository", repository]},
            "code-http": {"type": "http", "url": remote},
            "code-sse": {"type": "sse", "url": stream},
        },
    }


CALLS = {
    "claude-files": ("read_text_file", {"path": "{files}/hello.txt"}, "Stellwerk"),
    "claude-memory": ("read_graph", {}, "entities"),
    "cursor-time": ("get_current_time", {"timezone": "Asia/Tokyo"}, "Tokyo"),
    "cursor-remote": ("get-sum", {"a": 1, "b": 1}, "is 2"),
    "code-git": ("git_log", {"repo_path": "{repository}"}, "The first points"),
    "code-http": ("get-sum", {"a": 1, "b": 1}, "is 2"),
    "code-sse": ("get-sum", {"a": 1, "b": 1}, "is 2"),
}


@pytest.mark.parametrize("written_by", [claude_desktop, cursor, vs_code], ids=lambda one: one.__name__)
async def test_what_is_imported_works(house, driver, tmp_path, written_by) -> None:
    document = await asyncio.to_thread(written_by, house)
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps(document))
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "manage.py", "import_servers", str(path)],
        cwd=ROOT, env=house.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    slugs = [slug for slug in CALLS if slug.startswith(written_by.__name__.split("_")[-1].replace("desktop", "claude"))]
    assert len(slugs) == len(document.get("mcpServers") or document["servers"])
    assert done.stdout.count("created") == len(slugs), done.stdout
    words = {"files": str(house.directory / "files"), "repository": str(house.directory / "repository")}
    for slug in slugs:
        await asyncio.to_thread(house.discovered, slug)
        name, arguments, expected = CALLS[slug]
        filled = {key: value.format(**words) if isinstance(value, str) else value for key, value in arguments.items()}
        async with connect(KINDS["python-auto"], house.url(slug), house.key, driver=driver) as client:
            assert expected in await client.text(name, filled), slug
        await house.ask("DELETE", f"servers/{slug}/")
