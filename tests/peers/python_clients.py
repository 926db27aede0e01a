"""`mcp.Client` and `fastmcp.Client`, in the test's own event loop."""

import asyncio
import contextlib
from typing import Any

import fastmcp
import httpx2
import mcp
import mcp_types as types
from fastmcp.client.messages import MessageHandler
from fastmcp.client.transports import StreamableHttpTransport
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tests.peers.face import TIMEOUT, Connection, Kind, Refused

_MEMBERS = {"tools": "tools", "resources": "resources", "templates": "resource_templates", "prompts": "prompts"}
_LISTS = {
    "tools": "list_tools",
    "resources": "list_resources",
    "templates": "list_resource_templates",
    "prompts": "list_prompts",
}


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
    raw = ""
    """What the names of those methods end with that give the protocol's own results."""

    def _raw(self, method: str) -> Any:
        return getattr(self.client, method + self.raw)

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
            return plain(await self._raw("read_resource")(uri))

    async def prompt(self, name: str, arguments: dict[str, str] | None = None) -> dict[str, Any]:
        with refusals():
            return plain(await self._raw("get_prompt")(name, arguments))

    async def complete(
        self, ref: dict[str, str], argument: dict[str, str], context: dict[str, str] | None = None
    ) -> dict[str, Any]:
        with refusals():
            return plain(await self._raw("complete")(_reference(ref), argument, context_arguments=context))

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
    raw = "_mcp"

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


async def open_python(
    kind: Kind, url: str, headers: dict[str, str], agent: str, stack: contextlib.AsyncExitStack
) -> Connection:
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


async def open_fastmcp(
    kind: Kind, url: str, headers: dict[str, str], agent: str, stack: contextlib.AsyncExitStack
) -> Connection:
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
