"""MCP Apps (`io.modelcontextprotocol/ui`) and trace context: what passes between the official SDK's server and its client."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import mcp
import pytest
from mcp.client.extension import advertise
from mcp.client.streamable_http import streamable_http_client

from tests.e2e.apps_server import HTML, URI
from tests.e2e.support import Client, audit_mark, audit_rows, connect, made, program, rest, unique
from tests.engines import end_with_parent, free_port
from tests.product import ROOT
from tests.support import eventually

pytestmark = pytest.mark.once  # what it is about does not know the database

EXTENSION = "io.modelcontextprotocol/ui"
MIME = "text/html;profile=mcp-app"
SETTINGS = {"mimeTypes": [MIME], "x-new": {"a": 1}}
UI = {"csp": {"connectDomains": ["https://time.example"]}, "permissions": {"clipboardWrite": {}}, "prefersBorder": True}
MODES = {"modern": "auto", "legacy": "legacy"}


@pytest.fixture(scope="module", params=["modern", "legacy", "dual"])
def slug(request, shared_product) -> Iterator[str]:
    """The server with apps, in one era or both."""
    with program("tests.e2e.apps_server", request.param) as url:
        slug = unique(f"apps-{request.param}")
        made(rest(shared_product, "POST", "servers/", {"slug": slug, "transport": "http", "url": url}))
        eventually(lambda: "clock" in Client(shared_product, "modern", f"/mcp/{slug}").names(), within=25)
        revisions = rest(shared_product, "GET", f"servers/{slug}/").json["revisions"]
        eras = {"modern": [True], "legacy": [False], "dual": [True, False]}[request.param]
        assert sorted({revision >= "2026" for revision in revisions}) == sorted(eras)
        yield slug


@contextlib.asynccontextmanager
async def connected(product, slug: str, era: str, *extensions: Any) -> AsyncIterator[mcp.Client]:
    async with (
        httpx2.AsyncClient(headers=product.headers) as http,
        mcp.Client(
            streamable_http_client(f"{product.base_url}/mcp/{slug}", http_client=http), mode=MODES[era], extensions=extensions
        ) as client,
    ):
        yield client


def plain(model: Any) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


@pytest.mark.parametrize("era", MODES)
async def test_an_app_comes_through(shared_product, slug, era):
    async with connected(shared_product, slug, era, advertise(EXTENSION, SETTINGS)) as client:
        (tool,) = (await client.list_tools()).tools
        (resource,) = (await client.list_resources()).resources
        (content,) = (await client.read_resource(URI)).contents
        result = await client.call_tool("clock", {})
    assert plain(tool)["_meta"] == {
        "ui": {"resourceUri": URI, "visibility": ["model", "app"]},
        "com.example/kept": {"a": [1]},
    }
    assert (resource.mime_type, plain(resource)["_meta"]["ui"]) == (MIME, UI)
    assert (content.mime_type, content.text, plain(content)["_meta"]["ui"]) == (MIME, HTML, UI)
    assert result.content[0].text == "apps: True", "the client's word reaches the server"


@pytest.mark.parametrize("era", MODES)
async def test_a_client_without_apps_is_not_said_to_have_them(shared_product, slug, era):
    async with connected(shared_product, slug, era) as client:
        assert (await client.call_tool("clock", {})).content[0].text == "apps: False"
    async with connected(shared_product, slug, era, advertise(EXTENSION, {"mimeTypes": ["text/plain"]})) as client:
        assert (await client.call_tool("clock", {})).content[0].text == "apps: False"


@pytest.mark.parametrize("era", MODES)
def test_the_servers_word_reaches_the_client(shared_product, slug, era):
    offered = rest(shared_product, "GET", f"servers/{slug}/").json["capabilities"].get("extensions")
    client = Client(shared_product, era, f"/mcp/{slug}")
    if era == "modern":
        said = client.ask("server/discover").result["capabilities"]
    else:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        said = client.send(client.message("initialize", params), {"MCP-Protocol-Version": None}).result["capabilities"]
    assert said.get("extensions") == offered
    if "legacy" not in slug:  # the SDK announces extensions in the modern era alone
        assert EXTENSION in offered


# Trace context

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = {
    "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
    "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
    "baggage": "userId=alice,x=%20y",
}


@pytest.mark.parametrize("era", MODES)
@pytest.mark.parametrize(
    ("meta", "trace"),
    [
        (SPAN, TRACE),
        ({**SPAN, "traceparent": "not one"}, None),
        ({"traceparent": [1], "tracestate": 7, "baggage": {"a": None}}, None),
    ],
    ids=["valid", "invalid", "kinds"],
)
def test_the_trace_passes_and_is_recorded(shared_product, traced, era, meta, trace):
    since = audit_mark(shared_product)
    client = connect(shared_product, era, f"/mcp/{traced}")
    answer = client.ask("tools/call", {"name": "x_echo_meta", "arguments": {}, "_meta": meta})
    came = json.loads(answer.result["content"][0]["text"])["meta"]
    assert {name: came.get(name) for name in meta} == meta
    rows = audit_rows(shared_product, "server = ? AND event_type LIKE 'call.%'", traced, since=since)
    assert len(rows) == 2
    assert {row["trace"] for row in rows} == {trace}


@pytest.fixture(scope="module")
def traced(shared_product) -> Iterator[str]:
    """The conformance fixture, which tells what `_meta` came."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.fixture", str(port)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=end_with_parent(signal.SIGKILL),
    )
    try:
        slug = unique("traced")

        def listening() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        eventually(listening, within=30)
        made(
            rest(
                shared_product,
                "POST",
                "servers/",
                {"slug": slug, "transport": "http", "url": f"http://127.0.0.1:{port}/mcp"},
            )
        )
        eventually(lambda: "x_echo_meta" in Client(shared_product, "modern", f"/mcp/{slug}").names(), within=25)
        yield slug
    finally:
        process.kill()
        process.wait()
