"""An MCP server of the initialize era whose calls go as fast as the test says: each is a stream that the test writes to."""

import asyncio
import json
from typing import Any

from tests.e2e.rogue import LEGACY, Arrival, Rogue, Write, respond
from tests.support import eventually

WORK = {
    "name": "work",
    "inputSchema": {"type": "object", "properties": {"mark": {"type": "string"}}, "required": ["mark"]},
}
RESOURCE = {"uri": "test://watched", "name": "watched"}


class Paced(Rogue):
    """Has the tool `work`: a call with a mark waits until the test has said and finished it. And one resource."""

    def __init__(self) -> None:
        super().__init__("legacy")
        self.tools = [WORK]
        self.calls_open: dict[str, tuple[Write, Any]] = {}
        self.subscribed: list[str] = []

    def begun(self, mark: str) -> None:
        """Wait until a call has arrived."""
        eventually(lambda: mark in self.calls_open, within=10, because=f"the call {mark} has not arrived")

    def log(self, mark: str, data: Any) -> None:
        """Send a log message on a call's stream."""
        self.say(mark, {"method": "notifications/message", "params": {"level": "info", "data": data}})

    def say(self, mark: str, message: dict[str, Any]) -> None:
        """Send a message on a call's stream."""
        self._write(mark, {"jsonrpc": "2.0", **message})

    def finish(self, mark: str, text: str = "done") -> None:
        """Answer a call."""
        id = self.calls_open[mark][1]
        self._write(mark, {"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": text}]}}, last=True)

    def answers(self, id: Any) -> list[Any]:
        """Return what was answered to a request of ours."""
        return [one.message for one in list(self.arrivals) if isinstance(one.message, dict) and _answers(one.message, id)]

    def announce_update(self, uri: str) -> None:
        """Tell every open stream that a resource has changed."""
        self._tell({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}})

    def _tell(self, message: dict[str, Any]) -> None:
        assert self._loop is not None

        async def tell() -> None:
            for writer in list(self.streams):
                if not writer.is_closing():
                    writer.write(b"data: " + json.dumps(message).encode() + b"\n\n")

        asyncio.run_coroutine_threadsafe(tell(), self._loop).result(5)

    def _write(self, mark: str, message: dict[str, Any], *, last: bool = False) -> None:
        assert self._loop is not None
        self.begun(mark)
        writer, _ = self.calls_open[mark]

        async def write() -> None:
            writer.write(b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n")
            await writer.drain()
            if last:
                writer.close()

        asyncio.run_coroutine_threadsafe(write(), self._loop).result(20)

    async def _answer(self, arrival: Arrival, writer: Write) -> None:
        message = arrival.message
        method = message.get("method") if isinstance(message, dict) else None
        params = (message.get("params") or {}) if isinstance(message, dict) else {}
        if isinstance(message, dict) and method is None and "id" in message:
            await respond(writer, None, 202)
        elif method == "tools/call":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            self.calls_open[params["arguments"]["mark"]] = (writer, message["id"])
            await asyncio.Event().wait()
        elif method == "initialize":
            capabilities = {"tools": {"listChanged": True}, "resources": {"listChanged": True, "subscribe": True}}
            result = {"protocolVersion": LEGACY, "capabilities": capabilities, "serverInfo": {"name": "paced", "version": "1"}}
            await respond(writer, {"jsonrpc": "2.0", "id": message["id"], "result": result})
        elif method == "resources/list":
            await respond(writer, {"jsonrpc": "2.0", "id": message["id"], "result": {"resources": [RESOURCE]}})
        elif method in ("resources/subscribe", "resources/unsubscribe"):
            if method == "resources/subscribe":
                self.subscribed.append(params["uri"])
            await respond(writer, {"jsonrpc": "2.0", "id": message["id"], "result": {}})
        else:
            await super()._answer(arrival, writer)


def _answers(message: dict[str, Any], id: Any) -> bool:
    return message.get("id") == id and "method" not in message
