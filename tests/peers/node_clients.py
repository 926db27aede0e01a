"""The clients of the TypeScript SDKs, in one node process that obeys `node/driver.mjs`."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import npm
from tests.peers.face import TIMEOUT, Connection, Refused
from tests.peers.house import NODE


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
