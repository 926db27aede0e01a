"""Real MCP clients behind one small face, so that every test runs with each of them.

The Python ones run in the test's event loop; the TypeScript ones in one node process that obeys `node/driver.mjs`.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastmcp
import httpx2
import mcp
import mcp_types as types
from fastmcp.client.messages import MessageHandler
from fastmcp.client.transports import StreamableHttpTransport
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tests import npm
from tests.peers.house import NODE

MODERN, LEGACY = "2026-07-28", "2025-11-25"
TIMEOUT = 20.0
_MEMBERS = {"tools": "tools", "resources": "resources", "templates": "resource_templates", "prompts": "prompts"}
_LISTS = {
    "tools": "list_tools",
    "resources": "list_resources",
    "templates": "list_resource_templates",
    "prompts": "list_prompts",
}


class Refused(Exception):
    """What a client makes of an error; `code`, `data` and `status` are None where the client does not tell."""

    def __init__(self, message: str, *, code: Any = None, data: Any = None, status: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        self.status = status


@dataclass(frozen=True)
class Kind:
    """One client in one mode."""

    name: str
    family: str
    mode: str
    revision: str

    @property
    def modern(self) -> bool:
        """Tell whether it speaks 2026-07-28 with Switchyard."""
        return self.revision == MODERN


KINDS = {
    kind.name: kind
    for kind in (
        Kind("python-auto", "python", "auto", MODERN),
        Kind("python-legacy", "python", "legacy", LEGACY),
        Kind("python-modern", "python", MODERN, MODERN),
        Kind("fastmcp", "fastmcp", "auto", MODERN),
        Kind("fastmcp-legacy", "fastmcp", "legacy", LEGACY),
        Kind("ts2-legacy", "v2", "legacy", LEGACY),
        Kind("ts2-auto", "v2", "auto", MODERN),
        Kind("ts2-modern", "v2", "modern", MODERN),
        Kind("ts1", "v1", "legacy", LEGACY),
    )
}


@dataclass
class Connection:
    """A connected client. Lists and results are JSON, in the protocol's spelling."""

    kind: Kind
    revision: str = ""
    server_info: dict[str, Any] | None = None
    capabilities: dict[str, Any] = field(default_factory=dict)
    instructions: str | None = None
    notices: list[str] = field(default_factory=list)
    """Methods of the notifications that came by themselves."""

    async def items(self, what: str) -> list[dict[str, Any]]:
        """Return all pages of tools, resources, templates or prompts."""
        raise NotImplementedError

    async def call(
        self, name: str, arguments: dict[str, Any] | None = None, *, steps: list[Any] | None = None
    ) -> dict[str, Any]:
        """Call a tool; with `steps`, ask for progress and put (progress, total) there. Raises Refused."""
        raise NotImplementedError

    async def cancelled_call(self, name: str, arguments: dict[str, Any], ready: Any) -> None:
        """Call a tool and cancel the call as this client's users do, once `ready()` is awaited."""
        raise NotImplementedError

    async def read(self, uri: str) -> dict[str, Any]:
        """Read a resource. Raises Refused."""
        raise NotImplementedError

    async def prompt(self, name: str, arguments: dict[str, str] | None = None) -> dict[str, Any]:
        """Get a prompt. Raises Refused."""
        raise NotImplementedError

    async def complete(
        self, ref: dict[str, str], argument: dict[str, str], context: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Complete an argument. Raises Refused."""
        raise NotImplementedError

    async def ping(self) -> None:
        """Ping. Raises Refused."""
        raise NotImplementedError

    async def listen(self) -> None:
        """Be told of changed lists from now on, the way of this client's revision."""
        raise NotImplementedError

    async def text(self, name: str, arguments: dict[str, Any] | None = None) -> str:
        """Return the text of a tool's answer, which must not be an error."""
        result = await self.call(name, arguments)
        assert not result.get("isError"), result
        return result["content"][0]["text"]

    async def names(self, what: str = "tools") -> list[str]:
        """Return what a list names."""
        key = {"resources": "uri", "templates": "uriTemplate"}.get(what, "name")
        return [item[key] for item in await self.items(what)]


def plain(model: Any) -> dict[str, Any]:
    """Return a model of the Python SDK as JSON."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


@contextlib.contextmanager
def refusals() -> Any:
    """Turn the errors of the Python clients, also those that their task groups wrap, into Refused."""
    try:
        yield
    except MCPError as error:
        raise Refused(error.message, code=error.code, data=error.data) from error
    except httpx2.HTTPStatusError as error:
        raise Refused(str(error), status=error.response.status_code) from error
    except BaseExceptionGroup as group:
        for error in _leaves(group):
            if isinstance(error, Refused):
                raise error from group
            if isinstance(error, MCPError):
                raise Refused(error.message, code=error.code, data=error.data) from group
            if isinstance(error, httpx2.HTTPStatusError):
                raise Refused(str(error), status=error.response.status_code) from group
        raise


def _leaves(group: BaseExceptionGroup) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


class PythonConnection(Connection):
    """`mcp.Client`."""

    client: mcp.Client
    stack: contextlib.AsyncExitStack

    async def items(self, what: str) -> list[dict[str, Any]]:
        found, cursor = [], None
        while True:
            with refusals():
                page = await getattr(self.client, _LISTS[what])(cursor=cursor, cache_mode="bypass")
            found += [plain(item) for item in getattr(page, _MEMBERS[what])]
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def call(
        self, name: str, arguments: dict[str, Any] | None = None, *, steps: list[Any] | None = None
    ) -> dict[str, Any]:
        async def progress(done: float, total: float | None, message: str | None) -> None:
            steps.append([done, total])

        with refusals():
            result = await self.client.call_tool(
                name, arguments, progress_callback=progress if steps is not None else None, read_timeout_seconds=TIMEOUT
            )
        return plain(result)

    async def cancelled_call(self, name: str, arguments: dict[str, Any], ready: Any) -> None:
        task = asyncio.create_task(self.call(name, arguments))
        await ready()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def read(self, uri: str) -> dict[str, Any]:
        with refusals():
            return plain(await self.client.read_resource(uri))

    async def prompt(self, name: str, arguments: dict[str, str] | None = None) -> dict[str, Any]:
        with refusals():
            return plain(await self.client.get_prompt(name, arguments))

    async def complete(
        self, ref: dict[str, str], argument: dict[str, str], context: dict[str, str] | None = None
    ) -> dict[str, Any]:
        with refusals():
            return plain(await self.client.complete(_reference(ref), argument, context_arguments=context))

    async def ping(self) -> None:
        with refusals():
            await self.client.send_ping()

    async def listen(self) -> None:
        if self.kind.modern:
            task = asyncio.create_task(self._listen(ready := asyncio.Event()))
            self.stack.push_async_callback(_ended, task)
            await asyncio.wait_for(ready.wait(), TIMEOUT)

    async def _listen(self, ready: asyncio.Event) -> None:
        wanted = {f"{kind}_list_changed": True for kind in ("tools", "resources", "prompts")}
        async with self.client.listen(**wanted) as subscription:
            ready.set()
            async for _ in subscription:
                pass


class FastmcpConnection(PythonConnection):
    """`fastmcp.Client`."""

    client: Any

    async def items(self, what: str) -> list[dict[str, Any]]:
        with refusals():
            return [plain(item) for item in await getattr(self.client, _LISTS[what])()]

    async def call(
        self, name: str, arguments: dict[str, Any] | None = None, *, steps: list[Any] | None = None
    ) -> dict[str, Any]:
        async def progress(done: float, total: float | None, message: str | None) -> None:
            steps.append([done, total])

        with refusals():
            return plain(
                await self.client.call_tool_mcp(
                    name, arguments or {}, progress_handler=progress if steps is not None else None, timeout=TIMEOUT
                )
            )

    async def read(self, uri: str) -> dict[str, Any]:
        with refusals():
            return plain(await self.client.read_resource_mcp(uri))

    async def prompt(self, name: str, arguments: dict[str, str] | None = None) -> dict[str, Any]:
        with refusals():
            return plain(await self.client.get_prompt_mcp(name, arguments))

    async def complete(
        self, ref: dict[str, str], argument: dict[str, str], context: dict[str, str] | None = None
    ) -> dict[str, Any]:
        with refusals():
            return plain(await self.client.complete_mcp(_reference(ref), argument, context_arguments=context))

    async def ping(self) -> None:
        with refusals():
            assert await self.client.ping()

    async def _listen(self, ready: asyncio.Event) -> None:
        from mcp.client.subscriptions import listen

        wanted = {f"{kind}_list_changed": True for kind in ("tools", "resources", "prompts")}
        async with listen(self.client.session, **wanted) as subscription:
            ready.set()
            async for _ in subscription:
                pass


async def _ended(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _reference(ref: dict[str, str]) -> Any:
    if ref["type"] == "ref/prompt":
        return types.PromptReference(type="ref/prompt", name=ref["name"])
    return types.ResourceTemplateReference(type="ref/resource", uri=ref["uri"])


@dataclass
class Node:
    """The node process in which the TypeScript clients run."""

    process: asyncio.subprocess.Process
    waiting: dict[int, "asyncio.Future[Any]"] = field(default_factory=dict)
    connections: dict[int, "NodeConnection"] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(1))
    complaints: list[str] = field(default_factory=list)
    """What it wrote to its standard error."""

    def begin(self, op: str, **members: Any) -> tuple[int, "asyncio.Future[Any]"]:
        """Send a command; return its number and where its answer will be."""
        number = next(self.numbers)
        future = asyncio.get_running_loop().create_future()
        self.waiting[number] = future
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"id": number, "op": op, **members}).encode() + b"\n")
        return number, future

    async def ask(self, op: str, **members: Any) -> Any:
        """Send a command and return its result. Raises Refused."""
        return await asyncio.wait_for(self.begin(op, **members)[1], TIMEOUT)

    async def read(self) -> None:
        """Hand out what the process says."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            message = json.loads(line)
            if "notice" in message:
                self.connections[message["connection"]].notices.append(message["notice"])
                continue
            future = self.waiting.pop(message["id"])
            if future.done():
                continue
            if "error" in message:
                error = message["error"]
                text = f"{error['message']} {error.get('cause', '')}".strip()
                future.set_exception(Refused(text, code=error["code"], data=error["data"], status=error["status"]))
            else:
                future.set_result(message["result"])

    async def read_errors(self) -> None:
        """Keep what the process complains about."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.complaints.append(line.decode(errors="replace").rstrip())


@contextlib.asynccontextmanager
async def node(directory: Path) -> AsyncIterator[Node]:
    """Run the driver that stands in `directory`, beside its node_modules."""
    process = await asyncio.create_subprocess_exec(
        NODE, "driver.mjs",
        cwd=directory, env=npm.environment(), limit=32 * 1024 * 1024,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    found = Node(process)
    readers = [asyncio.create_task(found.read()), asyncio.create_task(found.read_errors())]
    try:
        yield found
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()
        await asyncio.gather(*readers)


class NodeConnection(Connection):
    """A client of the TypeScript SDK."""

    node: Node
    number: int

    async def ask(self, op: str, **members: Any) -> Any:
        return await self.node.ask(op, connection=self.number, **members)

    async def items(self, what: str) -> list[dict[str, Any]]:
        return (await self.ask(what))["items"]

    async def call(
        self, name: str, arguments: dict[str, Any] | None = None, *, steps: list[Any] | None = None
    ) -> dict[str, Any]:
        answer = await self.ask("call", name=name, arguments=arguments or {}, progress=steps is not None)
        if steps is not None:
            steps += answer["steps"]
        return answer["result"]

    async def cancelled_call(self, name: str, arguments: dict[str, Any], ready: Any) -> None:
        number, future = self.node.begin("call", connection=self.number, name=name, arguments=arguments)
        await ready()
        assert self.node.process.stdin is not None
        self.node.process.stdin.write(json.dumps({"op": "cancel", "target": number}).encode() + b"\n")
        with contextlib.suppress(Refused):
            await asyncio.wait_for(future, TIMEOUT)

    async def read(self, uri: str) -> dict[str, Any]:
        return await self.ask("read", uri=uri)

    async def prompt(self, name: str, arguments: dict[str, str] | None = None) -> dict[str, Any]:
        return await self.ask("prompt", name=name, arguments=arguments)

    async def complete(
        self, ref: dict[str, str], argument: dict[str, str], context: dict[str, str] | None = None
    ) -> dict[str, Any]:
        params = {"ref": ref, "argument": argument, **({"context": {"arguments": context}} if context else {})}
        return await self.ask("complete", params=params)

    async def ping(self) -> None:
        await self.ask("ping")

    async def listen(self) -> None:
        await self.ask("listen")

    async def complaints(self) -> list[str]:
        """Return what the client gave to its `onerror`."""
        return await self.ask("complaints")


@contextlib.asynccontextmanager
async def connect(kind: Kind, url: str, key: str, *, driver: Node | None = None, agent: str = "") -> AsyncIterator[Connection]:
    """Connect a client as its users would, with an API key; `agent` is the name it gives. Raises Refused."""
    agent = agent or f"peer-{kind.name}"
    headers = {"Authorization": f"Bearer {key}"}
    if kind.family in ("v1", "v2"):
        assert driver is not None
        members = {"sdk": kind.family, "mode": kind.mode, "url": url, "headers": headers, "name": agent}
        number, future = driver.begin("connect", **members)
        connection = NodeConnection(kind)
        connection.node, connection.number = driver, number
        driver.connections[number] = connection
        told = await asyncio.wait_for(future, TIMEOUT)
        connection.revision, connection.server_info = told["revision"], told["serverInfo"]
        connection.capabilities, connection.instructions = told["capabilities"], told["instructions"]
        try:
            yield connection
        finally:
            with contextlib.suppress(Refused):
                await connection.ask("close")
        return
    with refusals():
        async with contextlib.AsyncExitStack() as stack:
            opener = _fastmcp if kind.family == "fastmcp" else _python
            yield await opener(kind, url, headers, agent, stack)


async def _python(kind: Kind, url: str, headers: dict[str, str], agent: str, stack: contextlib.AsyncExitStack) -> Connection:
    connection = PythonConnection(kind)
    connection.stack = stack

    async def note(message: Any) -> None:
        if not isinstance(message, Exception) and message.method.endswith("list_changed"):
            connection.notices.append(message.method)

    http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=TIMEOUT))
    client = mcp.Client(
        streamable_http_client(url, http_client=http),
        mode=kind.mode,
        client_info=types.Implementation(name=agent, version="1.0"),
        message_handler=note,
    )
    await stack.enter_async_context(client)
    connection.client = client
    connection.revision = client.protocol_version
    connection.server_info = plain(client.server_info) if client.server_info is not None else None
    connection.capabilities = plain(client.server_capabilities)
    connection.instructions = client.instructions
    return connection


async def _fastmcp(kind: Kind, url: str, headers: dict[str, str], agent: str, stack: contextlib.AsyncExitStack) -> Connection:
    connection = FastmcpConnection(kind)
    connection.stack = stack

    class Note(MessageHandler):
        async def on_notification(self, message: Any) -> None:
            if message.method.endswith("list_changed"):
                connection.notices.append(message.method)

    client = fastmcp.Client(
        StreamableHttpTransport(url, headers=headers),
        mode=kind.mode,
        client_info=types.Implementation(name=agent, version="1.0"),
        message_handler=Note(),
        timeout=TIMEOUT,
    )
    await stack.enter_async_context(client)
    connection.client = client
    connection.revision = client.protocol_version or ""
    connection.server_info = plain(client.server_info) if client.server_info is not None else None
    connection.capabilities = plain(client.server_capabilities) if client.server_capabilities is not None else {}
    connection.instructions = client.instructions
    return connection
