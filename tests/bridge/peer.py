"""A real MCP server of one era on the official SDK, with everything that crosses the gateway.

python -m tests.bridge.peer --era legacy|modern --transport http|sse|stdio [--world FILE] [port]

Processes with the same FILE are one server: what happens to its lists and resources in one happens in all.
"""

import argparse
import asyncio
import base64
import json
import logging
import sys
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.runner import serve_loop
from mcp.server.sse import SseServerTransport
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from tests.bridge import features
from tests.bridge.features import EXTRA, MODERN, NOT_FOUND_LEGACY, TOOLS, Context, InputRequired, Json, Raw, ask, form
from tests.bridge.world import STATE

HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
CHANGES = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
PRIVATE: dict[str, Any] = {"ttl_ms": 0, "cache_scope": "private"}
LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
MIRROR = "bridge://mirror/"
TEMPLATES = {"item": "bridge://item/{id}", "watched": "bridge://watched/{name}", "asking": "bridge://asking/{id}",
             "mirror": MIRROR + "{spec}"}  # fmt: skip


async def list_tools(ctx: Context, params: Any) -> types.ListToolsResult:
    later = [types.Tool(name=name, description="Came later.", input_schema={"type": "object"}) for name in STATE.grown["tools"]]
    return types.ListToolsResult(tools=[*(listed for _, listed in TOOLS.values()), *later], **PRIVATE)


async def call_tool(ctx: Context, params: types.CallToolRequestParams) -> Any:
    if params.name in STATE.grown["tools"]:
        return features.text(f"{params.name} works")
    if params.name not in TOOLS:
        return features.text(f"There is no tool {params.name}.", is_error=True)
    try:
        return await TOOLS[params.name][0](ctx, params.arguments or {})
    except InputRequired as needed:
        return needed.result()


async def list_prompts(ctx: Context, params: Any) -> types.ListPromptsResult:
    named = types.PromptArgument(name="name", description="Whom to greet", required=True)
    known = [types.Prompt(name="greeting", arguments=[named]), types.Prompt(name="asking"), types.Prompt(name="mirror")]
    return types.ListPromptsResult(prompts=[*known, *(types.Prompt(name=name) for name in STATE.grown["prompts"])], **PRIVATE)


async def get_prompt(ctx: Context, params: types.GetPromptRequestParams) -> Any:
    if params.name == "asking":
        try:
            answers = await ask(ctx, who=form("For whom is the prompt?", name=features.STRING))
        except InputRequired as needed:
            return needed.result()
        said = f"A prompt for {answers['who']['content']['name']}"
    elif params.name == "greeting":
        said = f"Good day, {(params.arguments or {})['name']}"
    elif params.name in STATE.grown["prompts"]:
        said = f"{params.name} works"
    else:
        raise MCPError(types.INVALID_PARAMS, f"There is no prompt {params.name}.")
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=types.TextContent(type="text", text=said))])


async def list_resources(ctx: Context, params: Any) -> types.ListResourcesResult:
    names = ["bytes", *STATE.grown["resources"]]
    return types.ListResourcesResult(resources=[types.Resource(uri=f"bridge://{name}", name=name) for name in names], **PRIVATE)


async def list_templates(ctx: Context, params: Any) -> types.ListResourceTemplatesResult:
    listed = [types.ResourceTemplate(uri_template=uri, name=name) for name, uri in TEMPLATES.items()]
    return types.ListResourceTemplatesResult(resource_templates=listed, **PRIVATE)


async def read_resource(ctx: Context, params: types.ReadResourceRequestParams) -> Any:
    uri = str(params.uri)
    kind, _, name = uri.removeprefix("bridge://").partition("/")
    if kind == "bytes":
        blob = types.BlobResourceContents(uri=uri, mime_type="application/x-points", blob=features.PICTURE)
        return types.ReadResourceResult(contents=[blob], **PRIVATE)
    if kind == "asking":
        try:
            answers = await ask(ctx, who=form("Who reads?", name=features.STRING))
        except InputRequired as needed:
            return needed.result()
        said = f"Read by {answers['who']['content']['name']}"
    elif (kind in ("item", "watched") and name != "missing") or kind in STATE.grown["resources"]:
        said = json.dumps({"kind": kind, "name": name})
    else:
        code = types.INVALID_PARAMS if features.modern(ctx) else NOT_FOUND_LEGACY
        raise MCPError(code, "There is no such resource.", {"uri": uri})
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, text=said)], **PRIVATE)


async def complete(ctx: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
    ref = params.ref.name if isinstance(params.ref, types.PromptReference) else params.ref.uri
    mood = ((params.context.arguments if params.context is not None else None) or {}).get("mood", "")
    values = [f"{params.argument.value}{end}" for end in ("da", "lan")]
    return types.CompleteResult(completion=types.Completion(values=[ref, mood, *values], total=40, has_more=True))


async def subscribe(ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
    STATE.subscribers.setdefault(str(params.uri), {})[features.session_of(ctx)] = ctx.session
    return types.EmptyResult()


async def unsubscribe(ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
    STATE.subscribers.get(str(params.uri), {}).pop(features.session_of(ctx), None)
    return types.EmptyResult()


async def set_level(ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
    STATE.levels[features.session_of(ctx)] = params.level
    return types.EmptyResult()


async def initialized(ctx: Context, params: Any) -> None:
    STATE.sessions[features.session_of(ctx)] = ctx.session


async def roots_changed(ctx: Context, params: Any) -> None:
    STATE.root_changes[features.session_of(ctx)] += 1


# What the SDK's models would sieve


def mirrored(ctx: Context) -> Json | None:
    """Return what a request for the mirror says to answer; None for any other request."""
    params = ctx.params or {}
    if ctx.method == "tools/call" and params.get("name") == "mirror":
        return params["arguments"]
    if ctx.method == "prompts/get" and params.get("name") == "mirror":
        return json.loads(params["arguments"]["spec"])
    if ctx.method == "resources/read" and params.get("uri", "").startswith(MIRROR):
        return json.loads(base64.urlsafe_b64decode(params["uri"].removeprefix(MIRROR)))
    if ctx.method == "completion/complete" and params.get("argument", {}).get("name") == "mirror":
        return json.loads(params["argument"]["value"])
    return None


async def mirror(ctx: Context, spec: Json) -> Json:
    """Say the notices, then answer, with the params as they came beside the result."""
    params = dict(ctx.params or {})
    for notice in spec.get("notices", ()):
        said = dict(notice["params"])
        if notice["method"] == "notifications/progress":
            said["progressToken"] = params["_meta"]["progressToken"]
        await ctx.session.send_notification(Raw(method=notice["method"], params=said), related_request_id=ctx.request_id)
    if "error" in spec:
        raise MCPError(**spec["error"])
    result = dict(spec["result"])
    result["_meta"] = {**result.get("_meta", {}), "com.example/seen": params}
    return result


async def mirror_input(ctx: Context) -> Json:
    """Ask what the arguments say; answer what the client says."""
    params = ctx.params or {}
    asked = params["arguments"]["asked"]
    if features.modern(ctx) and "inputResponses" not in params:
        return {"resultType": "input_required", "inputRequests": {"it": asked}, "requestState": "it was asked"}
    answer = params["inputResponses"]["it"] if features.modern(ctx) else await features.push(ctx, asked)
    return complete_in(ctx, {"content": [], "structuredContent": {"answer": answer}})


def complete_in(ctx: Context, result: Json) -> Json:
    """Return a result as the request's era wants it."""
    return {"resultType": "complete", **result} if features.modern(ctx) else result


async def untouched(ctx: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
    """Answer the mirrors word for word; put members that nobody knows on lists and on `plain`'s result."""
    name = (ctx.params or {}).get("name")
    spec = mirrored(ctx)
    if spec is not None:
        return await mirror(ctx, spec)
    if ctx.method == "tools/call" and name == "mirror_input":
        return await mirror_input(ctx)
    result = await call_next(ctx)
    if ctx.method in LISTS:
        for item in result[LISTS[ctx.method]]:
            item |= {**EXTRA, "_meta": {"com.example/mark": [item["name"]]}}
    elif ctx.method == "tools/call" and name == "plain":
        result["content"][0] |= EXTRA
        result |= {**EXTRA, "_meta": {**result.get("_meta", {}), "com.example/mark": True}}
    return result


async def modern_alone(ctx: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
    """Refuse what comes in the initialize era, where the transport has not done so."""
    if not features.modern(ctx):
        data = {"supported": [MODERN], "requested": ctx.protocol_version}
        raise MCPError(types.UNSUPPORTED_PROTOCOL_VERSION, "Modern alone.", data)
    return await call_next(ctx)


# The program


class Peer(Server[Any]):
    """The server, which always declares that its lists change."""

    def create_initialization_options(
        self, notification_options: Any = None, experimental_capabilities: Any = None, extensions: Any = None
    ) -> InitializationOptions:
        """Return the options of a handshake."""
        return super().create_initialization_options(CHANGES, experimental_capabilities, extensions)


def make(era: str) -> Peer:
    """Return a server of one era."""
    legacy: dict[str, Any] = {
        "on_subscribe_resource": subscribe,
        "on_unsubscribe_resource": unsubscribe,
        "on_roots_list_changed": roots_changed,
    }
    server = Peer(
        "bridge-peer",
        version="1.0.0",
        instructions="Cross the bridge.",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_completion=complete,
        on_set_logging_level=set_level,
        get_tool_input_schema=lambda name: TOOLS[name][1].input_schema if name in TOOLS else None,
        **(legacy if era == "legacy" else {"on_subscriptions_listen": ListenHandler(STATE.bus)}),
    )
    server.add_notification_handler("notifications/initialized", types.NotificationParams, initialized)
    if era == "modern":
        server.middleware.append(modern_alone)
    server.middleware.append(untouched)
    return server


def http_app(server: Peer, era: str) -> Any:
    """Return the Streamable HTTP application, which answers the other era as a server does that has never heard of it."""
    inner = server.streamable_http_app()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        request = Request(scope, receive)
        version = request.headers.get("mcp-protocol-version")
        answer: Response | None = None
        if era == "legacy" and version is not None and version not in HANDSHAKE:
            error = {"code": -32600, "message": f"Bad Request: Unsupported protocol version: {version}"}
            answer = JSONResponse({"jsonrpc": "2.0", "id": "server-error", "error": error}, 400)
        elif era == "modern" and (version is None or version in HANDSHAKE):
            if request.method == "POST":
                body = await request.json()
                data = {"supported": [MODERN], "requested": (body.get("params") or {}).get("protocolVersion") or version or ""}
                error = {"code": types.UNSUPPORTED_PROTOCOL_VERSION, "message": "Unsupported protocol version", "data": data}
                answer = JSONResponse({"jsonrpc": "2.0", "id": body.get("id"), "error": error}, 400)
            else:
                answer = Response(status_code=405, headers={"Allow": "POST"})
        await (answer or inner)(scope, receive, send)

    return app


def sse_app(server: Peer) -> Starlette:
    """Return the HTTP+SSE application."""
    transport = SseServerTransport("/messages/")

    async def connect(request: Request) -> Response:
        async with transport.connect_sse(request.scope, request.receive, request._send) as (reading, writing):
            await serve_loop(server, reading, writing, lifespan_state={})
        return Response()

    return Starlette(routes=[Route("/sse", connect), Mount("/messages/", app=transport.handle_post_message)])


async def on_stdio(server: Peer, era: str, world: Path | None) -> None:
    """Serve standard input and output until they close."""
    following = asyncio.create_task(STATE.follow(world)) if world is not None else None
    async with stdio_server() as (reading, writing):
        if era == "legacy":
            await serve_loop(server, reading, writing, lifespan_state={})
        else:
            await server.run(reading, writing, server.create_initialization_options())
    if following is not None:
        following.cancel()


def main() -> None:
    """Run the peer that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--era", choices=["legacy", "modern"], required=True)
    parser.add_argument("--transport", choices=["http", "sse", "stdio"], required=True)
    parser.add_argument("--world", type=Path)
    parser.add_argument("port", type=int, nargs="?", default=0)
    asked = parser.parse_args()
    if asked.transport == "sse" and asked.era == "modern":
        parser.error("HTTP+SSE is of the initialize era")
    logging.disable(logging.CRITICAL)
    server = make(asked.era)
    if asked.transport == "stdio":
        asyncio.run(on_stdio(server, asked.era, asked.world))
        return
    import uvicorn

    app = http_app(server, asked.era) if asked.transport == "http" else sse_app(server)
    uvicorn.run(app, host="127.0.0.1", port=asked.port, log_level="critical")


if __name__ == "__main__":
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    main()
