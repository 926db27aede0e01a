"""A data plane in the test's own process: real but for what is injected, and for its one server, which is a function."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from apps.common.crypto.tokens import digest_key
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.limits import Limiter, LimitSet, MemoryLimiter
from apps.gateway.plane.plane import Plane, Ports
from apps.gateway.plane.store import SnapshotStore
from apps.plugins.hooks import Hooks
from apps.servers.domain import Secrets
from apps.servers.transports.base import UpstreamAnswer, UpstreamRequest
from tests.gateway.pictures import KEYRING, TENANT, definition, picture, server

KEY = "sy_abcd1234_" + "k" * 43
Answer = Callable[[UpstreamRequest], Awaitable[UpstreamAnswer]]


def answered(result: dict, revision: str = "2026-07-28") -> UpstreamAnswer:
    """Return a server's answer."""
    return UpstreamAnswer(result, None, revision, 100, json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode())


class Outside:
    """What the composition root injects: nothing is remembered, everything is accepted."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.rows: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None

    async def append(self, record: Any) -> int:
        """Take a row."""
        self.rows.append(record)
        return len(self.rows)

    def post(self, record: Any) -> None:
        """Take a row."""
        self.rows.append(record)

    async def secrets(self, server_id: str, user_id: str = "") -> Secrets:
        """Give no credentials."""
        return Secrets()

    async def caught_up(self) -> bool:
        """Say that nothing is missing."""
        return True

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Answer a call."""
        return await self.answer(request)

    watch = call

    def stats(self) -> dict[str, Any]:
        """Say that nothing is in flight."""
        return {}

    async def listen(self) -> None:
        """Hear nothing."""

    async def aclose(self, reason: str = "stopped") -> None:
        """End."""


@asynccontextmanager
async def plane_before(
    answer: Answer, *, limiter: Limiter | None = None, limits: LimitSet | None = None, server_facts: Any = None, **config: Any
) -> AsyncIterator[Plane]:
    """Give a plane with one server `first`, whose tool `read` does what `answer` says, and the key `KEY`."""
    outside = Outside(answer)
    store = SnapshotStore()
    facts = server("first", **(server_facts or {}))
    made = picture(servers=(facts,), definitions=(definition("first", "read"),), superuser=True, inherits=True)
    made.keys[digest_key(KEY)] = next(iter(made.keys.values()))  # type: ignore[index]
    if limits is not None:
        made.limits[TENANT] = limits  # type: ignore[index]
    store.swap(made)
    ports = Ports(outside, outside, outside, outside, outside, lambda *_, **__: outside, limiter=limiter or MemoryLimiter())
    plane = Plane(PlaneConfig(**config), store, outside, KEYRING, ports, Hooks())  # type: ignore[arg-type]
    try:
        yield plane
    finally:
        await plane.aclose()


class Request:
    """One HTTP request to a plane, and what it is answered. Until `left` is set its client is there."""

    def __init__(self, plane: Plane, message: Any, path: str = "/mcp/first", method: str = "POST", **headers: str) -> None:
        self.plane = plane
        self.body = json.dumps(message).encode() if message is not None else b""
        sent = {"host": "localhost", "authorization": f"Bearer {KEY}", "content-type": "application/json", **headers}
        sent.setdefault("accept", "application/json, text/event-stream")
        path, _, query = path.partition("?")
        self.scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 4000),
        }
        self.left = asyncio.Event()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.written: list[bytes] = []
        self._given = False

    async def receive(self) -> dict[str, Any]:
        """See ASGI."""
        if not self._given:
            self._given = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        """See ASGI."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.written.append(message["body"])

    async def serve(self) -> "Request":
        """Have it served to its end."""
        serve = self.plane.sse if self.scope["path"].startswith("/sse") else self.plane
        await serve(self.scope, self.receive, self.send)
        return self

    @property
    def messages(self) -> list[dict]:
        """Return the JSON-RPC messages that were written so far."""
        text = b"".join(self.written).decode()
        if text.startswith("{"):
            return [json.loads(text)]
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line.startswith("{")]
