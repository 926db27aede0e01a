"""The official TypeScript client (v2) as the checks see it: it runs in one node process that obeys `node/driver.mjs`."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.bridge.talk import CAPABILITIES, CONTENT, MODERN, ROOTS, TIMEOUT, Heard, Json, Talk
from tests.peers.face import Refused
from tests.peers.node_clients import Node


class NodeTalk(Talk):
    """A client of the TypeScript SDK."""

    not_found = -32602
    """The SDK translates the code itself."""

    def __init__(self, node: Node, number: int) -> None:
        super().__init__()
        self._node = node
        self._number = number

    async def ask(self, op: str, **members: Any) -> Any:
        """Have the client do something."""
        return await self._node.ask(op, connection=self._number, **members)

    async def heard(self) -> Heard:
        return Heard(**await self.ask("heard"))

    async def begin(self, *, declines: bool = False) -> None:
        await self.ask("begin", declines=declines)

    async def raw(self, method: str, params: Json) -> None:
        return None

    async def call(self, name: str, arguments: Json | None = None, *, progress: bool = False) -> Json:
        return await self.ask("call", name=name, arguments=arguments or {}, progress=progress)

    async def cancelled_call(self, name: str, arguments: Json, ready: Callable[[], Awaitable[Any]]) -> None:
        number, future = self._node.begin("call", connection=self._number, name=name, arguments=arguments)
        try:
            await ready()
        finally:
            assert self._node.process.stdin is not None
            self._node.process.stdin.write(json.dumps({"op": "cancel", "target": number}).encode() + b"\n")
            with contextlib.suppress(Refused):
                await asyncio.wait_for(future, TIMEOUT)

    async def prompt(self, name: str, arguments: Json | None = None) -> Json:
        return await self.ask("prompt", name=name, arguments=arguments)

    async def read(self, uri: str) -> Json:
        return await self.ask("read", uri=uri)

    async def complete(self, params: Json) -> Json:
        return await self.ask("complete", params=params)

    async def items(self, method: str) -> list[Json]:
        return await self.ask("items", method=method)

    async def ping(self) -> None:
        await self.ask("ping")

    async def set_level(self, level: str) -> None:
        await self.ask("level", level=level)

    async def listen(self) -> None:
        await self.ask("listen")

    async def watch(self, uris: list[str]) -> None:
        await self.ask("watch", uris=uris)

    async def roots_changed(self) -> None:
        await self.ask("rootsChanged")


@contextlib.asynccontextmanager
async def node_talk(node: Node, url: str, key: str, era: str) -> AsyncIterator[Talk]:
    """Connect the TypeScript client in an era."""
    answers = {"declines": False, "content": CONTENT, "roots": ROOTS}
    headers = {"Authorization": f"Bearer {key}"}
    members = {"mode": era, "url": url, "headers": headers, "capabilities": CAPABILITIES, "answers": answers}
    number, future = node.begin("connect", **members)
    talk = NodeTalk(node, number)
    told = await asyncio.wait_for(future, TIMEOUT)
    talk.revision = told["revision"]
    talk.modern = talk.revision == MODERN
    try:
        yield talk
    finally:
        with contextlib.suppress(Refused):
            await talk.ask("close")
