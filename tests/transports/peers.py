"""The other sides that transports are tested against: raw HTTP peers under full control, real MCP servers, a recorder."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.common.http import NetworkPolicy
from apps.servers.domain import EndpointFacts, Secrets, ServerFacts
from apps.servers.transports import open_upstream
from apps.servers.transports.base import Upstream, UpstreamRequest

LOOPBACK = NetworkPolicy.parse(["loopback"])
FIXTURE = Path(__file__).parents[1] / "conformance" / "fixture.py"
MODERN = "2026-07-28"


class Recorder:
    """Upstream events as tuples, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values: self.events.append((name, *values))

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.events if event[0] == name]


@dataclass
class Request:
    """One HTTP request as the peer got it."""

    method: str
    path: str
    headers: dict[str, str]
    raw_headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


Handler = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Peer:
    """A hand-written HTTP/1.1 server: counts connections, keeps requests, answers what `handler` writes."""

    handler: Handler
    connections: int = 0
    requests: list[Request] = field(default_factory=list)
    closed: list[Request] = field(default_factory=list)
    """Requests whose connection the client has closed."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def methods(self) -> list[str]:
        return [request.json.get("method", "reply") if request.body else request.method for request in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        request = None
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split(" ", 2)
                raw = []
                while (head := await reader.readline()) not in {b"\r\n", b""}:
                    name, _, value = head.decode("latin-1").partition(":")
                    raw.append((name, value.strip()))
                headers = {name.lower(): value for name, value in raw}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                request = Request(method, path, headers, raw, body)
                self.requests.append(request)
                if method == "DELETE":
                    await reply(writer, None)
                    continue
                answering = asyncio.create_task(self.handler(request, writer), name="peer")
                watching = asyncio.create_task(wait_closed(reader), name="peer")
                done, _ = await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
                if answering not in done:
                    self.closed.append(request)
                    answering.cancel()
                    break
                watching.cancel()
                answering.result()
                if writer.is_closing():
                    break
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()


async def wait_closed(reader: asyncio.StreamReader) -> None:
    """Return when the client has closed its side, without taking bytes from the buffer."""
    while not reader.at_eof() and not reader._buffer:
        await asyncio.sleep(0.01)
    while not reader.at_eof():
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def peer(handler: Handler, **options: Any) -> AsyncIterator[Peer]:
    """Run a Peer on a free port."""
    it = Peer(handler)
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0, **options)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()


async def reply(writer: asyncio.StreamWriter, payload: Any, status: int = 200, **headers: str) -> None:
    """Write a JSON (or bytes) answer; `headers` with `_` for `-`."""
    body = payload if isinstance(payload, bytes) else b"" if payload is None else json.dumps(payload).encode()
    lines = {"content-type": "application/json", "content-length": str(len(body))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body)
    await writer.drain()


async def stream_head(writer: asyncio.StreamWriter, **headers: str) -> None:
    """Begin an event stream that ends with the connection."""
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n{head}\r\n".encode())
    await writer.drain()


def event(payload: Any, id: str = "", name: str = "message") -> bytes:
    """Return one event."""
    return (f"id: {id}\n" if id else "").encode() + f"event: {name}\ndata: {json.dumps(payload)}\n\n".encode()


def result(request: Request, value: Any = None) -> dict[str, Any]:
    """Return a JSON-RPC result for a request."""
    return {"jsonrpc": "2.0", "id": request.json["id"], "result": {"content": []} if value is None else value}


def error(id: Any, code: int, message: str = "no", **data: Any) -> dict[str, Any]:
    """Return a JSON-RPC error."""
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message, **({"data": data} if data else {})}}


DISCOVERED = {"supportedVersions": [MODERN], "capabilities": {"tools": {}}, "resultType": "complete"}


def initialized(version: str = "2025-11-25", **capabilities: Any) -> dict[str, Any]:
    """Return an initialize result."""
    return {
        "protocolVersion": version,
        "capabilities": {"tools": {}, **capabilities},
        "serverInfo": {"name": "peer", "version": "1"},
    }


async def legacy_basics(request: Request, writer: asyncio.StreamWriter, session: str = "s-1") -> bool:
    """Answer what every legacy server answers; False for what is left to the test."""
    if request.method != "POST":
        return False
    message = request.json
    method = message.get("method")
    if method == "initialize":
        await reply(writer, result(request, initialized()), mcp_session_id=session)
    elif method == "server/discover":
        await reply(writer, error("server-error", -32600, "Unsupported protocol version"), 400)
    elif "id" not in message or "method" not in message:
        await reply(writer, None, 202)
    else:
        return False
    return True


@contextlib.asynccontextmanager
async def connected(
    transport: str,
    url: str = "",
    *,
    command: tuple[str, ...] = (),
    era: str = "",
    secrets: Secrets | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Upstream, Recorder]]:
    """Give an upstream and its recorder; afterwards it is closed and none of its tasks may be left."""
    before = asyncio.all_tasks()
    recorder = Recorder()
    idle = options.pop("idle_seconds", 600.0)
    cwd = options.pop("cwd", "")
    server = ServerFacts("server-1", "tenant-1", "peer", "Peer", transport, 1, idle_seconds=idle)
    endpoint = EndpointFacts("endpoint-1", url=url, command=command[0] if command else "", args=command[1:], era=era, cwd=cwd)
    options.setdefault("policy", LOOPBACK)
    upstream = open_upstream(server, endpoint, secrets or Secrets(), recorder, **options)
    try:
        yield upstream, recorder
    finally:
        await upstream.aclose()
        for _ in range(50):
            left = [one for one in asyncio.all_tasks() - before if one.get_name() != "peer" and "Peer.serve" not in repr(one)]
            if not left:
                break
            await asyncio.sleep(0.01)
        assert not left, f"tasks left: {left}"


def call(name: str = "x", arguments: dict[str, Any] | None = None, **options: Any) -> UpstreamRequest:
    """Return a tools/call request with a time limit fit for tests."""
    options.setdefault("timeout", 10.0)
    return UpstreamRequest("tools/call", {"name": name, "arguments": arguments or {}}, **options)


def text_of(answer: Any) -> str:
    """Return the text of an answer's first content block."""
    assert answer.result is not None, answer.error
    return answer.result["content"][0]["text"]


@dataclass
class RealServer:
    """A real MCP server process on a port of 127.0.0.1."""

    port: int
    process: subprocess.Popen[bytes]
    path: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"


def start_real(command: list[str], port: int, path: str, **options: Any) -> RealServer:
    """Start a server and wait until it accepts connections."""
    import socket

    from tests.support import eventually

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)

    def listening() -> bool:
        assert process.poll() is None, "the server ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    eventually(listening, within=30.0)
    return RealServer(port, process, path)


PYTHON = sys.executable
