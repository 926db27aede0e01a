"""Many clients at the same time, all with request id 0 and progress token 0, each with a canary of its own: does anybody see another's?

Clients of both eras before servers of both eras, through one gateway. Each call makes its server send progress and a log message that
carry the caller's canary, and ask the caller for it, before it is answered.
"""

import asyncio
import itertools
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvicorn

MODERN, LEGACY = "2026-07-28", "2025-11-25"
CAPABILITIES = {"elicitation": {"form": {}}}
_CANARY = re.compile(r"canary-\d+-\d+")
TOOL = {
    "name": "sing",
    "inputSchema": {"type": "object", "properties": {"canary": {"type": "string"}}, "required": ["canary"]},
}


class Choir:
    """An MCP server of one era (ASGI). `POST /mcp` alone, answers of calls as event streams."""

    def __init__(self, era: str) -> None:
        self.era = era
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        if scope["method"] != "POST":
            await self._send(send, 405, None)
            return
        message = json.loads(body)
        method, id, params = message.get("method"), message.get("id"), message.get("params") or {}
        if method is None:
            self._asked.pop(id).set_result(message)
            await self._send(send, 202, None)
        elif id is None:
            await self._send(send, 202, None)
        elif method == "tools/call":
            await self._sing(send, id, params)
        else:
            await self._send(send, 200, self._known(method, id))

    def _known(self, method: str, id: Any) -> dict[str, Any]:
        info = {"name": "choir", "version": "1"}
        if method == "server/discover" and self.era == "modern":
            meta = {"_meta": {"io.modelcontextprotocol/serverInfo": info}, "ttlMs": 0, "cacheScope": "private"}
            result = {
                "supportedVersions": [MODERN],
                "capabilities": {"tools": {}, "logging": {}},
                "resultType": "complete",
                **meta,
            }
        elif method == "initialize" and self.era == "legacy":
            result = {"protocolVersion": LEGACY, "capabilities": {"tools": {}, "logging": {}}, "serverInfo": info}
        elif method == "tools/list":
            result = {"tools": [TOOL], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        elif method == "logging/setLevel":
            result = {}
        else:
            code = -32022 if method == "initialize" else -32601
            data = {"supported": [MODERN]} if method == "initialize" else None
            return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": "no", "data": data}}
        return {"jsonrpc": "2.0", "id": id, "result": result}

    async def _sing(self, send, id: Any, params: dict[str, Any]) -> None:
        canary = params["arguments"]["canary"]
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        ask = {
            "method": "elicitation/create",
            "params": {"message": canary, "requestedSchema": {"type": "object", "properties": {}}},
        }
        if self.era == "modern" and "inputResponses" not in params:
            wanted = {"resultType": "input_required", "inputRequests": {"who": ask}, "requestState": canary}
            await self._event(send, {"jsonrpc": "2.0", "id": id, "result": wanted}, last=True)
            return
        token = (params.get("_meta") or {}).get("progressToken")
        if token is not None:
            for step in range(3):
                said = {"progressToken": token, "progress": step, "message": canary}
                await self._event(send, {"jsonrpc": "2.0", "method": "notifications/progress", "params": said})
                await asyncio.sleep(0)
        log = {"level": "error", "data": canary}
        await self._event(send, {"jsonrpc": "2.0", "method": "notifications/message", "params": log})
        if self.era == "modern":
            said = params["inputResponses"]["who"]["content"]["canary"]
            state = params["requestState"]
        else:
            number = next(self._ids)
            answered = self._asked[number] = asyncio.get_running_loop().create_future()
            await self._event(send, {"jsonrpc": "2.0", "id": number, **ask})
            said = (await answered)["result"]["content"]["canary"]
            state = canary
        text = f"{canary} {said} {state}"
        result = {"content": [{"type": "text", "text": text}], "resultType": "complete"}
        await self._event(send, {"jsonrpc": "2.0", "id": id, "result": result}, last=True)

    async def _event(self, send, message: dict[str, Any], *, last: bool = False) -> None:
        data = f"event: message\ndata: {json.dumps(message)}\n\n".encode()
        await send({"type": "http.response.body", "body": data, "more_body": not last})

    async def _send(self, send, status: int, message: dict[str, Any] | None) -> None:
        body = json.dumps(message).encode() if message is not None else b""
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@contextmanager
def choir(era: str) -> Iterator[str]:
    """Run a Choir in a thread; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = uvicorn.Server(uvicorn.Config(Choir(era), log_level="error", access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


@dataclass
class Report:
    """What the clients saw."""

    answered: int = 0
    crossed: list[str] = field(default_factory=list)
    """Messages in which a client saw another's canary, or its own not where it must be."""
    failed: list[str] = field(default_factory=list)
    notices: int = 0


class Singer:
    """One client: its id and its progress token are 0, always."""

    def __init__(self, http: aiohttp.ClientSession, url: str, key: str, era: str, canary: str, report: Report) -> None:
        self._http = http
        self._url = url
        self._era = era
        self._canary = canary
        self._report = report
        self._headers = {"Authorization": f"Bearer {key}", "Accept": "application/json, text/event-stream"}

    async def sing(self) -> None:
        """Make one call from beginning to end."""
        try:
            async with asyncio.timeout(120):
                text = await (self._modern() if self._era == "modern" else self._legacy())
        except Exception as error:
            self._report.failed.append(f"{self._canary} {type(error).__name__} {error}"[:300])
            return
        if text == " ".join([self._canary] * 3):
            self._report.answered += 1
        else:
            self._report.crossed.append(f"{self._canary} was answered {text}")

    def _look(self, message: dict[str, Any]) -> None:
        seen = set(_CANARY.findall(json.dumps(message)))
        if seen - {self._canary}:
            self._report.crossed.append(f"{self._canary} saw {seen} in {json.dumps(message)[:200]}")
        if "method" in message and "id" not in message:
            self._report.notices += 1
            if message["method"] == "notifications/progress" and message["params"]["progressToken"] != 0:
                self._report.crossed.append(f"{self._canary} got progress under {message['params']['progressToken']}")

    async def _post(self, message: dict[str, Any], headers: dict[str, str]) -> tuple[dict[str, Any], str]:
        """Send a message; answer what the stream asks; return the answer and the session."""
        async with self._http.post(self._url, json=message, headers={**self._headers, **headers}) as response:
            session = response.headers.get("mcp-session-id", "")
            if response.content_type != "text/event-stream":
                raw = await response.read()
                answer = json.loads(raw) if raw else {}
                self._look(answer)
                return answer, session
            async for line in response.content:
                if not line.startswith(b"data: ") or not line.strip(b"data: \r\n"):
                    continue
                said = json.loads(line[6:])
                self._look(said)
                if "method" not in said:
                    return said, session
                if "id" in said:
                    content = {"action": "accept", "content": {"canary": self._canary}}
                    await self._post({"jsonrpc": "2.0", "id": said["id"], "result": content}, headers)
        raise AssertionError("the stream ended without an answer")

    async def _legacy(self) -> str:
        params: dict[str, Any] = {
            "protocolVersion": LEGACY,
            "capabilities": CAPABILITIES,
            "clientInfo": {"name": "s", "version": "1"},
        }
        _, session = await self._post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}, {})
        headers = {"MCP-Protocol-Version": LEGACY, "Mcp-Session-Id": session}
        await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"}, headers)
        params = {"name": "sing", "arguments": {"canary": self._canary}, "_meta": {"progressToken": 0}}
        answer, _ = await self._post({"jsonrpc": "2.0", "id": 0, "method": "tools/call", "params": params}, headers)
        return self._text(answer)

    async def _modern(self) -> str:
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
            "io.modelcontextprotocol/clientInfo": {"name": "s", "version": "1"},
            "io.modelcontextprotocol/logLevel": "info",
            "progressToken": 0,
        }
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "sing"}
        params = {"name": "sing", "arguments": {"canary": self._canary}, "_meta": meta}
        while True:
            answer, _ = await self._post({"jsonrpc": "2.0", "id": 0, "method": "tools/call", "params": params}, headers)
            result = answer.get("result") or {}
            if result.get("resultType") != "input_required":
                return self._text(answer)
            given = {key: {"action": "accept", "content": {"canary": self._canary}} for key in result["inputRequests"]}
            params = {**params, "inputResponses": given, "requestState": result["requestState"]}

    def _text(self, answer: dict[str, Any]) -> str:
        if answer.get("id") != 0 or "result" not in answer:
            raise AssertionError(json.dumps(answer)[:200])
        text: str = answer["result"]["content"][0]["text"]
        return text


async def concert(base_url: str, keys: list[str], slugs: dict[str, str], clients: int) -> Report:
    """Have that many clients call at once: the four pairs of eras in equal parts, the keys in turn."""
    report = Report()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=150)) as http:
        pairs = list(itertools.product(("modern", "legacy"), slugs.values()))
        singers = [
            Singer(
                http, f"{base_url}/mcp/{pairs[n % 4][1]}", keys[n % len(keys)], pairs[n % 4][0], f"canary-{n}-{clients}", report
            )
            for n in range(clients)
        ]
        await asyncio.gather(*(singer.sing() for singer in singers))
    return report
