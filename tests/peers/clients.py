"""Real MCP clients behind one small face, so that every test runs with each of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.peers.face import KINDS, TIMEOUT, Connection, Kind, Refused
from tests.peers.node_clients import Node, NodeConnection, node
from tests.peers.python_clients import open_fastmcp, open_python, refusals

__all__ = ["KINDS", "Connection", "Kind", "Node", "Refused", "connect", "node"]


@contextlib.asynccontextmanager
async def connect(kind: Kind, url: str, key: str, *, driver: Node | None = None, agent: str = "") -> AsyncIterator[Connection]:
    """Connect a client as its users would, with an API key; `agent` is the name it gives. Raises Refused."""
    agent = agent or f"peer-{kind.name}"
    if kind.mode == "sse":
        url = url.replace("/mcp", "/sse", 1)
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
            opener = open_fastmcp if kind.family == "fastmcp" else open_python
            yield await opener(kind, url, headers, agent, stack)
