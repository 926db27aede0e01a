"""What every built-in server has: configuration, logging, metrics, `/health`, trust in the gateway alone, typed errors.

A new server is a subclass with a name, instructions and tools:

    class Greeter(BuiltinServer):
        name = "greeter"

        def tools(self) -> tuple[Callable[..., Any], ...]:
            return (self.greet,)

        def greet(self, whom: str) -> str:
            '''Greet somebody.'''
            return f"Hello {whom}, from {self.caller().tenant}"

    if __name__ == "__main__":
        Greeter().run()
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

os.environ.setdefault("FASTMCP_LOG_ENABLED", "false")  # it would colour standard error; the lines below are JSON

from fastmcp import FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server.middleware import Middleware, MiddlewareContext
from fastmcp.tools import Tool
from mcp_types import ToolAnnotations
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from apps.common.crypto.assertion import META_KEY, Assertion, AssertionRefused, Verifier

MAX_ARGUMENTS = 256 * 1024
"""Bytes of one call's arguments, as JSON."""
READ_ONLY = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
DELETES = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)


class Refused(ToolError):
    """What a tool tells its caller when it will not or cannot: what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a server is started with; all of it from the environment."""

    name: str
    public_key: str
    """Verifies the gateway's assertions; without it tools that need to know for whom they work refuse."""
    home: Path | None
    log_level: str

    @classmethod
    def read(cls, name: str) -> "Configuration":
        """Read the environment."""
        home = os.environ.get("SWITCHYARD_BUILTIN_HOME")
        return cls(
            name=os.environ.get("SWITCHYARD_BUILTIN_NAME", name),
            public_key=os.environ.get("SWITCHYARD_BUILTIN_PUBLIC_KEY", ""),
            home=Path(home) if home else None,
            log_level=os.environ.get("SWITCHYARD_BUILTIN_LOG_LEVEL", "INFO").upper(),
        )


_caller: ContextVar[Assertion | None] = ContextVar("switchyard_builtin_caller", default=None)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
        return json.dumps(line, ensure_ascii=False)


class BuiltinServer:
    """A built-in server on fastmcp, over stdio, or over HTTP on loopback with `--http PORT` (then with `/health` and `/metrics`)."""

    name: ClassVar[str]
    version: ClassVar[str] = "1.0.0"
    instructions: ClassVar[str] = ""

    def __init__(self) -> None:
        self.configuration = Configuration.read(self.name)
        self.log = logging.getLogger(f"switchyard.builtin.{self.name}")
        self._verifier = (
            Verifier(self.configuration.public_key, self.configuration.name) if self.configuration.public_key else None
        )
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "switchyard_builtin_calls_total", "Finished tool calls.", ("server", "tool", "outcome"), registry=self.registry
        )
        self._seconds = Histogram(
            "switchyard_builtin_call_seconds", "Duration of tool calls.", ("server", "tool"), registry=self.registry
        )
        self.mcp: FastMCP[Any] = FastMCP(
            self.name,
            instructions=self.instructions or None,
            version=self.version,
            mask_error_details=True,
            strict_input_validation=True,
            dereference_schemas=False,
            middleware=[_Guard(self)],
        )
        for entry in self.tools():
            function, annotations = entry if isinstance(entry, tuple) else (entry, WRITES)
            self.mcp.add_tool(Tool.from_function(function, annotations=annotations))

    def tools(self) -> Sequence[Callable[..., Any] | tuple[Callable[..., Any], ToolAnnotations]]:
        """Return the tools: methods, each with its annotations where they are not `WRITES`. Docstrings become descriptions."""
        raise NotImplementedError

    def caller(self) -> Assertion:
        """Return for whom the current call works. Raises Refused when the gateway has not said so."""
        caller = _caller.get()
        if caller is None:
            raise Refused("This tool works only behind Switchyard, which says for whom it is called.")
        return caller

    def home(self) -> Path:
        """Return the server's own directory, made when first asked for. Raises Refused when it has none."""
        home = self.configuration.home
        if home is None:
            raise Refused("This server was started without a directory of its own.")
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        return home

    def health(self) -> dict[str, Any]:
        """Return what `/health` says; override to add the state of what the server depends on."""
        return {"status": "ok", "server": self.name, "version": self.version}

    def verify(self, meta: dict[str, Any] | None) -> Assertion | None:
        """Return what the gateway asserts; None where no key to verify with was given. Raises Refused."""
        if self._verifier is None:
            return None
        try:
            return self._verifier.verify((meta or {}).get(META_KEY))
        except AssertionRefused as error:
            raise Refused(str(error)) from None

    def observe(self, tool: str, outcome: str, seconds: float) -> None:
        """Count a finished call."""
        self._calls.labels(self.name, tool, outcome).inc()
        self._seconds.labels(self.name, tool).observe(seconds)

    def run(self, arguments: Sequence[str] | None = None) -> None:
        """Serve until standard input ends, or, with `--http PORT`, until a signal."""
        parser = argparse.ArgumentParser(prog=f"switchyard-{self.name}")
        parser.add_argument("--http", type=int, metavar="PORT", help="serve on 127.0.0.1 instead of standard input and output")
        options = parser.parse_args(arguments)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_JsonLines())
        logging.basicConfig(level=self.configuration.log_level, handlers=[handler], force=True)
        logging.getLogger("mcp").setLevel(logging.WARNING)
        if options.http is None:
            self.mcp.run(transport="stdio", show_banner=False)
        else:
            self._add_routes()
            self.mcp.run(transport="http", host="127.0.0.1", port=options.http, show_banner=False, log_level="warning")

    def _add_routes(self) -> None:
        from starlette.requests import Request
        from starlette.responses import JSONResponse, Response

        async def health(_: Request) -> Response:
            return JSONResponse(self.health())

        async def metrics(_: Request) -> Response:
            return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4")

        self.mcp.custom_route("/health", methods=["GET"])(health)
        self.mcp.custom_route("/metrics", methods=["GET"])(metrics)


class _Guard(Middleware):
    """Around every call: who it is for, how large it is, how long it took, and an error that says no more than it should."""

    def __init__(self, server: BuiltinServer) -> None:
        self._server = server

    async def on_call_tool(self, context: MiddlewareContext[Any], call_next: Any) -> Any:
        """Guard one call."""
        server, tool = self._server, context.message.name
        started = time.perf_counter()
        outcome = "error"
        request = context.fastmcp_context.request_context if context.fastmcp_context is not None else None
        token = None
        try:
            token = _caller.set(server.verify(request.meta if request is not None else None))
            if len(json.dumps(context.message.arguments or {})) > MAX_ARGUMENTS:
                raise Refused(f"The arguments have more than {MAX_ARGUMENTS} bytes, the limit of this server.")
            result = await call_next(context)
            outcome = "ok"
        except ToolError as error:
            server.log.info("%s refused: %s", tool, error)
            raise
        finally:
            if token is not None:
                _caller.reset(token)
            server.observe(tool, outcome, time.perf_counter() - started)
        return result
