"""What the suite's client scenarios start: the official SDK's client, at the scenario's server or at a Switchyard before it.

    python -m tests.conformance.client URL      # the suite appends the URL and names the scenario in the environment

With SWITCHYARD_CONFORMANCE_URL, …_KEY and …_PASSWORD in the environment the server is registered with that Switchyard, and the client calls
through it: then the scenario judges Switchyard's own client. Exit code 1 when the scenario could not be carried through.
"""

import asyncio
import contextlib
import json
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import mcp
import mcp_types as types
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

REDIRECT = "http://localhost:3000/callback"
METADATA_URL = "https://conformance-test.local/client-metadata.json"
"""The client id that `auth/basic-cimd` expects."""
SECONDS = 20.0
"""For the gateway to find out what a server offers."""
SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
REVISION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "2025-11-25")
CONTEXT: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
SWITCHYARD = os.environ.get("SWITCHYARD_CONFORMANCE_URL", "")
KEY = os.environ.get("SWITCHYARD_CONFORMANCE_KEY", "")
PASSWORD = os.environ.get("SWITCHYARD_CONFORMANCE_PASSWORD", "")
CONNECTS = 2
"""How often a person agrees before they give up."""


async def accept(context: Any, params: Any) -> types.ElicitResult:
    """Accept what is asked, with the defaults that the schema names, and something of the right kind where it names none."""
    properties = (getattr(params, "requested_schema", None) or {}).get("properties", {})
    kinds: dict[str, Any] = {"boolean": True, "integer": 1, "number": 1.0, "array": []}
    content = {name: schema.get("default", kinds.get(schema.get("type"), "text")) for name, schema in properties.items()}
    return types.ElicitResult(action="accept", content=content)


# Access


class Kept:
    """Tokens and the client's registration, in memory."""

    def __init__(self, info: OAuthClientInformationFull | None) -> None:
        self.tokens: OAuthToken | None = None
        self.info = info

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.info

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.info = client_info


def authorisation(url: str) -> OAuthClientProvider:
    """Return the SDK's OAuth client, whose user agrees at once."""
    answered: dict[str, list[str]] = {}

    async def redirect(address: str) -> None:
        async with httpx2.AsyncClient() as http:
            answer = await http.get(address, follow_redirects=False)
        answered.clear()
        answered.update(parse_qs(urlsplit(answer.headers["location"]).query))

    async def callback() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**{name: answered[name][0] for name in ("code", "state", "iss") if name in answered})

    info = None
    if SCENARIO == "auth/pre-registration":
        info = OAuthClientInformationFull(
            client_id=CONTEXT["client_id"],
            client_secret=CONTEXT["client_secret"],
            redirect_uris=[AnyUrl(REDIRECT)],
            token_endpoint_auth_method="client_secret_basic",
            issuer=CONTEXT.get("issuer"),
        )
    metadata = OAuthClientMetadata(
        client_name="switchyard-conformance",
        redirect_uris=[AnyUrl(REDIRECT)],
        grant_types=["authorization_code", "refresh_token"],
    )
    return OAuthClientProvider(url, metadata, Kept(info), redirect, callback, METADATA_URL)


# Through a Switchyard


class Operator:
    """Whoever runs the Switchyard: registers the scenario's server with a key, and connects it with a browser that is signed in."""

    def __init__(self, http: httpx2.AsyncClient, slug: str) -> None:
        self.http = http
        self.slug = slug

    async def register(self, url: str) -> None:
        """Register the scenario's server, connect it where it wants that, and have its offer looked at. Raises RuntimeError."""
        oauth = SCENARIO.startswith("auth/")
        entry = {"slug": self.slug, "transport": "http", "url": url, **({"auth": "oauth"} if oauth else {})}
        (await self.http.post("/api/v1/servers/", json=entry)).raise_for_status()
        if SCENARIO == "auth/pre-registration":
            client = {name: CONTEXT[name] for name in ("issuer", "client_id", "client_secret")}
            entered = await self.http.put(
                f"/api/v1/servers/{self.slug}/oauth-client/",
                json={**client, "token_endpoint_auth_method": "client_secret_basic"},
            )
            entered.raise_for_status()
        for left in range(CONNECTS if oauth else 1, 0, -1):
            if oauth:
                await self.connect()
            failure = await self.discover()
            if not failure:
                return
            if left == 1:
                raise RuntimeError(f"not discovered: {failure}")

    async def connect(self) -> None:
        """Connect the server, as a person does who agrees at once. Raises RuntimeError with what was wrong."""
        begun = await self.http.post(f"/api/v1/servers/{self.slug}/connect/", json={})
        if begun.status_code != 200:
            raise RuntimeError(f"no connect: {begun.text[:300]}")
        async with httpx2.AsyncClient(timeout=30) as browser:
            await sign_in(browser)
            agreed = await browser.get(begun.json()["authorization_url"], follow_redirects=False)
            back = await browser.get(agreed.headers["location"], follow_redirects=False)
        if back.status_code != 302 or "login" in back.headers["location"]:
            raise RuntimeError(f"no connection: HTTP {back.status_code}")

    async def discover(self) -> str:
        """Have the server's offer looked at; returns why that failed."""
        async with asyncio.timeout(SECONDS):
            while True:
                answer = await self.http.post(f"/api/v1/servers/{self.slug}/discover/")
                if answer.status_code != 409:  # one that began by itself still runs
                    return str(answer.json().get("error", ""))
                await asyncio.sleep(0.1)

    async def forget(self) -> None:
        await self.http.delete(f"/api/v1/servers/{self.slug}/")


async def sign_in(browser: httpx2.AsyncClient) -> None:
    page = await browser.get(f"{SWITCHYARD}/admin/login/")
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert token is not None
    form = {"username": "admin", "password": PASSWORD, "csrfmiddlewaretoken": token[1], "next": "/admin/"}
    answer = await browser.post(f"{SWITCHYARD}/admin/login/", data=form, headers={"Referer": f"{SWITCHYARD}/admin/login/"})
    assert answer.status_code == 302, f"not signed in: HTTP {answer.status_code}"


OPERATOR: Operator | None = None


@contextlib.asynccontextmanager
async def connected(url: str, mode: str) -> AsyncIterator[mcp.Client]:
    """Give a client of the SDK, at the server or at the Switchyard before it."""
    if SWITCHYARD:
        headers = {"Authorization": f"Bearer {KEY}"}
        http = httpx2.AsyncClient(base_url=SWITCHYARD, headers=headers, timeout=30)
    else:
        http = httpx2.AsyncClient(timeout=30, auth=authorisation(url) if SCENARIO.startswith("auth/") else None)
    async with http:
        if not SWITCHYARD:
            async with speaking(http, url, mode) as client:
                yield client
            return
        global OPERATOR
        OPERATOR = Operator(http, f"c-{secrets.token_hex(6)}")
        try:
            await OPERATOR.register(url)
            async with speaking(http, f"{SWITCHYARD}/mcp/{OPERATOR.slug}", mode) as client:
                yield client
        finally:  # the scenario's server ends when its connections do
            await OPERATOR.forget()


def speaking(http: httpx2.AsyncClient, url: str, mode: str) -> mcp.Client:
    return mcp.Client(streamable_http_client(url, http_client=http), mode=mode, elicitation_callback=accept)


# Scenarios

Play = Callable[[mcp.Client], Awaitable[None]]


async def names(client: mcp.Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


async def list_alone(client: mcp.Client) -> None:
    await client.list_tools()


async def call_all(client: mcp.Client) -> None:
    """Call every tool that is listed; one that is refused does not keep the others from being called.

    Where the server wants a wider authorization the operator connects it again, once for each tool, and it is called again.
    """
    for name in await names(client):
        try:
            await client.call_tool(name, {})
        except mcp.MCPError as error:
            if OPERATOR is not None and str((error.data or {}).get("type", "")).endswith("/scope-needed"):
                await OPERATOR.connect()
                await client.call_tool(name, {})


async def add_numbers(client: mcp.Client) -> None:
    await client.list_tools()
    await client.call_tool("add_numbers", {"a": 5, "b": 3})


async def standard_headers(client: mcp.Client) -> None:
    await call_all(client)
    for resource in (await client.list_resources()).resources:
        await client.read_resource(str(resource.uri))
    for prompt in (await client.list_prompts()).prompts:
        await client.get_prompt(prompt.name)


async def custom_headers(client: mcp.Client) -> None:
    await client.list_tools()
    for call in CONTEXT["toolCalls"]:
        await client.call_tool(call["name"], call["arguments"])


async def invalid_headers(client: mcp.Client) -> None:
    """Call every tool that is listed, with arguments that its schema takes."""
    kinds: dict[str, Any] = {"string": "us-west1", "object": {}, "array": [], "number": 1.5}
    for tool in (await client.list_tools()).tools:
        arguments = {name: kinds.get(schema["type"]) for name, schema in tool.input_schema["properties"].items()}
        with contextlib.suppress(mcp.MCPError):
            await client.call_tool(tool.name, arguments)


async def rounds(client: mcp.Client) -> None:
    await client.list_tools()
    for name in ("test_mrtr_echo_state", "test_mrtr_unrelated", "test_mrtr_no_state", "test_mrtr_no_result_type"):
        await client.call_tool(name, {})


async def echo_schema(client: mcp.Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    schema = tools["json_schema_2020_12_tool"].input_schema
    await client.call_tool("json_schema_echo", {"schema": schema})


PLAYS: dict[str, Play] = {
    "initialize": list_alone,
    "tools_call": add_numbers,
    "request-metadata": list_alone,
    "json-schema-ref-no-deref": list_alone,
    "http-standard-headers": standard_headers,
    "http-custom-headers": custom_headers,
    "http-invalid-tool-headers": invalid_headers,
    "sep-2322-client-request-state": rounds,
    "json-schema-2020-12-preservation": echo_schema,
}


async def main(url: str) -> None:
    """Play the scenario. Raises what goes wrong."""
    mode = "auto" if REVISION >= "2026" else "legacy"
    if SCENARIO == "http-invalid-tool-headers" and SWITCHYARD:
        mode = "legacy"  # a client of 2026-07-28 leaves such tools alone by itself: here the gateway has to
    async with asyncio.timeout(50), connected(url, mode) as client:
        await PLAYS.get(SCENARIO, call_all)(client)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1]))
    except* Exception as group:
        for error in group.exceptions:
            print(f"{type(error).__name__}: {error}"[:500], file=sys.stderr)
        sys.exit(1)
