"""A load generator: N keep-alive connections, each with one request in flight, on bare asyncio protocols.

Run: `python -m benchmarks.load URL --connections 64 --seconds 5 --era modern --key KEY [--tool echo]`; prints one JSON object.
"""

import argparse
import asyncio
import json
import time
from urllib.parse import urlsplit

import uvloop

MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
}


def request_bytes(url: str, body: dict, headers: dict[str, str]) -> bytes:
    """Return one HTTP request."""
    parts = urlsplit(url)
    raw = json.dumps(body, separators=(",", ":")).encode()
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
    lines += ["Accept: application/json, text/event-stream", f"Content-Length: {len(raw)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + raw


def call_bytes(url: str, era: str, key: str, tool: str, session: str = "") -> bytes:
    """Return a tools/call."""
    params: dict = {"name": tool, "arguments": {"text": "hello, how are you today?"}}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if era == "modern":
        params["_meta"] = META
        headers |= {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": tool}
    else:
        headers["MCP-Protocol-Version"] = "2025-11-25"
        if session:
            headers["Mcp-Session-Id"] = session
    return request_bytes(url, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, headers)


class Caller(asyncio.Protocol):
    """One connection: sends, waits for the whole answer, sends again."""

    def __init__(self, request: bytes, state: dict) -> None:
        self.request = request
        self.state = state
        self.buffer = b""
        self.need = -1
        self.started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport
        self.send()

    def send(self) -> None:
        """Send the next request."""
        self.started = time.perf_counter()
        self.transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Collect an answer."""
        self.buffer = self.buffer + data if self.buffer else data
        if self.need < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            at = self.buffer.lower().find(b"content-length:", 0, end)
            stop = self.buffer.find(b"\r\n", at)
            self.need = end + 4 + int(self.buffer[at + 15 : stop]) if at >= 0 else end + 4
        if len(self.buffer) < self.need:
            return
        now = time.perf_counter()
        state = self.state
        if state["measuring"]:
            if b" 200 " in self.buffer[:16] and b'"text"' in self.buffer:
                state["times"].append(now - self.started)
            else:
                state["errors"] += 1
                state["sample"] = self.buffer[:600].decode(errors="replace")
        self.buffer = self.buffer[self.need :]
        self.need = -1
        if not state["stop"]:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a connection that breaks while measured."""
        if self.state["measuring"] and not self.state["stop"]:
            self.state["errors"] += 1


async def session_of(url: str, key: str) -> str:
    """Open a legacy session."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    raw = request_bytes(url, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}, headers)
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(raw)
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    for line in head.split("\r\n"):
        if line.lower().startswith("mcp-session-id:"):
            return line.partition(":")[2].strip()
    return ""


async def run(urls: list[str], era: str, key: str, tool: str, connections: int, seconds: float, warm: float) -> dict:
    """Load and measure."""
    session = await session_of(urls[0], key) if era == "legacy" else ""
    state: dict = {"times": [], "errors": 0, "measuring": False, "stop": False}
    loop = asyncio.get_running_loop()
    for index in range(connections):
        url = urls[index % len(urls)]
        parts = urlsplit(url)
        raw = call_bytes(url, era, key, tool, session)
        await loop.create_connection(lambda raw=raw: Caller(raw, state), parts.hostname, parts.port)
    await asyncio.sleep(warm)
    cpu = time.process_time()
    state["measuring"] = True
    started = time.perf_counter()
    print("START", flush=True)
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - started
    state["measuring"] = False
    print("STOP", flush=True)
    state["stop"] = True
    times = sorted(state["times"])
    count = len(times)
    return {
        "calls": count,
        "per_second": count / elapsed,
        "errors": state["errors"],
        "sample": state.get("sample", ""),
        "p50_ms": times[count // 2] * 1000 if count else 0,
        "p99_ms": times[int(count * 0.99)] * 1000 if count else 0,
        "generator_cpu": time.process_time() - cpu,
    }


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="+")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm", type=float, default=1.0)
    parser.add_argument("--era", default="modern")
    parser.add_argument("--key", default="")
    parser.add_argument("--tool", default="echo")
    options = parser.parse_args()
    result = uvloop.run(
        run(options.url, options.era, options.key, options.tool, options.connections, options.seconds, options.warm)
    )
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
