"""The conformance suite's server: the tools, resources and prompts it asks for, on the low-level `Server` of the official SDK.

    python fixture.py PORT [--era dual|legacy|modern] [--transport http|sse|stdio] [--tasks] [--json] [--words]

With --words, tools that ask do so in the words of the era that is spoken: by requests in the middle of a call, or as a result.

REQUIRE_TOKEN=… in the environment wants a bearer token. The `x_*` tools are ours: they tell what crossed the gateway.
"""

import argparse
import asyncio
import base64
import json
import logging
import os
import sys
import warnings

warnings.filterwarnings("ignore")
import mcp_types as t
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.subscriptions import (
    PromptsListChanged,
    ResourceUpdated,
    ToolsListChanged,
)

ap = argparse.ArgumentParser()
ap.add_argument("port", type=int, nargs="?", default=0)
ap.add_argument("--era", default="dual")
ap.add_argument("--transport", default="http")
ap.add_argument("--tasks", action="store_true")
ap.add_argument("--json", action="store_true")
ap.add_argument("--words", action="store_true")
a = ap.parse_args()
MODERN = "2026-07-28"
bus = InMemorySubscriptionBus()
CANCELLED = {"n": 0}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
WAV = base64.b64encode(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\0\0\0").decode()


def T(s):
    return t.TextContent(type="text", text=s)


IMG = t.ImageContent(type="image", data=PNG, mime_type="image/png")


def res(uri, text, mime="text/plain"):
    return t.EmbeddedResource(type="resource", resource=t.TextResourceContents(uri=uri, mime_type=mime, text=text))


def ok(*c, **k):
    return t.CallToolResult(content=list(c), **k)


def obj(req=(), **p):
    return {"type": "object", "properties": p, **({"required": list(req)} if req else {})}


S = {"type": "string"}


def form(msg, **props):
    return t.ElicitRequest(params=t.ElicitRequestFormParams(message=msg, requested_schema=obj(props.keys(), **props)))


def ask_name(msg="What is your name?"):
    return form(msg, name=S)


def sample(q, n):
    return t.CreateMessageRequest(
        params=t.CreateMessageRequestParams(messages=[t.SamplingMessage(role="user", content=T(q))], max_tokens=n)
    )


def need(reqs=None, state=None):
    return t.InputRequiredResult(input_requests=reqs, request_state=state)


def field(r, k):
    return (r.content or {}).get(k) if isinstance(r, t.ElicitResult) else None


TOOLS = {}


def tool(schema=None, desc=None, **extra):
    def d(f):
        TOOLS[f.__name__] = (
            f,
            t.Tool(
                name=f.__name__, description=desc or (f.__doc__ or f.__name__).strip(), input_schema=schema or obj(), **extra
            ),
        )
        return f

    return d


for n, c in dict(
    test_simple_text=[T("This is a simple text response for testing.")],
    test_image_content=[IMG],
    test_audio_content=[t.AudioContent(type="audio", data=WAV, mime_type="audio/wav")],
    test_embedded_resource=[res("test://embedded-resource", "This is an embedded resource content.")],
    test_multiple_content_types=[
        T("Multiple content types test:"),
        IMG,
        res("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
    ],
).items():

    def mk(c):
        async def f(ctx, a, p):
            return ok(*c)

        return f

    g = mk(c)
    g.__name__ = n
    tool(desc="static content")(g)


@tool()
async def test_tool_with_logging(ctx, a, p):
    for i, m in enumerate(("Tool execution started", "Tool processing data", "Tool execution completed")):
        if i:
            await asyncio.sleep(0.05)
        await ctx.session.send_log_message("info", m, related_request_id=ctx.request_id)
    return ok(T("logged"))


@tool()
async def test_tool_with_progress(ctx, a, p):
    for i, v in enumerate((0, 50, 100)):
        if i:
            await asyncio.sleep(0.05)
        await ctx.session.report_progress(v, 100, f"Completed step {v} of 100")
    return ok(T("progressed"))


@tool()
async def test_error_handling(ctx, a, p):
    return ok(T("This tool intentionally returns an error for testing"), is_error=True)


@tool(obj(["prompt"], prompt=S))
async def test_sampling(ctx, a, p):
    try:
        r = await ctx.session.create_message(
            messages=[t.SamplingMessage(role="user", content=T(a["prompt"]))], max_tokens=100, related_request_id=ctx.request_id
        )
    except Exception as e:
        return ok(T(f"Sampling not supported or error: {e}"), is_error=True)
    return ok(T("LLM response: " + getattr(r.content, "text", "?")))


async def elicit(ctx, msg, schema):
    return await ctx.session.elicit_form(msg, schema, related_request_id=ctx.request_id)


async def ask_now(ctx, request):
    """Make a request to the client in the middle of a call, as servers of the initialize era do."""
    kinds = {t.ElicitRequest: t.ElicitResult, t.CreateMessageRequest: t.CreateMessageResult, t.ListRootsRequest: t.ListRootsResult}
    related = ServerMessageMetadata(related_request_id=ctx.request_id)
    return await ctx.session.send_request(request, kinds[type(request)], metadata=related)


@tool(obj(["message"], message=S))
async def test_elicitation(ctx, a, p):
    try:
        r = await elicit(ctx, a["message"], obj(["response"], response={**S, "description": "User's response"}))
    except Exception as e:
        return ok(T(f"Elicitation not supported or error: {e}"), is_error=True)
    return ok(T(f"User response: action={r.action}, content={json.dumps(r.content)}"))


DEFAULTS = obj(
    (),
    name={**S, "default": "John Doe"},
    age={"type": "integer", "default": 30},
    score={"type": "number", "default": 95.5},
    status={**S, "enum": ["active", "inactive", "pending"], "default": "active"},
    verified={"type": "boolean", "default": True},
)
titled = [{"const": f"value{i}", "title": f"Option {i}"} for i in (1, 2, 3)]
opts = ["option1", "option2", "option3"]
ENUMS = obj(
    (),
    untitledSingle={**S, "enum": opts},
    titledSingle={**S, "oneOf": titled},
    legacyEnum={**S, "enum": ["opt1", "opt2", "opt3"], "enumNames": ["One", "Two", "Three"]},
    untitledMulti={"type": "array", "items": {**S, "enum": opts}},
    titledMulti={"type": "array", "items": {"anyOf": titled}},
)
for n, sch in (("test_elicitation_sep1034_defaults", DEFAULTS), ("test_elicitation_sep1330_enums", ENUMS)):

    def mk2(sch):
        async def f(ctx, a, p):
            r = await elicit(ctx, "Please provide values", sch)
            return ok(T(f"Elicitation completed: action={r.action}, content={json.dumps(r.content)}"))

        return f

    g = mk2(sch)
    g.__name__ = n
    tool(desc="elicitation schema fixture")(g)


@tool(obj((), region={**S, "x-mcp-header": "Region"}, query=S))
async def test_x_mcp_header(ctx, a, p):
    return ok(T(f"region={a.get('region')}"))


@tool()
async def test_missing_capability(ctx, a, p):
    caps = ctx.session.client_capabilities
    if caps is None or caps.sampling is None:
        raise MCPError(
            t.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "Missing required client capability",
            {"requiredCapabilities": {"sampling": {}}},
        )
    return ok(T("has sampling"))


@tool()
async def test_input_required_result_elicitation(ctx, a, p):
    n = field((p.input_responses or {}).get("user_name"), "name")
    return ok(T(f"Hello, {n}!")) if isinstance(n, str) else need({"user_name": ask_name()})


@tool()
async def test_input_required_result_sampling(ctx, a, p):
    r = (p.input_responses or {}).get("capital_question")
    return (
        ok(T("Model said: " + getattr(r.content, "text", "?")))
        if isinstance(r, t.CreateMessageResult)
        else need({"capital_question": sample("What is the capital of France?", 100)})
    )


@tool()
async def test_input_required_result_list_roots(ctx, a, p):
    r = (p.input_responses or {}).get("client_roots")
    return (
        ok(T(f"Client exposed {len(r.roots)} root(s)."))
        if isinstance(r, t.ListRootsResult)
        else need({"client_roots": t.ListRootsRequest()})
    )


def CONFIRM():
    return {"confirm": form("Please confirm", ok={"type": "boolean"})}


@tool()
async def test_input_required_result_request_state(ctx, a, p):
    return (
        ok(T("state-ok: confirmed"))
        if p.request_state == "st-1" and "confirm" in (p.input_responses or {})
        else need(CONFIRM(), "st-1")
    )


@tool()
async def test_input_required_result_tampered_state(ctx, a, p):
    return need(CONFIRM(), "st-t") if p.request_state is None else ok(T("state-ok: " + p.request_state))


@tool()
async def test_input_required_result_multiple_inputs(ctx, a, p):
    want = {"user_name": ask_name(), "greeting": sample("Generate a greeting", 50), "client_roots": t.ListRootsRequest()}
    return ok(T("All inputs received.")) if want.keys() <= (p.input_responses or {}).keys() else need(want, "multi")


@tool()
async def test_input_required_result_multi_round(ctx, a, p):
    st, r = json.loads(p.request_state or '{"n": 0}'), p.input_responses or {}
    if st["n"] == 1 and (nm := field(r.get("step1"), "name")):
        return need({"step2": form("Step 2: What is your favorite color?", color=S)}, json.dumps({"n": 2, "name": nm}))
    if st["n"] == 2 and (col := field(r.get("step2"), "color")):
        return ok(T(f"{st['name']} likes {col}."))
    return need({"step1": ask_name("Step 1: What is your name?")}, json.dumps({"n": 1}))


@tool()
async def test_input_required_result_capabilities(ctx, a, p):
    c = ctx.session.client_capabilities
    q = {}
    if c is not None and c.sampling is not None:
        q["sample"] = sample("Say hello", 50)
    if c is not None and c.elicitation is not None:
        q["ask"] = ask_name()
    return need(q, "caps")


@tool(
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": S, "city": S}}},
        "properties": {
            "name": S,
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {**S, "enum": ["phone", "email"]},
            "phone": S,
            "email": S,
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    }
)
async def json_schema_2020_12_tool(ctx, a, p):
    return ok(T("ok"))


@tool()
async def test_reconnection(ctx, a, p):
    if ctx.close_sse_stream:
        await ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    return ok(T("Reconnection test completed"))


@tool()
async def test_trigger_tool_change(ctx, a, p):
    await bus.publish(ToolsListChanged())
    return ok(T("tool list changed"))


@tool()
async def test_trigger_prompt_change(ctx, a, p):
    await bus.publish(PromptsListChanged())
    return ok(T("prompt list changed"))


@tool()
async def test_logging_tool(ctx, a, p):
    await ctx.session.send_log_message("info", "not for everybody", related_request_id=ctx.request_id)
    return ok(T("logged"))


@tool()
async def test_streaming_elicitation(ctx, a, p):
    await ctx.session.report_progress(1, 2, "about to ask")
    if ctx.protocol_version != MODERN:
        r = await elicit(ctx, "What is your name?", obj(["name"], name=S))
        return ok(T(f"Hello, {(r.content or {}).get('name')}!"))
    n = field((p.input_responses or {}).get("user_name"), "name")
    return ok(T(f"Hello, {n}!")) if isinstance(n, str) else need({"user_name": ask_name()})


# --- x_*: what crossed the gateway? ---
@tool(obj(["seconds"], seconds={"type": "number"}))
async def x_slow(ctx, a, p):
    try:
        await asyncio.sleep(a["seconds"])
    except BaseException:
        CANCELLED["n"] += 1
        raise
    return ok(T("slept"))


@tool()
async def x_cancel_count(ctx, a, p):
    return ok(T(str(CANCELLED["n"])))


@tool()
async def x_echo_meta(ctx, a, p):
    h = dict(ctx.request.headers) if ctx.request is not None and hasattr(ctx.request, "headers") else {}
    return ok(
        T(json.dumps({"meta": (ctx.params or {}).get("_meta"), "version": ctx.protocol_version, "headers": h}, default=str))
    )


@tool()
async def x_touch_resource(ctx, a, p):
    await bus.publish(ResourceUpdated(uri="test://watched-resource"))
    if ctx.protocol_version != MODERN:
        await ctx.session.send_resource_updated("test://watched-resource")
    return ok(T("touched"))


@tool()
async def x_tools_changed(ctx, a, p):
    await bus.publish(ToolsListChanged())
    if ctx.protocol_version != MODERN:
        await ctx.session.send_tool_list_changed()
    return ok(T("announced"))


@tool(obj(["kb"], kb={"type": "integer"}))
async def x_big(ctx, a, p):
    return ok(T("x" * (a["kb"] * 1024)))


@tool()
async def x_elicit_twice(ctx, a, p):
    r = [(await elicit(ctx, m, obj(["response"], response=S))).action for m in ("first?", "second?")]
    return ok(T("/".join(r)))


async def list_tools(ctx, p):
    return t.ListToolsResult(tools=[x for _, x in TOOLS.values()], ttl_ms=0, cache_scope="private")


async def in_the_words_of_its_era(ctx, run, p):
    """Run what asks: with --words, what one era has no words for is said in those of the other."""
    r = await run(p)
    while a.words and ctx.protocol_version != MODERN and isinstance(r, t.InputRequiredResult):
        asked = r.input_requests or {}
        said = await asyncio.gather(*(ask_now(ctx, v) for v in asked.values()))
        answers = dict(zip(asked, said, strict=True))
        p = p.model_copy(update={"input_responses": answers, "request_state": r.request_state})
        r = await run(p)
    return r


async def call_tool(ctx, p):
    if p.name not in TOOLS:
        return ok(T(f"Unknown tool: {p.name}"), is_error=True)

    async def run(p):
        if a.words and ctx.protocol_version == MODERN and p.name in PUSHING:
            return PUSHING[p.name](p)
        return await TOOLS[p.name][0](ctx, p.arguments or {}, p)

    return await in_the_words_of_its_era(ctx, run, p)


def pushing(request, said):
    """A tool that pushes its request, as it has to ask in 2026-07-28."""

    def f(p):
        r = (p.input_responses or {}).get("asked")
        return need({"asked": request(p.arguments or {})}) if r is None else ok(T(said(r)))

    return f


def answered(r):
    return f"action={r.action}, content={json.dumps(r.content)}"


PUSHING = {
    "test_sampling": pushing(lambda g: sample(g["prompt"], 100), lambda r: "LLM response: " + getattr(r.content, "text", "?")),
    "test_elicitation": pushing(
        lambda g: form(g["message"], response={**S, "description": "User's response"}),
        lambda r: "User response: " + answered(r),
    ),
    "test_elicitation_sep1034_defaults": pushing(
        lambda g: form_of(DEFAULTS), lambda r: "Elicitation completed: " + answered(r)
    ),
    "test_elicitation_sep1330_enums": pushing(lambda g: form_of(ENUMS), lambda r: "Elicitation completed: " + answered(r)),
}


def form_of(schema):
    return t.ElicitRequest(params=t.ElicitRequestFormParams(message="Please provide values", requested_schema=schema))


RES = {
    "test://static-text": ("static_text", "text/plain"),
    "test://static-binary": ("static_binary", "image/png"),
    "test://watched-resource": ("watched", "text/plain"),
}


async def list_resources(ctx, p):
    return t.ListResourcesResult(
        resources=[t.Resource(uri=u, name=n, description=f"{n} fixture", mime_type=m) for u, (n, m) in RES.items()],
        ttl_ms=0,
        cache_scope="private",
    )


async def list_templates(ctx, p):
    return t.ListResourceTemplatesResult(
        resource_templates=[
            t.ResourceTemplate(
                uri_template="test://template/{id}/data",
                name="template",
                description="template fixture",
                mime_type="application/json",
            )
        ],
        ttl_ms=0,
        cache_scope="private",
    )


async def read_resource(ctx, p):
    u = str(p.uri)
    if u == "test://static-binary":
        c = t.BlobResourceContents(uri=u, mime_type="image/png", blob=PNG)
    elif u in RES:
        c = t.TextResourceContents(
            uri=u,
            mime_type="text/plain",
            text="This is the content of the static text resource." if "static" in u else "Watched resource content",
        )
    elif u.startswith("test://template/") and u.endswith("/data") and u.count("/") == 4:
        i = u.split("/")[3]
        c = t.TextResourceContents(
            uri=u, mime_type="application/json", text=json.dumps({"id": i, "templateTest": True, "data": f"Data for ID: {i}"})
        )
    else:
        raise MCPError(t.INVALID_PARAMS if ctx.protocol_version == MODERN else -32002, "Resource not found", {"uri": u})
    return t.ReadResourceResult(contents=[c], ttl_ms=0, cache_scope="private")


def UM(c):
    return t.PromptMessage(role="user", content=c)


def ARG(*n):
    return [t.PromptArgument(name=x, description=x, required=True) for x in n]


PROMPTS = {
    "test_simple_prompt": [],
    "test_prompt_with_arguments": ARG("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ARG("resourceUri"),
    "test_prompt_with_image": [],
    "test_input_required_result_prompt": [],
}


async def list_prompts(ctx, p):
    return t.ListPromptsResult(
        prompts=[t.Prompt(name=n, description=f"{n} fixture", arguments=x) for n, x in PROMPTS.items()],
        ttl_ms=0,
        cache_scope="private",
    )


async def get_prompt(ctx, p):
    return await in_the_words_of_its_era(ctx, make_prompt, p)


async def make_prompt(p):
    g = p.arguments or {}
    if p.name == "test_simple_prompt":
        m = [UM(T("This is a simple prompt for testing."))]
    elif p.name == "test_prompt_with_arguments":
        m = [UM(T(f"Prompt with arguments: arg1='{g.get('arg1')}', arg2='{g.get('arg2')}'"))]
    elif p.name == "test_prompt_with_embedded_resource":
        m = [
            UM(res(g.get("resourceUri", "test://x"), "Embedded resource content for testing.")),
            UM(T("Please process the embedded resource above.")),
        ]
    elif p.name == "test_prompt_with_image":
        m = [UM(IMG), UM(T("Please analyze the image above."))]
    elif p.name == "test_input_required_result_prompt":
        c = field((p.input_responses or {}).get("user_context"), "context")
        if c is None:
            return need({"user_context": form("What context should the prompt use?", context=S)})
        m = [UM(T(f"Use the following context: {c}"))]
    else:
        raise MCPError(t.INVALID_PARAMS, f"Unknown prompt: {p.name}")
    return t.GetPromptResult(messages=m)


async def empty(ctx, p):
    return t.EmptyResult()


async def complete(ctx, p):
    return t.CompleteResult(completion=t.Completion(values=[], total=0, has_more=False))


srv = Server(
    "own-everything-fixture",
    version="1.0.0",
    on_list_tools=list_tools,
    on_call_tool=call_tool,
    on_list_resources=list_resources,
    on_list_resource_templates=list_templates,
    on_read_resource=read_resource,
    on_subscribe_resource=empty,
    on_unsubscribe_resource=empty,
    on_subscriptions_listen=ListenHandler(bus),
    on_list_prompts=list_prompts,
    on_get_prompt=get_prompt,
    on_completion=complete,
    on_set_logging_level=empty,
    get_tool_input_schema=lambda n: TOOLS[n][1].input_schema if n in TOOLS else None,
)
srv.middleware.append(
    RequestStateBoundary(
        RequestStateSecurity(keys=[b"own-fixture-request-state-key-0123456789"]), default_audience="own-fixture"
    )
)


class Events(EventStore):
    def __init__(s):
        s.log = []

    async def store_event(s, stream_id, message):
        s.log.append((stream_id, message))
        return str(len(s.log))

    async def replay_events_after(s, last, send):
        i = int(last)
        sid = s.log[i - 1][0] if 0 < i <= len(s.log) else None
        for k, (x, m) in enumerate(s.log[i:], i + 1):
            if x == sid and m is not None:
                await send(EventMessage(m, str(k)))
        return sid


if a.transport == "stdio":
    logging.disable(logging.CRITICAL)
    from mcp.server.stdio import stdio_server

    async def go():
        async with stdio_server() as (r, w):
            await srv.run(
                r,
                w,
                srv.create_initialization_options(
                    NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
                ),
            )

    asyncio.run(go())
    sys.exit()
import uvicorn

if a.transport == "sse":
    from mcp.server.sse import SseServerTransport
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Mount, Route

    sse = SseServerTransport("/messages/")

    async def h(request):
        async with sse.connect_sse(request.scope, request.receive, request._send) as (r, w):
            await srv.run(r, w, srv.create_initialization_options())
        return Response()

    uvicorn.run(
        Starlette(routes=[Route("/sse", h), Mount("/messages/", app=sse.handle_post_message)]),
        host="127.0.0.1",
        port=a.port,
        log_level="warning",
    )
    sys.exit()
inner = srv.streamable_http_app(event_store=Events(), retry_interval=100, json_response=a.json)
HS = (b"2024-11-05", b"2025-03-26", b"2025-06-18", b"2025-11-25")


async def reply(send, status, o):
    b = json.dumps(o).encode() if o is not None else b""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(b)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": b})


async def era_app(scope, receive, send):
    if scope["type"] != "http" or a.era == "dual":
        return await inner(scope, receive, send)
    pv = next((v for k, v in scope["headers"] if k == b"mcp-protocol-version"), None)
    if a.era == "legacy" and pv is not None and pv not in HS:
        return await reply(
            send,
            400,
            {
                "jsonrpc": "2.0",
                "id": "server-error",
                "error": {
                    "code": -32600,
                    "message": f"Bad Request: Unsupported protocol version: {pv.decode()}. Supported versions: {', '.join(x.decode() for x in HS)}",
                },
            },
        )
    if a.era == "modern" and (pv is None or pv in HS):
        if scope["method"] != "POST":
            return await reply(send, 405, None)
        body = b""
        while True:
            m = await receive()
            body += m.get("body", b"")
            if not m.get("more_body"):
                break
        try:
            d = json.loads(body)
        except Exception:
            d = {}
        return await reply(
            send,
            400,
            {
                "jsonrpc": "2.0",
                "id": d.get("id"),
                "error": {
                    "code": -32022,
                    "message": "Unsupported protocol version (this server supports 2026-07-28 only)",
                    "data": {
                        "supported": [MODERN],
                        "requested": (d.get("params") or {}).get("protocolVersion") or (pv or b"").decode(),
                    },
                },
            },
        )
    await inner(scope, receive, send)


app = era_app
if a.tasks:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from tasks_layer import layer

    app = layer(app)
if os.environ.get("REQUIRE_TOKEN"):
    _in = app

    async def app(scope, receive, send):
        if (
            scope["type"] == "http"
            and dict(scope["headers"]).get(b"authorization") != b"Bearer " + os.environ["REQUIRE_TOKEN"].encode()
        ):
            return await reply(send, 401, {"error": "unauthorized"})
        await _in(scope, receive, send)


uvicorn.run(app, host="127.0.0.1", port=a.port, log_level="warning", http="h11")
