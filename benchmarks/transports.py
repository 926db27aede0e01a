"""CPU time of the transports per tools/call, against trivial servers of this file.

    python -m benchmarks.transports [--calls 20000] [--connections 64] [--profile modern]

Prints, per transport and era, microseconds of this process's CPU time per call and calls per second; `aiohttp` is the
bare client sending the same bytes, for comparison.
"""

import argparse
import asyncio
import cProfile
import pstats
import socket
import subprocess
import sys
import time
from typing import Any

import aiohttp
import orjson
import uvloop

from apps.common.http import NetworkPolicy
from apps.servers.domain import EndpointFacts, Secrets, ServerFacts
from apps.servers.transports import open_upstream
from apps.servers.transports.base import Upstream, UpstreamRequest

TEXT = "x" * 200
RESULT = {"content": [{"type": "text", "text": TEXT}], "isError": False, "resultType": "complete"}
INFO = {"name": "trivial", "version": "1"}
ARGUMENTS = {"city": "Berlin", "days": 3, "units": "metric"}


def answer(message: dict[str, Any], *, modern: bool) -> dict[str, Any] | None:
    """Return the trivial server's answer."""
    method, reply = message.get("method"), {"jsonrpc": "2.0", "id": message.get("id")}
    if "id" not in message:
        return None
    if method == "tools/call":
        return {**reply, "result": RESULT}
    if method == "initialize":
        return {**reply, "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": INFO}}
    if method == "server/discover" and modern:
        return {
            **reply,
            "result": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"},
        }
    return {**reply, "error": {"code": -32601, "message": "Method not found"}}


def serve_http(port: int, mode: str) -> None:
    """Serve `modern`, `legacy` or `legacy-sse` on a raw ASGI application."""
    import uvicorn

    modern = mode == "modern"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        reply = answer(orjson.loads(body), modern=modern) if body else None
        kind, payload = b"application/json", b"" if reply is None else orjson.dumps(reply)
        if reply is not None and mode == "legacy-sse":
            kind, payload = b"text/event-stream", b"event: message\r\ndata: " + payload + b"\r\n\r\n"
        headers = [(b"content-type", kind), (b"mcp-session-id", b"s1")]
        if kind == b"application/json":
            headers.append((b"content-length", str(len(payload)).encode()))
        await send({"type": "http.response.start", "status": 200 if payload else 202, "headers": headers})
        await send({"type": "http.response.body", "body": payload})

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False, loop="uvloop", http="httptools")


def serve_stdio(mode: str) -> None:
    """Serve on stdin and stdout, as fast as Python can."""
    import os

    rest, modern = b"", mode == "modern"
    while chunk := os.read(0, 1 << 20):
        *lines, rest = (rest + chunk).split(b"\n")
        out = [
            orjson.dumps(reply) for line in lines if line and (reply := answer(orjson.loads(line), modern=modern)) is not None
        ]
        if out:
            data = b"\n".join(out) + b"\n"
            while data:
                data = data[os.write(1, data) :]


class Silent:
    """Takes events and does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


async def measure(name: str, upstream: Upstream, calls: int, connections: int, profile: str) -> None:
    """Print one line."""

    async def work(count: int) -> None:
        for _ in range(count):
            request = UpstreamRequest("tools/call", {"name": "weather", "arguments": ARGUMENTS})
            reply = await upstream.call(request)
            assert reply.result is not None
            assert reply.result["content"][0]["text"] == TEXT

    await asyncio.gather(*(work(20) for _ in range(connections)))
    await report(name, [work(calls // connections) for _ in range(connections)], calls)
    if profile == name:
        with cProfile.Profile() as profiler:
            await work(5000)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    await upstream.aclose()


async def report(name: str, work: list[Any], calls: int) -> None:
    """Run `work` and print its cost."""
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*work)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{name:12} {cpu / calls * 1e6:7.1f} us CPU per call {calls / wall:9.0f} calls/s", flush=True)


async def bare(url: str, calls: int, connections: int) -> None:
    """The same exchange on aiohttp alone, without reading JSON."""
    body = orjson.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "weather", "arguments": ARGUMENTS}}
    )
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def work(count: int) -> None:
            for _ in range(count):
                async with session.post(url, data=body, headers=headers) as response:
                    await response.read()

        await asyncio.gather(*(work(20) for _ in range(connections)))
        await report("aiohttp", [work(calls // connections) for _ in range(connections)], calls)


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


async def main(options: argparse.Namespace) -> None:
    """Measure everything."""
    policy = NetworkPolicy.parse(["loopback"])
    for mode in ("modern", "legacy", "legacy-sse"):
        port = free_port()
        with subprocess.Popen([sys.executable, "-m", "benchmarks.transports", "--http", mode, "--port", str(port)]) as process:
            try:
                await wait_for(port)
                url = f"http://127.0.0.1:{port}/mcp"
                if mode == "modern":
                    await bare(url, options.calls, options.connections)
                server = ServerFacts("s", "t", "trivial", "trivial", "http", 1)
                upstream = open_upstream(server, EndpointFacts("e", url=url), Secrets(), Silent(), policy=policy)  # type: ignore[arg-type]
                await measure(mode, upstream, options.calls, options.connections, options.profile)
            finally:
                process.terminate()
    for mode in ("modern", "legacy"):
        server = ServerFacts("s", "t", "trivial", "trivial", "stdio", 1)
        endpoint = EndpointFacts("e", command=sys.executable, args=("-m", "benchmarks.transports", "--stdio", mode))
        upstream = open_upstream(server, endpoint, Secrets(), Silent())  # type: ignore[arg-type]
        await measure(f"stdio-{mode}", upstream, options.calls, options.connections, options.profile)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--profile", default="")
    parser.add_argument("--http", default="")
    parser.add_argument("--stdio", default="")
    parser.add_argument("--port", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.http:
        serve_http(chosen.port, chosen.http)
    elif chosen.stdio:
        serve_stdio(chosen.stdio)
    else:
        uvloop.run(main(chosen))
