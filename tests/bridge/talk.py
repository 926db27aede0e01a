"""What a client looks like to the checks, whichever SDK it is; all messages are JSON in the protocol's spelling."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

MODERN, LEGACY = "2026-07-28", "2025-11-25"
REVISIONS = {"modern": MODERN, "legacy": LEGACY}
LOG_LEVEL = "io.modelcontextprotocol/logLevel"
TIMEOUT = 20.0

CONTENT: Json = {"name": "Ada", "color": "green"}
"""What the user writes into forms."""
ROOTS: list[Json] = [{"uri": "file:///srv/points", "name": "Points"}, {"uri": "file:///srv/signals"}]
EXTENSIONS: Json = {"com.example/light": {"colours": 3}}
CAPABILITIES: Json = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"tools": {}},
    "roots": {"listChanged": True},
    "extensions": EXTENSIONS,
}


def answer_of(method: str, params: Json, *, declines: bool) -> Json:
    """Return what the client answers to a server's request."""
    if method == "roots/list":
        return {"roots": ROOTS}
    if method == "elicitation/create":
        if declines:
            return {"action": "decline"}
        if params.get("mode") == "url":
            return {"action": "accept"}
        fields = params["requestedSchema"]["properties"]
        return {"action": "accept", "content": {name: CONTENT[name] for name in fields}}
    message = {"role": "assistant", "model": "a-model"}
    if params.get("tools"):
        use = {"type": "tool_use", "id": "use-1", "name": params["tools"][0]["name"], "input": {"of": "points"}}
        return {**message, "content": [use], "stopReason": "toolUse"}
    question = params["messages"][0]["content"]["text"]
    return {**message, "content": {"type": "text", "text": f"About: {question}"}, "stopReason": "endTurn"}


@dataclass
class Heard:
    """What the server has said to a client so far, other than results."""

    asked: list[Json] = field(default_factory=list)
    """Requests, with method and params."""
    logs: list[Json] = field(default_factory=list)
    """Params of log messages."""
    notices: list[Json] = field(default_factory=list)
    """Other notifications, with method and params."""
    steps: list[list[Any]] = field(default_factory=list)
    """Progress, total and message of the calls that wanted to know."""


class Talk:
    """A connected client. What is refused raises `tests.peers.face.Refused`."""

    modern: bool
    revision: str
    not_found = -32002
    """What a missing resource is to a client of the initialize era."""

    def __init__(self) -> None:
        self.stays = False
        """It is used by more than one test."""
        self.changes: dict[str, Any] = {}
        """What was added for it to the server's lists, by kind: a name, or the exception when it was not told of that."""

    async def heard(self) -> Heard:
        """Return what came so far."""
        raise NotImplementedError

    async def begin(self, *, declines: bool = False) -> None:
        """Forget what was heard, watched and wanted, for the next test."""
        raise NotImplementedError

    async def raw(self, method: str, params: Json) -> Json | None:
        """Return a result with all of its members; None where this SDK does not show them."""
        raise NotImplementedError

    async def call(self, name: str, arguments: Json | None = None, *, progress: bool = False) -> Json:
        """Call a tool, answering what the server asks meanwhile."""
        raise NotImplementedError

    async def cancelled_call(self, name: str, arguments: Json, ready: Callable[[], Awaitable[Any]]) -> None:
        """Call a tool and cancel the call once `ready()` is awaited."""
        raise NotImplementedError

    async def prompt(self, name: str, arguments: Json | None = None) -> Json:
        """Get a prompt."""
        raise NotImplementedError

    async def read(self, uri: str) -> Json:
        """Read a resource."""
        raise NotImplementedError

    async def complete(self, params: Json) -> Json:
        """Complete an argument."""
        raise NotImplementedError

    async def items(self, method: str) -> list[Json]:
        """Return the first page of a list, asked anew."""
        raise NotImplementedError

    async def ping(self) -> None:
        """Ping."""
        raise NotImplementedError

    async def set_level(self, level: str) -> None:
        """Want log messages of this level and above from now on."""
        raise NotImplementedError

    async def listen(self) -> None:
        """Be told of changed lists from now on."""
        raise NotImplementedError

    async def watch(self, uris: list[str]) -> None:
        """Be told of these resources, and of no others any more."""
        raise NotImplementedError

    async def roots_changed(self) -> None:
        """Say that the roots have changed."""
        raise NotImplementedError

    async def told(self, name: str, arguments: Json | None = None) -> Any:
        """Call a tool that answers with JSON; return that."""
        result = await self.call(name, arguments)
        assert not result.get("isError"), result
        return json.loads(result["content"][0]["text"])


class Open:
    """Clients that stay connected from test to test, each in a task of its own."""

    def __init__(self) -> None:
        self._tasks: dict[Any, asyncio.Task[None]] = {}
        self._talks: dict[Any, Talk] = {}
        self._leave = asyncio.Event()

    async def get(self, key: Any, connect: Callable[[], AbstractAsyncContextManager[Talk]]) -> Talk:
        """Return the client of this key, connected now if there is none."""
        if key not in self._talks:
            connected: asyncio.Future[Talk] = asyncio.get_running_loop().create_future()
            self._tasks[key] = asyncio.create_task(self._keep(connect, connected))
            await asyncio.wait({connected, self._tasks[key]}, return_when=asyncio.FIRST_COMPLETED)
            if not connected.done():
                self._tasks[key].result()
            self._talks[key] = connected.result()
            self._talks[key].stays = True
        assert not self._tasks[key].done(), "the client has ended"
        return self._talks[key]

    async def _keep(self, connect: Callable[[], AbstractAsyncContextManager[Talk]], connected: "asyncio.Future[Talk]") -> None:
        async with connect() as talk:
            connected.set_result(talk)
            await self._leave.wait()

    async def close(self) -> None:
        """Let all of them go."""
        self._leave.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.gather(*self._tasks.values(), return_exceptions=True)
