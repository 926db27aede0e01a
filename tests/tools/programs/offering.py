"""An MCP server on the official SDK whose offers stand in a JSON file, read again at every request.

    python offering.py stdio FILE
    python offering.py http FILE PORT

FILE: {"instructions": …, "page": n, "tools": […], "resources": […], "templates": […], "prompts": […], "fail": "tools/list"}.
Members that the SDK's models do not know are kept by them as extras; what they refuse is not sent at all.
"""

import json
import sys
from pathlib import Path

import anyio
import mcp.types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

METHODS = {
    "tools": (types.ListToolsResult, "tools"),
    "resources": (types.ListResourcesResult, "resources"),
    "templates": (types.ListResourceTemplatesResult, "resourceTemplates"),
    "prompts": (types.ListPromptsResult, "prompts"),
}


def make(path: Path) -> Server:
    def read() -> dict:
        return json.loads(path.read_text())

    def lister(kind: str):
        async def handle(context, params):
            offers = read()
            if offers.get("fail") == kind:
                raise RuntimeError("this list is broken")
            rows = offers.get(kind, [])
            size = offers.get("page") or len(rows) or 1
            start = int((params.cursor if params else None) or 0)
            more = str(start + size) if start + size < len(rows) else None
            result, member = METHODS[kind]
            return result.model_validate(
                {member: rows[start : start + size], "nextCursor": more, "ttlMs": 0, "cacheScope": "private"}
            )

        return handle

    async def call(context, params):
        return types.CallToolResult(content=[types.TextContent(type="text", text=params.name)])

    return Server(
        "offering",
        version="1.2.3",
        instructions=read().get("instructions"),
        on_list_tools=lister("tools"),
        on_call_tool=call,
        on_list_resources=lister("resources"),
        on_list_resource_templates=lister("templates"),
        on_list_prompts=lister("prompts"),
    )


async def over_stdio(server: Server) -> None:
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())


if __name__ == "__main__":
    program = make(Path(sys.argv[2]))
    if sys.argv[1] == "stdio":
        anyio.run(over_stdio, program)
    else:
        import uvicorn

        uvicorn.run(program.streamable_http_app(), host="127.0.0.1", port=int(sys.argv[3]), log_level="error")
