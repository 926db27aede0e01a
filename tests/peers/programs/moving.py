"""A stdio server on the official Python SDK that answers in every revision, whose lists change while it runs."""

import asyncio
import os

import mcp_types as types
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.subscriptions import PromptsListChanged, ResourcesListChanged, ToolsListChanged

MODERN = "2026-07-28"
bus = InMemorySubscriptionBus()
tools = [f"tool-{number:03}" for number in range(int(os.environ.get("MANY", "0")))]
own = ["add_tool", "remove_tool", "add_prompt", "add_resource", "slow", "cancelled", "process_id"]
prompts = ["first"]
resources = ["first"]
cancelled = 0
NAMED = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
SECONDS = {"type": "object", "properties": {"seconds": {"type": "number"}}, "required": ["seconds"]}


def schema(name: str) -> dict:
    if name == "slow":
        return SECONDS
    return NAMED if name.startswith(("add_", "remove_")) else {"type": "object", "properties": {}}


async def list_tools(ctx, params):
    every = [types.Tool(name=name, description=f"The tool {name}.", input_schema=schema(name)) for name in [*tools, *own]]
    start = int(params.cursor) if params is not None and params.cursor else 0
    following = str(start + 100) if start + 100 < len(every) else None
    return types.ListToolsResult(tools=every[start : start + 100], next_cursor=following, ttl_ms=0, cache_scope="private")


async def list_prompts(ctx, params):
    return types.ListPromptsResult(prompts=[types.Prompt(name=name) for name in prompts], ttl_ms=0, cache_scope="private")


async def list_resources(ctx, params):
    listed = [types.Resource(uri=f"moving://{name}", name=name) for name in resources]
    return types.ListResourcesResult(resources=listed, ttl_ms=0, cache_scope="private")


async def get_prompt(ctx, params):
    return types.GetPromptResult(
        messages=[types.PromptMessage(role="user", content=types.TextContent(type="text", text=params.name))]
    )


async def read_resource(ctx, params):
    name = str(params.uri).removeprefix("moving://")
    return types.ReadResourceResult(
        contents=[types.TextResourceContents(uri=params.uri, text=name)], ttl_ms=0, cache_scope="private"
    )


async def run(ctx, name: str, given: dict) -> str:
    global cancelled
    if name == "add_tool":
        tools.append(given["name"])
        await announce(ctx, ToolsListChanged(), "send_tool_list_changed")
        return "added"
    if name == "remove_tool":
        tools.remove(given["name"])
        await announce(ctx, ToolsListChanged(), "send_tool_list_changed")
        return "removed"
    if name == "add_prompt":
        prompts.append(given["name"])
        await announce(ctx, PromptsListChanged(), "send_prompt_list_changed")
        return "added"
    if name == "add_resource":
        resources.append(given["name"])
        await announce(ctx, ResourcesListChanged(), "send_resource_list_changed")
        return "added"
    if name == "slow":
        try:
            await asyncio.sleep(given["seconds"])
        except BaseException:
            cancelled += 1
            raise
        return "slept"
    return {"cancelled": str(cancelled), "process_id": str(os.getpid())}.get(name, f"{name} works")


async def announce(ctx, event, legacy: str) -> None:
    await bus.publish(event)
    if ctx.protocol_version != MODERN:
        await getattr(ctx.session, legacy)()


async def call_tool(ctx, params):
    if params.name not in [*tools, *own]:
        return types.CallToolResult(content=[types.TextContent(type="text", text="no such tool")], is_error=True)
    told = await run(ctx, params.name, params.arguments or {})
    return types.CallToolResult(content=[types.TextContent(type="text", text=told)])


server = Server(
    "moving",
    version="1.0.0",
    on_list_tools=list_tools,
    on_call_tool=call_tool,
    on_list_prompts=list_prompts,
    on_get_prompt=get_prompt,
    on_list_resources=list_resources,
    on_read_resource=read_resource,
    on_subscriptions_listen=ListenHandler(bus),
)


async def main() -> None:
    changes = NotificationOptions(tools_changed=True, prompts_changed=True, resources_changed=True)
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options(notification_options=changes))


asyncio.run(main())
