"""A client of either era with every byte of its messages in its hands."""

import http.client
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from mcp.shared.inbound import encode_header_value

from tests.bridge.talk import CAPABILITIES, LEGACY, LOG_LEVEL, MODERN, Json

META = "io.modelcontextprotocol/"
INFO = {"name": "bridge-raw", "version": "1.0"}
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


@dataclass
class Said:
    """What one request brought: the response, and the notifications before it."""

    response: Json
    notices: list[Json] = field(default_factory=list)

    @property
    def result(self) -> Json:
        """The result."""
        assert "result" in self.response, self.response
        return self.response["result"]

    @property
    def error(self) -> Json:
        """The error."""
        assert "error" in self.response, self.response
        return self.response["error"]


class RawClient:
    """Says what it is told to, in one session."""

    def __init__(self, url: str, key: str, era: str) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._path = parts.hostname or "", parts.port or 80, parts.path
        self._key = key
        self.modern = era == "modern"
        self._ids: Iterator[int] = itertools.count(1)
        self._session = ""
        self._kept: http.client.HTTPConnection | None = None
        if not self.modern:
            hello = {"protocolVersion": LEGACY, "capabilities": CAPABILITIES, "clientInfo": INFO}
            self.request("initialize", hello)
            self._post(self._connection(), {"jsonrpc": "2.0", "method": "notifications/initialized"}).read()

    def request(self, method: str, params: Json, on_request: Callable[[Json], Json] | None = None) -> Said:
        """Send a request; return what it brought. `on_request` gives the outcome of a request of the server's."""
        id = next(self._ids)
        if self.modern:
            own = {META + "protocolVersion": MODERN, META + "clientInfo": INFO, META + "clientCapabilities": CAPABILITIES}
            params = {**params, "_meta": {**params.get("_meta", {}), **own, LOG_LEVEL: "debug"}}
        try:
            return self._exchange({"jsonrpc": "2.0", "id": id, "method": method, "params": params}, on_request)
        except BaseException:
            self.close()  # what is still on its way must not be read as the next answer
            raise

    def _exchange(self, message: Json, on_request: Callable[[Json], Json] | None) -> Said:
        response = self._post(self._connection(), message)
        if self._session == "":
            self._session = response.getheader("Mcp-Session-Id") or ""
        notices: list[Json] = []
        for one in _messages(response):
            if "method" not in one:
                assert one["id"] == message["id"], one
                response.read()
                return Said(one, notices)
            if "id" in one:
                assert on_request is not None, one
                answer = {"jsonrpc": "2.0", "id": one["id"], **on_request(one)}
                beside = http.client.HTTPConnection(self._host, self._port, timeout=20)
                assert self._post(beside, answer).status == 202
                beside.close()
            else:
                notices.append(one)
        raise AssertionError(f"no response; {response.status}, {notices}")

    def close(self) -> None:
        """Close the connection."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _connection(self) -> http.client.HTTPConnection:
        if self._kept is None:
            self._kept = http.client.HTTPConnection(self._host, self._port, timeout=20)
        return self._kept

    def _post(self, connection: http.client.HTTPConnection, message: Json) -> http.client.HTTPResponse:
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": MODERN if self.modern else LEGACY,
        }
        if self._session:
            headers["Mcp-Session-Id"] = self._session
        if self.modern:
            headers["Mcp-Method"] = message["method"]
            if message["method"] in NAMED:
                headers["Mcp-Name"] = encode_header_value(message["params"][NAMED[message["method"]]])
        connection.request("POST", self._path, json.dumps(message).encode(), headers)
        return connection.getresponse()


def _messages(response: http.client.HTTPResponse) -> Iterator[Any]:
    """Give the messages of an answer as they come."""
    if not response.getheader("Content-Type", "").startswith("text/event-stream"):
        yield json.loads(response.read())
        return
    while line := response.readline():
        if line.startswith(b"data:") and (data := line[5:].strip()):  # the event that opens a stream is empty
            yield json.loads(data)
