"""What the end-to-end tests share: a client of both eras with every byte in its hands, REST, and the audit log as another reader sees it."""

import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psutil

from tests.engines import end_with_parent, free_port
from tests.product import ROOT, Product
from tests.support import eventually

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
ERAS = ("modern", "legacy")
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "hostile", "version": "1"},
}
TYPES = "https://switchyard.dev/problems/"
_names = itertools.count(1)


def unique(stem: str) -> str:
    """Return a slug that no other test uses."""
    return f"{stem}-{os.getpid()}-{next(_names)}"


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float = 0.0

    @property
    def json(self) -> Any:
        """The JSON of the body, or of the last event of a stream."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            data = [line[6:] for line in self.body.split(b"\n") if line.startswith(b"data: ")]
            return json.loads(data[-1]) if data else None
        return json.loads(self.body) if self.body else None

    @property
    def error(self) -> dict[str, Any]:
        """The JSON-RPC error."""
        assert "error" in (self.json or {}), f"{self.status} {self.body[:500]!r}"
        return self.json["error"]

    @property
    def type(self) -> str:
        """The problem type that the error names, without its base."""
        data = self.error.get("data")
        assert isinstance(data, dict), self.error
        assert data["type"].startswith(TYPES), self.error
        return data["type"].removeprefix(TYPES)

    @property
    def result(self) -> dict[str, Any]:
        """The JSON-RPC result."""
        assert "result" in (self.json or {}), f"{self.status} {self.body[:800]!r}"
        return self.json["result"]


def exchange(
    product: Product,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 40,
) -> Answer:
    """Send one request on a connection of its own."""
    parts = urlsplit(product.base_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    started = time.monotonic()
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        raw = answer.read()
        return Answer(
            answer.status, {name.lower(): value for name, value in answer.getheaders()}, raw, time.monotonic() - started
        )
    finally:
        connection.close()


def rest(product: Product, method: str, path: str, body: Any = None, *, key: str = "", tenant: str = "") -> Answer:
    """Call the REST API, as the first operator or with another key."""
    headers = {"Authorization": f"Bearer {key or product.key}", "Content-Type": "application/json"}
    if tenant:
        headers["X-Switchyard-Tenant"] = tenant
    return exchange(product, method, f"/api/v1/{path}", None if body is None else json.dumps(body).encode(), headers)


def made(answer: Answer) -> dict[str, Any]:
    """Return what a REST call made; fails with its problem when it did not."""
    assert answer.status < 300, f"{answer.status} {answer.body[:800]!r}"
    return answer.json


@dataclass
class Client:
    """An MCP client of one era that says exactly what it is told to."""

    product: Product
    era: str
    path: str = "/mcp"
    key: str = ""
    session: str = ""
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def headers(self, message: Any = None) -> dict[str, str]:
        """Return the headers of a proper request with this body."""
        found = {
            "Authorization": f"Bearer {self.key or self.product.key}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        if self.era == "modern":
            found["MCP-Protocol-Version"] = MODERN
            method = message.get("method") if isinstance(message, dict) else None
            found["Mcp-Method"] = method if isinstance(method, str) else "tools/call"
            params = message.get("params") if isinstance(message, dict) else None
            name = params.get("name", params.get("uri")) if isinstance(params, dict) else None
            if isinstance(name, str):
                found["Mcp-Name"] = name
        else:
            found["MCP-Protocol-Version"] = LEGACY
            if self.session:
                found["Mcp-Session-Id"] = self.session
        return found

    def message(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a proper request of the era."""
        given = dict(params or {})
        if self.era == "modern":
            given["_meta"] = {**META, **given.get("_meta", {})}
        return {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": given}

    def send(
        self,
        body: Any,
        headers: dict[str, str | None] | None = None,
        *,
        method: str = "POST",
        path: str = "",
        timeout: float = 40,
    ) -> Answer:
        """Send a body (bytes as they are); `headers` replace the proper ones, None leaves one out."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        proper: dict[str, str | None] = {**self.headers(body), **(headers or {})}
        sent = {name: value for name, value in proper.items() if value is not None}
        return exchange(self.product, method, path or self.path, raw, sent, timeout)

    def ask(self, method: str, params: dict[str, Any] | None = None, *, timeout: float = 40) -> Answer:
        """Send a proper request."""
        return self.send(self.message(method, params), timeout=timeout)

    def call(self, name: str, arguments: dict[str, Any] | None = None, *, timeout: float = 40) -> Answer:
        """Call a tool."""
        return self.ask("tools/call", {"name": name, "arguments": arguments or {}}, timeout=timeout)

    def names(self) -> list[str]:
        """Return the names of the tools that are listed."""
        return [tool["name"] for tool in self.ask("tools/list").result["tools"]]

    def initialize(self) -> "Client":
        """Open a session, where the era has them."""
        if self.era == "legacy":
            params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "hostile", "version": "1"}}
            answer = self.send(self.message("initialize", params), {"MCP-Protocol-Version": None})
            self.session = answer.headers["mcp-session-id"]
        return self


def connect(product: Product, era: str, path: str = "/mcp", key: str = "") -> Client:
    """Return a client that is ready to call."""
    return Client(product, era, path, key).initialize()


def assert_serves(product: Product, era: str = "modern") -> None:
    """Require that a good call works, now."""
    answer = connect(product, era).call("system__calculate", {"expression": "6 * 7"})
    assert "42" in answer.result["content"][0]["text"], answer.body


# The audit log, read by a connection that is not the product's.


@contextlib.contextmanager
def audit_connection(product: Product) -> Iterator[Any]:
    """Open the log for reading, as an auditor beside the product would."""
    url = product.environment.get("DATABASE_URL")
    if url:
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            yield connection
        return
    connection = sqlite3.connect(f"file:{product.home / 'audit.sqlite3'}?mode=ro", uri=True, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


_COLUMNS = (
    "id",
    "event_type",
    "call_id",
    "action",
    "object",
    "server",
    "tool",
    "outcome",
    "error_type",
    "actor_id",
    "actor",
    "tenant",
    "task",
    "trace",
    "body",
)


def audit_rows(product: Product, where: str = "1 = 1", *values: Any, since: int = 0) -> list[dict[str, Any]]:
    """Return events (oldest first) with `details` read from their canonical bytes; `?` marks a value in `where`."""
    statement = f"SELECT {', '.join(_COLUMNS)} FROM audit_event WHERE id > ? AND ({where}) ORDER BY id"
    if product.environment.get("DATABASE_URL"):
        statement = statement.replace("%", "%%").replace("?", "%s")
    with audit_connection(product) as connection:
        rows = connection.execute(statement, (since, *values)).fetchall()
    found = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
    for row in found:
        row["details"] = json.loads(bytes(row.pop("body"))).get("details") or {}
    return found


def audit_mark(product: Product) -> int:
    """Return the id of the newest event; with one writer, what comes later has a higher one."""
    with audit_connection(product) as connection:
        return connection.execute("SELECT COALESCE(MAX(id), 0) FROM audit_event").fetchone()[0]


def recorded(product: Product, where: str, *values: Any, since: int = 0, within: float = 5.0) -> dict[str, Any]:
    """Wait for an event and return the newest that fits."""
    return eventually(
        lambda: (audit_rows(product, where, *values, since=since) or [None])[-1],
        within=within,
        because=f"no audit event with {where} {values}; there are {[(r['event_type'], r['error_type'], r['details']) for r in audit_rows(product, since=since)][-12:]}",
    )


# Memory


def serving_memory(product: Product) -> int:
    """Return the resident bytes of the processes that serve."""
    total = 0
    for process in product.processes():
        with contextlib.suppress(psutil.Error):
            if "run_process" in " ".join(process.cmdline()):
                total += process.memory_info().rss
    return total


# Programs of the tests


@contextlib.contextmanager
def program(module: str, *arguments: str) -> Iterator[str]:
    """Run a module as an MCP server, with a free port as its first argument; gives its address when it listens."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(port), *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=end_with_parent(signal.SIGKILL),
    )

    def listening() -> bool:
        assert process.poll() is None, "the server ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(listening, within=30)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()
