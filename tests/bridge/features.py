"""What the peer can do: a tool, a resource or a prompt for each thing that a client and a server say to each other.

Written once for both eras. `ask` sends requests on the call's own stream before 2026-07-28; since then the answer is
`input_required`, and the call comes again with what the client said.
"""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from pydantic import BaseModel, ConfigDict

from tests.bridge.world import STATE

Json = dict[str, Any]
Context = ServerRequestContext[Any, Any]
Tool = Callable[[Context, Json], Awaitable[types.CallToolResult]]

MODERN = "2026-07-28"
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
QUIET = "warning"
"""What a session hears of the log before it has asked for a level."""
STRING: Json = {"type": "string"}
PICTURE = base64.b64encode(bytes(range(256)) * 200).decode()
NEEDS = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
NOT_FOUND_LEGACY = -32002
EXTRA: Json = {"com.example/extra": {"deep": [1, None, {"ü": "\n"}]}}
"""Members that no revision knows."""


class Raw(BaseModel):
    """A message that goes out as it is written, with members that the SDK's models do not have."""

    method: str
    params: Json | None = None


class Loose(BaseModel):
    """An answer of the client's with all of its members."""

    model_config = ConfigDict(extra="allow")


class InputRequired(Exception):
    """The answer of a modern server that needs something first."""

    def __init__(self, requests: Json, state: str) -> None:
        super().__init__(", ".join(requests))
        self.requests = requests
        self.state = state

    def result(self) -> types.InputRequiredResult:
        """Return it as the result of the call."""
        return types.InputRequiredResult.model_validate({"inputRequests": self.requests, "requestState": self.state})


TOOLS: dict[str, tuple[Tool, types.Tool]] = {}


def modern(ctx: Context) -> bool:
    """Tell whether a request came in the modern era."""
    return ctx.protocol_version == MODERN


def session_of(ctx: Context) -> str:
    """Return the name of the session that a legacy request came in."""
    request = ctx.request
    if request is None:
        return "the only one"
    return request.headers.get("mcp-session-id") or request.query_params.get("session_id", "")


def tool(*, schema: Json | None = None, output: Json | None = None, **properties: Any) -> Callable[[Tool], Tool]:
    """Register a tool; `properties` are its required arguments."""

    def register(run: Tool) -> Tool:
        given = schema or {"type": "object", "properties": properties, "required": sorted(properties)}
        listed = types.Tool(name=run.__name__, description=run.__doc__ or "", input_schema=given, output_schema=output)
        TOOLS[run.__name__] = (run, listed)
        return run

    return register


def text(said: str, **members: Any) -> types.CallToolResult:
    """Return a result of one text."""
    return types.CallToolResult(content=[types.TextContent(type="text", text=said)], **members)


def told(value: Any) -> types.CallToolResult:
    """Return JSON as the text of a result."""
    return text(json.dumps(value))


# Asking the client


def form(message: str, **properties: Any) -> Json:
    """Return the request for a form."""
    schema = {"type": "object", "properties": properties, "required": sorted(properties)}
    return {"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}}


def visit(ctx: Context, url: str, id: str) -> Json:
    """Return the request to open a page; its id is of the initialize era alone."""
    params = {"mode": "url", "message": "Please agree there.", "url": url}
    return {"method": "elicitation/create", "params": params if modern(ctx) else {**params, "elicitationId": id}}


def sample(question: str, **more: Any) -> Json:
    """Return the request for a message of the client's model."""
    messages = [{"role": "user", "content": {"type": "text", "text": question}}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": 50, **more}}


ROOTS: Json = {"method": "roots/list", "params": {}}


async def ask(ctx: Context, **inputs: Json) -> dict[str, Json]:
    """Return what the client answers to each input, all of them asked at once. Raises MCPError for what it has not declared.

    Raises InputRequired in the modern era until the call comes with the answers.
    """
    declared = ctx.session.client_capabilities
    for one in inputs.values():
        need = NEEDS[one["method"]]
        if declared is None or getattr(declared, need) is None:
            raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, f"The client has not declared {need}.")
    if not modern(ctx):
        answers = await asyncio.gather(*(push(ctx, one) for one in inputs.values()))
        return dict(zip(inputs, answers, strict=True))
    params = ctx.params or {}
    known: dict[str, Json] = json.loads(base64.b64decode(params.get("requestState", "e30=")))
    known |= params.get("inputResponses") or {}
    missing = {key: one for key, one in inputs.items() if key not in known}
    if missing:
        raise InputRequired(missing, base64.b64encode(json.dumps(known).encode()).decode())
    return {key: known[key] for key in inputs}


async def push(ctx: Context, request: Json) -> Json:
    """Send a request on the call's stream and return the client's answer."""
    related = ServerMessageMetadata(related_request_id=ctx.request_id)
    answer = await ctx.session.send_request(Raw(**request), Loose, metadata=related)
    return answer.model_dump(mode="json", by_alias=True)


# Tools


@tool(n={"type": "integer"}, output={"type": "object", "properties": {"more": {"type": "integer"}}, "required": ["more"]})
async def plain(ctx: Context, given: Json) -> types.CallToolResult:
    """Add one."""
    return text(f"{given['n'] + 1}", structured_content={"more": given["n"] + 1, "ü": [None, 1.5]})


@tool()
async def structured_list(ctx: Context, given: Json) -> types.CallToolResult:
    """Structured content that is no object."""
    return text("[1, 2]", structured_content=[1, 2])


@tool()
async def progress(ctx: Context, given: Json) -> types.CallToolResult:
    """Three steps."""
    for step in (1, 2, 3):
        await ctx.session.report_progress(step, 3, f"step {step}")
    return text("arrived")


@tool()
async def logs(ctx: Context, given: Json) -> types.CallToolResult:
    """Log at several levels."""
    wanted = LEVELS.index(STATE.levels.get(session_of(ctx), QUIET))
    for level in ("debug", "info", "warning", "error"):
        if modern(ctx) or LEVELS.index(level) >= wanted:
            await ctx.session.send_log_message(level, {"said": level}, "bridge", related_request_id=ctx.request_id)
    return text("logged")


@tool()
async def elicit_form(ctx: Context, given: Json) -> types.CallToolResult:
    """Ask for a name."""
    return told(await ask(ctx, who=form("Who goes there?", name=STRING)))


@tool()
async def elicit_loosely(ctx: Context, given: Json) -> types.CallToolResult:
    """Ask for a name without saying for which call: on the stream of the session, where there is one."""
    answer = await ctx.session.send_request(Raw(**form("Who goes there?", name=STRING)), Loose)
    return told(answer.model_dump(mode="json", by_alias=True))


@tool(id=STRING)
async def elicit_url(ctx: Context, given: Json) -> types.CallToolResult:
    """Send the user to a page."""
    answers = await ask(ctx, consent=visit(ctx, f"https://example.org/agree/{given['id']}", given["id"]))
    if not modern(ctx):
        await ctx.session.send_elicit_complete(given["id"], related_request_id=ctx.request_id)
    return told(answers)


@tool(id=STRING)
async def url_required(ctx: Context, given: Json) -> types.CallToolResult:
    """Refuse until a page was visited."""
    id = given["id"]
    await STATE.catch_up()
    if id in STATE.done["visited"]:
        return text("visited")
    await STATE.happen("visited", id)
    page = {"mode": "url", "elicitationId": id, "url": f"https://example.org/visit/{id}", "message": "Please log in there."}
    raise MCPError(types.URL_ELICITATION_REQUIRED, "Visit the page first.", {"elicitations": [page]})


@tool(question=STRING)
async def sampling(ctx: Context, given: Json) -> types.CallToolResult:
    """Let the client's model answer."""
    return told(await ask(ctx, model=sample(given["question"], systemPrompt="Be short.", temperature=0.5)))


@tool()
async def sampling_tools(ctx: Context, given: Json) -> types.CallToolResult:
    """Let the client's model use a tool."""
    tools = [{"name": "lookup", "description": "Looks up.", "inputSchema": {"type": "object", "properties": {"of": STRING}}}]
    return told(await ask(ctx, model=sample("Look it up.", tools=tools, toolChoice={"mode": "required"})))


@tool()
async def roots(ctx: Context, given: Json) -> types.CallToolResult:
    """Ask for the client's roots."""
    return told(await ask(ctx, roots=ROOTS))


@tool()
async def root_changes(ctx: Context, given: Json) -> types.CallToolResult:
    """Tell how often this session's client said that its roots have changed."""
    return told(STATE.root_changes[session_of(ctx)])


@tool()
async def inputs_together(ctx: Context, given: Json) -> types.CallToolResult:
    """Ask for three things at once."""
    return told(await ask(ctx, who=form("Who goes there?", name=STRING), model=sample("Together?"), roots=ROOTS))


@tool()
async def inputs_in_a_row(ctx: Context, given: Json) -> types.CallToolResult:
    """Ask, and ask again."""
    first = await ask(ctx, who=form("Who goes there?", name=STRING))
    name = first["who"]["content"]["name"]
    return told(first | await ask(ctx, light=form(f"Which light does {name} see?", color=STRING)))


@tool()
async def who(ctx: Context, given: Json) -> types.CallToolResult:
    """Tell what is known of the client."""
    declared = ctx.session.client_capabilities
    return told(declared.model_dump(mode="json", by_alias=True, exclude_none=True) if declared is not None else None)


@tool(token=STRING)
async def wait(ctx: Context, given: Json) -> types.CallToolResult:
    """Wait until cancelled."""
    await STATE.happen("waiting", given["token"])
    try:
        await asyncio.sleep(60)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await STATE.happen("cancelled", given["token"])
        raise
    return text("nobody cancelled")


@tool()
async def waits(ctx: Context, given: Json) -> types.CallToolResult:
    """Tell who waited and who was cancelled."""
    await STATE.catch_up()
    return told(STATE.done)


@tool(kind=STRING, name=STRING)
async def grow(ctx: Context, given: Json) -> types.CallToolResult:
    """Have one more tool, prompt or resource, and announce it to everybody."""
    await STATE.happen("grown", given["kind"], given["name"])
    return text("grown")


@tool(uri=STRING)
async def touch(ctx: Context, given: Json) -> types.CallToolResult:
    """Change a resource, and tell those who watch it."""
    await STATE.happen("touched", given["uri"])
    return text("touched")


@tool()
async def fail(ctx: Context, given: Json) -> types.CallToolResult:
    """Fail as tools do."""
    return text("The signal stands at halt.", is_error=True, structured_content={"signal": "halt"})


@tool()
async def refuse(ctx: Context, given: Json) -> types.CallToolResult:
    """Fail as JSON-RPC does."""
    raise MCPError(4711, "The points are frozen.", {"points": [3, {"deep": None}]})


@tool()
async def binary(ctx: Context, given: Json) -> types.CallToolResult:
    """Give bytes in every way there is."""
    blob = types.BlobResourceContents(uri="bridge://bytes", mime_type="application/x-points", blob=PICTURE)
    return types.CallToolResult(
        content=[
            types.ImageContent(type="image", data=PICTURE, mime_type="image/png"),
            types.AudioContent(type="audio", data=PICTURE, mime_type="audio/wav"),
            types.EmbeddedResource(type="resource", resource=blob),
            types.ResourceLink(type="resource_link", uri="bridge://bytes", name="bytes"),
        ]
    )


@tool()
async def ping_client(ctx: Context, given: Json) -> types.CallToolResult:
    """Ping the client on the call's stream."""
    await push(ctx, {"method": "ping"})
    return text("pong")


@tool(schema={"type": "object", "properties": {"region": {**STRING, "x-mcp-header": "Region"}}, "required": ["region"]})
async def region(ctx: Context, given: Json) -> types.CallToolResult:
    """Want an argument in a header too."""
    header = ctx.request.headers.get("mcp-param-region") if ctx.request is not None else None
    return told({"argument": given["region"], "header": header})


# The same for what is answered word for word; see `peer.untouched`


@tool(schema={"type": "object"})
async def mirror(ctx: Context, given: Json) -> types.CallToolResult:
    """Answer what the arguments say: `notices` first, then `error` or `result`."""
    raise AssertionError("answered before it gets here")


@tool(schema={"type": "object"})
async def mirror_input(ctx: Context, given: Json) -> types.CallToolResult:
    """Ask the client `asked`, word for word; answer what it answers."""
    raise AssertionError("answered before it gets here")
