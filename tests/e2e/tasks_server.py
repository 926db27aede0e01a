"""A server of 2026-07-28 with tasks, which go on when a tool says so: `python -m tests.e2e.tasks_server PORT | --stdio`.

`begin` begins a task, `settle` ends the one of that label, `need` makes it ask for input, `rogue` answers with a task whoever asks,
`seen` tells what has come in. Tasks are told of on `subscriptions/listen`.
"""

import asyncio
import itertools
import json
import sys
from typing import Any

EXTENSION = "io.modelcontextprotocol/tasks"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
LONG = 123456789012345678901234567890
"""A number of more digits than most programs keep."""
TOOLS = ("begin", "settle", "need", "rogue", "seen", "plain")
NAME = {
    "method": "elicitation/create",
    "params": {"mode": "form", "message": "Name?", "requestedSchema": {"type": "object", "properties": {}}, "x-new": [1]},
}


class Refused(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, **({"data": data} if data is not None else {})}


class Tasks:
    """What the server knows."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.tasks: dict[str, dict[str, Any]] = {}
        self.followers: dict[str, set[asyncio.Queue[Any]]] = {}
        self.seen: list[dict[str, Any]] = []

    def task(self, label: str) -> dict[str, Any]:
        return next(task for task in self.tasks.values() if task["x-label"] == label)

    def change(self, label: str, **members: Any) -> None:
        task = self.task(label)
        task.update(members, lastUpdatedAt="2026-07-28T00:00:01Z")
        for queue in self.followers.get(task["taskId"], ()):
            queue.put_nowait(dict(task))

    def begin(self, label: str) -> dict[str, Any]:
        id = f"theirs/{next(self.numbers)} \u00fc"
        self.tasks[id] = {
            "taskId": id,
            "status": "working",
            "createdAt": "2026-07-28T00:00:00Z",
            "lastUpdatedAt": "2026-07-28T00:00:00Z",
            "ttlMs": 60_000,
            "pollIntervalMs": 50,
            "x-label": label,
            "x-new": {"long": LONG},
        }
        return {**self.tasks[id], "resultType": "task"}

    def call(self, params: dict[str, Any], declared: bool) -> dict[str, Any]:
        name, arguments = params["name"], params.get("arguments", {})
        label = arguments.get("label", "")
        if name == "rogue" or (name == "begin" and declared):
            return self.begin(label)
        if name == "begin":
            raise Refused(-32021, "Only as a task.", {"requiredCapabilities": {"extensions": {EXTENSION: {}}}})
        text = "done"
        if name == "settle":
            result = {"content": [{"type": "text", "text": f"settled {label}"}], "resultType": "complete", "x-new": LONG}
            self.change(label, status="completed", result=result)
        elif name == "need":
            self.change(label, status="input_required", inputRequests={"who": NAME})
        elif name == "seen":
            text = json.dumps(self.seen)
        return {"content": [{"type": "text", "text": text}], "resultType": "complete"}

    def about(self, method: str, params: dict[str, Any], declared: bool) -> dict[str, Any]:
        if not declared:
            raise Refused(-32021, "Missing capability.", {"requiredCapabilities": {"extensions": {EXTENSION: {}}}})
        task = self.tasks.get(params.get("taskId", ""))
        if task is None:
            raise Refused(-32602, "Unknown task.")
        if method == "tasks/get":
            return {**task, "resultType": "complete"}
        if method == "tasks/cancel":
            self.change(task["x-label"], status="cancelled")
        else:
            task.pop("inputRequests", None)
            self.change(task["x-label"], status="working", **{"x-answers": params["inputResponses"]})
        return {"resultType": "complete", "x-new": LONG}

    def answer(self, message: dict[str, Any], header: str | None) -> dict[str, Any]:
        """Return the result of a request that is no subscription."""
        method, params = message["method"], message.get("params", {})
        meta = params.get("_meta", {})
        capabilities = meta.get(CAPABILITIES, {})
        self.seen.append({"method": method, "params": params, "mcp-name": header})
        declared = EXTENSION in capabilities.get("extensions", {})
        if method == "server/discover":
            return {
                "resultType": "complete",
                "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}, "extensions": {EXTENSION: {"x-setting": 1}}},
                "serverInfo": {"name": "tasks", "version": "1"},
                "ttlMs": 0,
                "cacheScope": "private",
            }
        if method == "tools/list":
            tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
            return {"resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private"}
        if method == "tools/call":
            return self.call(params, declared)
        if method in ("tasks/get", "tasks/update", "tasks/cancel"):
            return self.about(method, params, declared)
        raise Refused(-32601, "Method not found.")

    def reply(self, message: dict[str, Any], header: str | None = None) -> tuple[int, dict[str, Any]]:
        """Return status and response."""
        head = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            return 200, {**head, "result": self.answer(message, header)}
        except Refused as refused:
            return 404 if refused.error["code"] == -32601 else 400, {**head, "error": refused.error}

    async def follow(self, message: dict[str, Any], write: Any) -> None:
        """Serve `subscriptions/listen`: tell of tasks until cancelled."""
        params = message["params"]
        self.seen.append({"method": message["method"], "params": params, "mcp-name": None})
        wanted = params["notifications"]
        known = [id for id in wanted.get("taskIds", []) if id in self.tasks]
        meta = {SUBSCRIPTION: message["id"]}
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for id in known:
            self.followers.setdefault(id, set()).add(queue)
        honoured = {"taskIds": known} if "taskIds" in wanted else {}
        acknowledged = {"notifications": honoured, "_meta": meta}
        try:
            await write({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": acknowledged})
            while True:
                task = await queue.get()
                await write({"jsonrpc": "2.0", "method": "notifications/tasks", "params": {**task, "_meta": meta}})
        finally:
            for id in known:
                self.followers[id].discard(queue)
            self.seen.append({"method": "left", "params": {"taskIds": known}, "mcp-name": None})


async def serve_stdio(tasks: Tasks) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    standing: dict[Any, asyncio.Task[None]] = {}

    async def write(message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    while line := await reader.readline():
        message = json.loads(line)
        if "id" not in message:
            left = standing.pop(message.get("params", {}).get("requestId"), None)
            if left is not None:
                left.cancel()
        elif message["method"] == "subscriptions/listen":
            standing[message["id"]] = asyncio.create_task(tasks.follow(message, write))
        else:
            await write(tasks.reply(message)[1])


def application(tasks: Tasks) -> Any:
    """Return the same over Streamable HTTP (ASGI)."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        message = json.loads(body)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}

        async def start(status: int, kind: bytes) -> None:
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})

        async def write(note: dict[str, Any]) -> None:
            data = b"data: " + json.dumps(note).encode() + b"\n\n"
            await send({"type": "http.response.body", "body": data, "more_body": True})

        if message.get("method") == "subscriptions/listen":
            await start(200, b"text/event-stream")
            following = asyncio.create_task(tasks.follow(message, write))
            while (await receive())["type"] != "http.disconnect":
                continue
            following.cancel()
            return
        status, answer = tasks.reply(message, headers.get("mcp-name"))
        await start(status, b"application/json")
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    return app


if __name__ == "__main__":
    if sys.argv[1] == "--stdio":
        asyncio.run(serve_stdio(Tasks()))
    else:
        import uvicorn

        uvicorn.run(application(Tasks()), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
