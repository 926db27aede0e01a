"""Puts the requests of clients now to one gateway, now to the other: where a session's state is kept must not matter.

Requests take turns. What belongs to an earlier request (an answer to a server's request, a request that takes up a parked call, a
cancellation, a subscription while a stream stands) goes to the gateway that does not have it, so that a test does not depend on the
number of requests before.
"""

import asyncio
import contextlib
import json
from typing import Any

HEAD = 256 * 1024


class Balancer:
    """An HTTP/1.1 proxy on a port of its own: one request for each connection, copied as it comes."""

    def __init__(self, ports: tuple[int, int]) -> None:
        self._ports = ports
        self._server: asyncio.Server | None = None
        self._turn = 0
        self._calls: list[int] = []
        self._standing: list[int] = []
        self._begun: dict[str, int] = {}
        """Where calls were last made that a request with `requestState` may belong to."""
        self.served: list[tuple[str, int]] = []
        """What was asked, and which gateway it went to."""
        self.crossed: list[str] = []
        """What was sent to the gateway that does not have what it is about."""

    @property
    def base_url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> "Balancer":
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD)
        return self

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    def choose(self, method: str, message: Any) -> int:
        """Return which gateway gets a request."""
        if method == "GET":
            return 1 - self._turn % 2
        said = message.get("method", "an answer") if isinstance(message, dict) else method
        if said in ("an answer", "notifications/cancelled") and self._calls:
            self.crossed.append(said)
            return 1 - self._calls[0]
        if said == "resources/subscribe" and self._standing:
            self.crossed.append(said)
            return 1 - self._standing[-1]
        self._turn += 1
        gateway = self._turn % 2
        if _is_call(said):
            params = message["params"]
            key = json.dumps([said, params.get("name"), params.get("uri"), params.get("arguments")])
            if "requestState" in params and key in self._begun:
                self.crossed.append("requestState")
                return 1 - self._begun[key]
            self._begun[key] = gateway
        return gateway

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = [line for line in head.split("\r\n")[:-2] if not line.lower().startswith("connection:")]
            fields = dict(line.lower().split(":", 1) for line in lines[1:])
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            method = lines[0].partition(" ")[0]
            message = json.loads(body) if body else None
            gateway = self.choose(method, message)
            said = message.get("method", "an answer") if isinstance(message, dict) else method
            self.served.append((said, gateway))
            held = self._standing if method == "GET" else self._calls if _is_call(said) else []
            held.append(gateway)
            try:
                request = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body
                await self._copy(self._ports[gateway], request, reader, writer)
            finally:
                held.remove(gateway)
        writer.close()

    @staticmethod
    async def _copy(port: int, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send a request on, and the answer back until either side has left."""
        answer, upward = await asyncio.open_connection("127.0.0.1", port)

        async def back() -> None:
            while chunk := await answer.read(65536):
                writer.write(chunk)
                await writer.drain()

        upward.write(request)
        tasks = [asyncio.create_task(back()), asyncio.create_task(reader.read(1))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            upward.close()


def _is_call(method: str) -> bool:
    return method in ("tools/call", "prompts/get", "resources/read")
