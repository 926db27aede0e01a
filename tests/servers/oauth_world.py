"""A real authorization server and a protected MCP server on loopback, both strict, with knobs for what a test needs to go wrong.

The authorization server agrees at once for whoever `subject` names. It demands PKCE with S256, the exact redirect address, `resource` in both
requests, and rotates refresh tokens: one that is used twice ends its family. The MCP server takes its tokens alone and says whose they are.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

MODERN = "2026-07-28"


@dataclass
class Grant:
    """What a token or a code stands for."""

    subject: str
    client_id: str
    scope: str
    resource: str
    family: str
    challenge: str = ""
    redirect_uri: str = ""
    until: float = 0.0


@dataclass
class Knobs:
    """What may be set by a test, at any time."""

    subject: str = "ann"
    token_seconds: int | None = 3600
    refresh: bool = True
    token_delay: float = 0.0
    token_status: int = 0
    """Answer token requests with this status."""
    iss: str = "right"
    """`right`, `wrong` or `missing`, in answers to the authorization request."""
    s256: bool = True
    registration: bool = True
    documents: bool = False
    issuer: str = ""
    """What the metadata names instead of the issuer."""
    resource: str = ""
    resource_metadata: str = ""
    scope: str = "mcp:basic"
    tool_scopes: dict[str, str] = field(default_factory=dict)
    """Tool → the scope that it takes."""
    decline: str = ""
    """An error in answer to the authorization request."""
    redirects: bool = False
    """The authorization server's metadata redirects elsewhere."""
    granted: str | None = None
    """What tokens say that they reach; None: what was asked for."""
    method: str = "none"


class World:
    """Both servers, run in threads: `with World() as world`."""

    def __init__(self) -> None:
        self.knobs = Knobs()
        self.codes: dict[str, Grant] = {}
        self.access: dict[str, Grant] = {}
        self.refresh: dict[str, Grant] = {}
        self.spent: dict[str, str] = {}
        """Refresh tokens that were used → their family."""
        self.clients: dict[str, dict[str, Any]] = {}
        self.asked: Counter[str] = Counter()
        """Requests, by what they were."""
        self.forms: list[dict[str, str]] = []
        """What token requests said."""
        self.calls: list[tuple[str, str]] = []
        """Tool and subject of each call that was run."""
        self.lock = threading.Lock()
        self._servers = [_serve(self, _Authority), _serve(self, _Protected)]
        self.issuer, self.origin = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    @property
    def url(self) -> str:
        """The MCP server's address."""
        return f"{self.origin}/mcp"

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def secrets(self) -> set[str]:
        """Every token and secret that was ever given."""
        given = {*self.access, *self.refresh, *self.spent, *self.codes}
        return given | {one["client_secret"] for one in self.clients.values() if one.get("client_secret")}

    def revoke_all(self) -> None:
        """Forget all access tokens."""
        with self.lock:
            self.access.clear()

    def end_families(self) -> None:
        """Forget all tokens."""
        with self.lock:
            self.access.clear()
            self.refresh.clear()

    def give(self, grant: Grant) -> dict[str, Any]:
        """Make tokens."""
        knobs = self.knobs
        token, seconds = f"at-{secrets.token_hex(12)}", knobs.token_seconds
        scope = grant.scope if knobs.granted is None else knobs.granted
        life = seconds if seconds is not None else 3600
        self.access[token] = Grant(
            grant.subject, grant.client_id, scope, grant.resource, grant.family, until=time.time() + life
        )
        answer: dict[str, Any] = {"access_token": token, "token_type": "bearer", "scope": scope}
        if seconds is not None:
            answer["expires_in"] = seconds
        if knobs.refresh and grant.family:
            again = f"rt-{secrets.token_hex(12)}"
            self.refresh[again] = grant
            answer["refresh_token"] = again
        return answer


def _serve(world: World, handler: type["_Handler"]) -> ThreadingHTTPServer:
    bound = type(handler.__name__, (handler,), {"world": world})
    server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    world: World
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, value: Any = None, **headers: str) -> None:
        raw = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        if value is not None:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


class _Authority(_Handler):
    def do_GET(self) -> None:
        world, knobs = self.world, self.world.knobs
        parts = urlsplit(self.path)
        if parts.path == "/.well-known/oauth-authorization-server":
            world.asked["metadata"] += 1
            if knobs.redirects:
                self.answer(302, Location=f"{world.issuer}/elsewhere")
                return
            self.answer(200, self.metadata())
        elif parts.path == "/elsewhere":
            world.asked["followed"] += 1
            self.answer(200, self.metadata())
        elif parts.path == "/authorize":
            self.authorize({name: values[0] for name, values in parse_qs(parts.query).items()})
        else:
            self.answer(404)

    def metadata(self) -> dict[str, Any]:
        issuer, knobs = self.world.issuer, self.world.knobs
        said: dict[str, Any] = {
            "issuer": knobs.issuer or issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "revocation_endpoint": f"{issuer}/revoke",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
            "authorization_response_iss_parameter_supported": True,
            "client_id_metadata_document_supported": knobs.documents,
        }
        if knobs.s256:
            said["code_challenge_methods_supported"] = ["S256"]
        if knobs.registration:
            said["registration_endpoint"] = f"{issuer}/register"
        return said

    def authorize(self, given: dict[str, str]) -> None:
        world, knobs = self.world, self.world.knobs
        world.asked["authorize"] += 1
        world.forms.append({"authorize": "1", **given})
        client = world.clients.get(given.get("client_id", ""))
        known = client is not None and given.get("redirect_uri") in client["redirect_uris"]
        if not known or given.get("code_challenge_method") != "S256" or not given.get("resource"):
            self.answer(400, {"error": "invalid_request"})
            return
        back: dict[str, str] = {"state": given["state"]}
        if knobs.decline:
            back["error"] = knobs.decline
        else:
            code = f"code-{secrets.token_hex(8)}"
            world.codes[code] = Grant(
                knobs.subject, given["client_id"], given.get("scope", ""), given["resource"], secrets.token_hex(4),
                given["code_challenge"], given["redirect_uri"],
            )  # fmt: skip
            back["code"] = code
        if knobs.iss != "missing":
            back["iss"] = world.issuer if knobs.iss == "right" else "https://other.example"
        self.answer(302, Location=f"{given['redirect_uri']}?{urlencode(back)}")

    def do_POST(self) -> None:
        world = self.world
        raw = self.body()
        if self.path == "/register":
            with world.lock:
                self.register(json.loads(raw))
        elif self.path == "/revoke":
            form = {name: values[0] for name, values in parse_qs(raw.decode()).items()}
            world.asked["revoke"] += 1
            with world.lock:
                world.access.pop(form["token"], None)
                world.refresh.pop(form["token"], None)
            self.answer(200, {})
        elif self.path == "/token":
            form = {name: values[0] for name, values in parse_qs(raw.decode()).items()}
            if world.knobs.token_delay:
                time.sleep(world.knobs.token_delay)  # the server's own slowness, not a wait of the test
            with world.lock:
                self.token(form)
        else:
            self.answer(404)

    def register(self, wanted: dict[str, Any]) -> None:
        world, knobs = self.world, self.world.knobs
        world.asked["register"] += 1
        id = f"client-{secrets.token_hex(4)}"
        client = {"client_id": id, "redirect_uris": wanted["redirect_uris"], "token_endpoint_auth_method": knobs.method}
        if knobs.method != "none":
            client["client_secret"] = f"cs-{secrets.token_hex(8)}"
        world.clients[id] = {**client, "application_type": wanted.get("application_type")}
        self.answer(201, client)

    def token(self, form: dict[str, str]) -> None:
        world, knobs = self.world, self.world.knobs
        world.asked[form.get("grant_type", "?")] += 1
        world.forms.append(form)
        if knobs.token_status:
            self.answer(knobs.token_status, {"error": "temporarily_unavailable"})
            return
        client = self.client(form)
        if client is None:
            self.answer(401, {"error": "invalid_client"})
            return
        grant = self.granted(form, client)
        if grant is None or form.get("resource") != grant.resource:
            self.answer(400, {"error": "invalid_grant"})
            return
        self.answer(200, world.give(grant), Cache_Control="no-store")

    def client(self, form: dict[str, str]) -> dict[str, Any] | None:
        id, secret, method = form.get("client_id", ""), form.get("client_secret", ""), "client_secret_post"
        basic = self.headers.get("Authorization", "")
        if basic.startswith("Basic "):
            id, _, secret = base64.b64decode(basic[6:]).decode().partition(":")
            id, secret, method = unquote(id), unquote(secret), "client_secret_basic"
        client = self.world.clients.get(id)
        if client is None:
            return None
        if client["token_endpoint_auth_method"] == "none":
            return client if not secret else None
        fits = client["token_endpoint_auth_method"] == method and client["client_secret"] == secret
        return client if fits else None

    def granted(self, form: dict[str, str], client: dict[str, Any]) -> Grant | None:
        world, kind = self.world, form.get("grant_type")
        if kind == "client_credentials":
            return Grant(client["client_id"], client["client_id"], form.get("scope", ""), form.get("resource", ""), "")
        if kind == "authorization_code":
            grant = world.codes.pop(form.get("code", ""), None)
            proof = (
                base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()).decode().rstrip("=")
            )
            good = grant is not None and proof == grant.challenge and form.get("redirect_uri") == grant.redirect_uri
            return grant if good and grant is not None and grant.client_id == client["client_id"] else None
        token = form.get("refresh_token", "")
        if token in world.spent:  # used twice: whoever holds the family is not to be trusted
            world.asked["reuse"] += 1
            family = world.spent[token]
            world.refresh = {text: one for text, one in world.refresh.items() if one.family != family}
            world.access = {text: one for text, one in world.access.items() if one.family != family}
            return None
        grant = world.refresh.pop(token, None)
        if grant is None or grant.client_id != client["client_id"]:
            return None
        world.spent[token] = grant.family
        return grant


class _Protected(_Handler):
    def do_GET(self) -> None:
        world, knobs = self.world, self.world.knobs
        if self.path == "/.well-known/oauth-protected-resource/mcp":
            world.asked["resource metadata"] += 1
            said = {
                "resource": knobs.resource or world.url,
                "authorization_servers": [world.issuer],
                "scopes_supported": ["mcp:basic"],
            }
            self.answer(200, said)
        else:
            self.answer(405 if self.path == "/mcp" else 404)

    def do_POST(self) -> None:
        world, knobs = self.world, self.world.knobs
        message = json.loads(self.body())
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with world.lock:
            grant = world.access.get(token)
        world.asked[message.get("method", "?")] += 1
        if grant is None or grant.until < time.time() or grant.resource != world.url:
            where = knobs.resource_metadata or f"{world.origin}/.well-known/oauth-protected-resource/mcp"
            self.answer(
                401, {"error": "invalid_token"}, WWW_Authenticate=f'Bearer scope="{knobs.scope}", resource_metadata="{where}"'
            )
            return
        if "id" not in message:
            self.answer(202)
            return
        method, params = message["method"], message.get("params") or {}
        if method == "tools/call":
            wanted = knobs.tool_scopes.get(params["name"])
            if wanted is not None and wanted not in grant.scope.split():
                self.answer(
                    403,
                    {"error": "insufficient_scope"},
                    WWW_Authenticate=f'Bearer error="insufficient_scope", scope="{wanted}"',
                )
                return
            world.calls.append((params["name"], grant.subject))
        self.answer(200, {"jsonrpc": "2.0", "id": message["id"], **self.reply(method, params, grant)})

    def reply(self, method: str, params: dict[str, Any], grant: Grant) -> dict[str, Any]:
        if method == "server/discover":
            info = {"io.modelcontextprotocol/serverInfo": {"name": "protected", "version": "1"}}
            return {"result": {
                "resultType": "complete", "supportedVersions": [MODERN], "capabilities": {"tools": {}}, "_meta": info,
                "ttlMs": 0, "cacheScope": "private",
            }}  # fmt: skip
        if method == "tools/list":
            tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("whoami", "admin")]
            return {"result": {"resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private"}}
        if method == "tools/call":
            return {
                "result": {
                    "resultType": "complete",
                    "content": [{"type": "text", "text": f"{params['name']}: {grant.subject}"}],
                }
            }
        return {"error": {"code": -32601, "message": "not here"}}
