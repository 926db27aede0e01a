"""Sessions of the initialize era with streams: calls whose stream is open, streams that are taken up, and the HTTP+SSE transport."""

import concurrent.futures
import json

from tests.e2e.events import EventStream
from tests.e2e.paced import Paced
from tests.e2e.support import Answer, Client, exchange, unique

FORM = {"message": "Name?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}


def initialized(product, server, revision: str = "2025-11-25", key: str = "", capabilities: dict | None = None) -> Client:
    client = Client(product, "legacy", f"/mcp/{server.slug}", key)
    params = {"protocolVersion": revision, "capabilities": capabilities or {}, "clientInfo": {"name": "broken", "version": "1"}}
    answer = client.send(client.message("initialize", params), {"MCP-Protocol-Version": None})
    assert answer.result["protocolVersion"] == revision
    client.session = answer.headers["mcp-session-id"]
    return client


def call(client: Client, mark: str, *, id: int = 0, **more) -> EventStream:
    """Call the tool; the stream opens with the first message on it."""
    message = client.message("tools/call", {"name": "work", "arguments": {"mark": mark}})
    return EventStream(
        client.product, "POST", client.path, client.headers(message), {**message, "id": id or message["id"]}, **more
    )


def come_back(client: Client, last: str, **more) -> EventStream:
    headers = {**client.headers(), "Accept": "text/event-stream", "Last-Event-ID": last}
    del headers["Content-Type"]
    return EventStream(client.product, "GET", client.path, headers, **more)


def started(client: Client, server: Paced, *, id: int = 0, **more) -> tuple[str, EventStream, list]:
    """Begin a call; return its mark, its stream and the first events on it, to the first with a message."""
    mark = unique("mark")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        opening = pool.submit(call, client, mark, id=id, **more)
        server.begun(mark)
        server.log(mark, "one")
        stream = opening.result(20)
    assert stream.headers["content-type"].startswith("text/event-stream")
    events = [stream.next()]
    while not events[-1].data:
        events.append(stream.next())
    return mark, stream, events


def data_of(messages: list) -> list:
    """Return what log messages say, and the text of results."""
    return [
        one["params"]["data"] if "method" in one else one["result"]["content"][0]["text"] if "result" in one else one["error"]
        for one in messages
    ]


def standalone(client: Client, last: str = "") -> EventStream:
    headers = {**client.headers(), "Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
    del headers["Content-Type"]
    return EventStream(client.product, "GET", client.path, headers)


class Sse:
    """A client that says exactly what it is told to; a context manager."""

    def __init__(self, product, path: str = "/sse", key: str = "", **headers: str) -> None:
        self.product = product
        self.headers = {"Authorization": f"Bearer {key or product.key}", **headers}
        self.stream = EventStream(product, "GET", path, {**self.headers, "Accept": "text/event-stream"})
        self.address = ""
        if self.stream.status == 200:
            first = self.stream.next()
            assert first.event == "endpoint"
            self.address = first.data

    def __enter__(self) -> "Sse":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.__exit__()

    def post(self, body, address: str = "", **headers: str) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return exchange(
            self.product, "POST", address or self.address, raw, {**self.headers, "Content-Type": "application/json", **headers}
        )

    def ask(self, method: str, id=1, **params):
        """Send a request and return the next message on the stream."""
        self.send(method, id, **params)
        return self.stream.message()

    def send(self, method: str, id=1, **params) -> None:
        answer = self.post({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
        assert (answer.status, answer.body) == (202, b""), answer.body

    def initialize(self, revision: str = "2025-11-25", **capabilities) -> "Sse":
        info = {"name": "old-client", "version": "1"}
        answer = self.ask("initialize", "hello", protocolVersion=revision, capabilities=capabilities, clientInfo=info)
        assert answer["result"]["protocolVersion"] == revision
        assert self.post({"jsonrpc": "2.0", "method": "notifications/initialized"}).status == 202
        return self

    def work(self, mark: str, id=1) -> None:
        self.send("tools/call", id, name="work", arguments={"mark": mark})


def refused(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.type
