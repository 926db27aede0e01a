"""How to connect: configuration for each client program, and code for a call. Pure text; the key is a placeholder or the new one."""

import json
import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

PLACEHOLDER = "YOUR_API_KEY"
MODERN = "2026-07-28"


@dataclass(frozen=True, slots=True)
class Snippet:
    """One way to connect."""

    name: str
    title: str
    note: str
    text: str


def endpoint(public_url: str, slug: str = "") -> str:
    """Return the address of a toolset, or of everything."""
    return f"{public_url}/mcp/{slug}" if slug else f"{public_url}/mcp"


def client_snippets(url: str, name: str, key: str = "") -> list[Snippet]:
    """Return the snippets for every client, for one address under one name."""
    token = key or PLACEHOLDER
    return [
        Snippet(
            "claude-code",
            "Claude Code",
            "Run it in a terminal; add --scope user to have it in every project.",
            _claude_code(url, name, token),
        ),
        Snippet(
            "claude-desktop",
            "Claude Desktop",
            "Settings → Developer → Edit config (claude_desktop_config.json), then restart. Needs Node: its config takes commands alone, so mcp-remote carries the calls.",
            _claude_desktop(url, name, token),
        ),
        Snippet(
            "cursor",
            "Cursor",
            ".cursor/mcp.json in a project, or ~/.cursor/mcp.json for all of them.",
            _cursor(url, name, token),
        ),
        Snippet(
            "vscode",
            "VS Code",
            ".vscode/mcp.json in a project. VS Code asks for the key once and keeps it."
            if not key
            else ".vscode/mcp.json in a project; keep it out of version control, it holds the key.",
            _vscode(url, name, key),
        ),
        Snippet(
            "sse",
            "HTTP+SSE",
            "For clients that know only the older transport (2024-11-05): the same names, the same key, at /sse.",
            _sse(url, name, token),
        ),
        Snippet("curl", "curl", "Lists the tools; nothing needs to be installed.", _curl_list(url, token)),
        Snippet("python", "Python", "pip install mcp", _python_list(url, token)),
    ]


def call_snippets(url: str, tool: str, arguments: dict[str, Any]) -> list[Snippet]:
    """Return code that makes one call: curl, Python, TypeScript."""
    return [
        Snippet("curl", "curl", "Stateless MCP: one request, no session.", _curl_call(url, tool, arguments)),
        Snippet("python", "Python", "pip install mcp", _python_call(url, tool, arguments)),
        Snippet("typescript", "TypeScript", "npm install @modelcontextprotocol/client", _typescript_call(url, tool, arguments)),
    ]


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _claude_code(url: str, name: str, token: str) -> str:
    return f'claude mcp add --transport http {name} {url} \\\n  --header "Authorization: Bearer {token}"'


def _claude_desktop(url: str, name: str, token: str) -> str:
    args = ["-y", "mcp-remote", url, "--header", "Authorization:${AUTH_HEADER}"]
    if url.startswith("http://"):
        args.append("--allow-http")
    return _json({"mcpServers": {name: {"command": "npx", "args": args, "env": {"AUTH_HEADER": f"Bearer {token}"}}}})


def _cursor(url: str, name: str, token: str) -> str:
    return _json({"mcpServers": {name: {"url": url, "headers": {"Authorization": f"Bearer {token}"}}}})


def _sse(url: str, name: str, token: str) -> str:
    parts = urlsplit(url)
    address = parts._replace(path="/sse" + parts.path.removeprefix("/mcp")).geturl()
    return _json({"mcpServers": {name: {"type": "sse", "url": address, "headers": {"Authorization": f"Bearer {token}"}}}})


def _vscode(url: str, name: str, key: str) -> str:
    bearer = f"Bearer {key}" if key else "Bearer ${input:switchyard-key}"
    document: dict[str, Any] = {"servers": {name: {"type": "http", "url": url, "headers": {"Authorization": bearer}}}}
    if not key:
        document["inputs"] = [
            {"type": "promptString", "id": "switchyard-key", "description": "Switchyard API key", "password": True}
        ]
    return _json(document)


def _meta() -> dict[str, Any]:
    return {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "curl", "version": "1"},
    }


def _curl(url: str, token: str, method: str, params: dict[str, Any], name: str = "") -> str:
    lines = [
        f"curl -sS {shlex.quote(url)}",
        f"  -H {shlex.quote(f'Authorization: Bearer {token}')}",
        "  -H 'Content-Type: application/json'",
        "  -H 'Accept: application/json, text/event-stream'",
        f"  -H 'MCP-Protocol-Version: {MODERN}'",
        f"  -H {shlex.quote(f'Mcp-Method: {method}')}",
    ]
    if name:
        lines.append(f"  -H {shlex.quote(f'Mcp-Name: {name}')}")
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": _meta()}}
    lines.append(f"  -d {shlex.quote(json.dumps(body, ensure_ascii=True))}")
    return " \\\n".join(lines)


def _curl_list(url: str, token: str) -> str:
    return _curl(url, token, "tools/list", {})


def _curl_call(url: str, tool: str, arguments: dict[str, Any]) -> str:
    return _curl(url, PLACEHOLDER, "tools/call", {"name": tool, "arguments": arguments}, tool)


_PYTHON = """\
import asyncio

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

URL = {url}
HEADERS = {{"Authorization": "Bearer {token}"}}


async def main() -> None:
    async with httpx2.AsyncClient(headers=HEADERS) as http:
        async with Client(streamable_http_client(URL, http_client=http)) as client:
{body}


asyncio.run(main())
"""


def _python_list(url: str, token: str) -> str:
    body = "            for tool in (await client.list_tools()).tools:\n                print(tool.name)"
    return _PYTHON.format(url=json.dumps(url), token=token, body=body)


def _python_call(url: str, tool: str, arguments: dict[str, Any]) -> str:
    body = f"            result = await client.call_tool({json.dumps(tool)}, {_python_literal(arguments)})\n            print(result)"
    return _PYTHON.format(url=json.dumps(url), token=PLACEHOLDER, body=body)


def _python_literal(value: Any) -> str:
    return repr(value)


def _typescript_call(url: str, tool: str, arguments: dict[str, Any]) -> str:
    given = "\n".join("  " + line if index else line for index, line in enumerate(_json(arguments).split("\n")))
    return f"""\
import {{ Client, StreamableHTTPClientTransport }} from "@modelcontextprotocol/client";

const client = new Client({{ name: "example", version: "1.0.0" }});
await client.connect(
  new StreamableHTTPClientTransport(new URL({json.dumps(url)}), {{
    requestInit: {{ headers: {{ Authorization: "Bearer {PLACEHOLDER}" }} }},
  }}),
);
const result = await client.callTool({{
  name: {json.dumps(tool)},
  arguments: {given},
}});
console.log(result);
await client.close();
"""
