"""Two tenants on one installation: the other's things are, byte for byte, things that do not exist."""

import json
import re
import sys
import uuid

import pytest

from tests.e2e.rogue import Rogue
from tests.e2e.support import ERAS, Client, audit_rows, connect, exchange, made, recorded, rest, unique
from tests.product import ROOT
from tests.support import eventually

PHRASE = "a long pass phrase 4711"


class Side:
    """A tenant with one of everything, made by the installation's superuser, and an administrator's key of its own."""

    def __init__(self, product, server):
        self.product, self.tenant = product, unique("tenant")
        made(rest(product, "POST", "tenants/", {"slug": self.tenant}))
        self.user = self.make("users/", {"username": unique("user"), "password": PHRASE, "roles": ["admin"]})
        self.admin = self.make("api-keys/", {"name": unique("admin"), "owner": self.user["username"], "inherits_owner": True})
        self.key = self.admin["key"]
        self.slug = unique("server")
        self.server = self.make("servers/", {"slug": self.slug, "transport": "http", "url": server.url})
        root = Client(product, "modern", f"/mcp/{self.slug}", self.key)
        self.grant = self.make("grants/", {"kind": "server", "server": self.slug, "user": self.user["username"]})
        eventually(lambda: root.ask("tools/list").status == 200 and root.names() == ["act"], within=25)
        self.tool = self.get(f"tools/?server={self.slug}")["results"][0]
        self.toolset = self.make("toolsets/", {"slug": unique("set"), "entries": [{"server": self.slug, "pattern": "*"}]})
        self.role = self.make("roles/", {"slug": unique("role"), "permissions": ["server.read"]})
        assert root.call("act", {"how": "ok", "mark": self.tenant}).result
        self.membership = self.get("memberships/")["results"][0]
        events = eventually(lambda: self.get(f"audit-events/?server={self.slug}")["results"], within=10)
        self.event = events[0]

    def make(self, path, body):
        return made(rest(self.product, "POST", path, body, tenant=self.tenant))

    def get(self, path):
        return made(rest(self.product, "GET", path, tenant=self.tenant))

    def words(self):
        """Return all that names this tenant or something of it."""
        things = (self.user, self.admin, self.server, self.tool, self.toolset, self.role, self.membership, self.grant)
        return {
            *(thing["id"] for thing in things), self.tenant, self.slug, self.toolset["slug"], self.role["slug"],
            self.user["username"], self.admin["prefix"], self.admin["name"], str(self.event["event_id"]),
        }  # fmt: skip


@pytest.fixture(scope="module")
def sides(shared_product):
    """Tenants A and B."""
    with Rogue() as first, Rogue() as second:
        a, b = Side(shared_product, first), Side(shared_product, second)
        a.rogue, b.rogue = first, second
        yield a, b


def routes(product):
    """Yield (method, path) of every route of the API."""
    answer = exchange(product, "GET", "/api/schema/?format=json", headers=product.headers)
    assert answer.status == 200, answer.body[:300]
    for path, operations in answer.json["paths"].items():
        for method in operations:
            if method in ("get", "post", "put", "patch", "delete"):
                yield method.upper(), path.removeprefix("/api/v1/")


def shape(answer, named):
    """Return what an answer says, apart from the name that was asked for and the request's own id."""
    body = answer.body.decode().replace(named, "<named>")
    body = re.sub(r'"request_id":\s*"[^"]*"', '"request_id":"<id>"', body)
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "content-length", "x-request-id")}
    return answer.status, body, headers


OF_KIND = {
    "tenants": "tenant_row", "users": "user", "memberships": "membership", "roles": "role", "api-keys": "admin", "servers": "server",
    "tools": "tool", "toolsets": "toolset", "grants": "grant", "audit-events": "event",
}  # fmt: skip


def test_no_list_of_the_other_side_names_anything_of_ours(shared_product, sides):
    a, b = sides
    lists = [path for method, path in routes(shared_product) if method == "GET" and "{" not in path]
    assert len(lists) >= 10
    for path in lists:
        answer = rest(shared_product, "GET", path, key=b.key)
        text = answer.body.decode()
        if path == "audit-events/":
            # what B itself has tried stands in its own log, in its own words
            events = [json.dumps(event) for event in answer.json["results"]]
            text = "\n".join(event for event in events if b.admin["id"] not in event and b.user["id"] not in event)
        found = [word for word in a.words() if word in text]
        assert not found, f"{path} tells B of {found}"
        if path in ("servers/", "tools/", "toolsets/", "api-keys/"):
            assert answer.status == 200
            assert any(word in text for word in b.words()), f"{path} shows B nothing of its own"


def test_an_object_of_the_other_side_is_one_that_does_not_exist(shared_product, sides):
    a, b = sides
    a.tenant_row = {
        "id": next(
            one["id"] for one in made(rest(shared_product, "GET", "tenants/?limit=200"))["results"] if one["slug"] == a.tenant
        )
    }
    tried = 0
    for method, path in routes(shared_product):
        if path.count("{") != 1:
            continue
        kind = path.split("/")[0]
        if kind not in OF_KIND:
            continue
        row = getattr(a, OF_KIND[kind])
        names = [
            str(row.get("id") or row["event_id"]),
            *([row["slug"]] if "slug" in row else []),
            *([row["prefix"]] if "prefix" in row else []),
        ]
        for named in names:
            missing = (
                str(uuid.uuid4())
                if len(named) == 36
                else "x" * len(named)
                if not re.fullmatch(r"\d+-\d+", named)
                else "9" * len(named.split("-")[0]) + "-" + "9" * len(named.split("-")[1])
            )
            foreign, none = (
                rest(
                    shared_product,
                    method,
                    re.sub(r"\{\w+\}", one, path),
                    {} if method in ("POST", "PATCH", "PUT") else None,
                    key=b.key,
                )
                for one in (named, missing)
            )
            assert foreign.status in (400, 403, 404), f"{method} {path}: {foreign.status} {foreign.body[:300]!r}"
            assert shape(foreign, named) == shape(none, missing), f"{method} {path}"
            tried += 1
    assert tried > 40
    # and nothing happened to it
    assert a.get(f"servers/{a.slug}/")["paused"] is False
    assert rest(shared_product, "GET", "servers/", key=a.key).status == 200


def references(a):
    """Return (path, body with one member that names something of the other side, that member's name)."""
    return [
        ("grants/", {"kind": "server", "server": a.slug, "role": "user"}, a.slug),
        ("grants/", {"kind": "server", "server": a.server["id"], "role": "user"}, a.server["id"]),
        ("grants/", {"kind": "toolset", "toolset": a.toolset["slug"], "role": "user"}, a.toolset["slug"]),
        ("grants/", {"kind": "tool", "pattern": "*", "api_key": a.admin["id"]}, a.admin["id"]),
        ("grants/", {"kind": "tool", "pattern": "*", "user": a.user["username"]}, a.user["username"]),
        ("grants/", {"kind": "tool", "pattern": "*", "role": a.role["id"]}, a.role["id"]),
        ("toolsets/", {"slug": "borrowed", "entries": [{"server": a.slug, "pattern": "*"}]}, a.slug),
        ("toolsets/preview/", {"entries": [{"server": a.server["id"], "pattern": "*"}]}, a.server["id"]),
        ("api-keys/", {"name": "borrowed", "owner": a.user["username"]}, a.user["username"]),
        ("api-keys/", {"name": "borrowed", "owner": a.user["id"]}, a.user["id"]),
        ("memberships/", {"user": a.user["username"], "role": "user"}, a.user["username"]),
        ("users/", {"username": "borrowed", "roles": [a.role["id"]]}, a.role["id"]),
    ]


@pytest.mark.parametrize("place", range(12))
def test_a_reference_to_the_other_side_is_one_to_nothing(shared_product, sides, place):
    a, b = sides
    path, body, named = references(a)[place]
    missing = str(uuid.uuid4()) if len(named) == 36 and named.count("-") == 4 else "x" * len(named)
    foreign = rest(shared_product, "POST", path, body, key=b.key)
    none = rest(shared_product, "POST", path, json.loads(json.dumps(body).replace(named, missing)), key=b.key)
    assert foreign.status in (400, 404), foreign.body[:300]
    assert shape(foreign, named) == shape(none, missing)


def test_filters_and_headers_tell_nothing(shared_product, sides):
    a, b = sides
    for path in (
        f"servers/?tenant={a.tenant}",
        f"tools/?server={a.slug}",
        f"audit-events/?server={a.slug}",
        f"servers/?search={a.slug}",
    ):
        kind, _, query = path.partition("?")
        name, _, value = query.partition("=")
        foreign, none = (rest(shared_product, "GET", f"{kind}?{name}={one}", key=b.key) for one in (value, "x" * len(value)))
        assert shape(foreign, value) == shape(none, "x" * len(value)), path
    foreign = rest(shared_product, "GET", "servers/", key=b.key, tenant=a.tenant)
    none = rest(shared_product, "GET", "servers/", key=b.key, tenant="x" * len(a.tenant))
    assert foreign.status == 404
    assert shape(foreign, a.tenant) == shape(none, "x" * len(a.tenant))


@pytest.mark.parametrize("era", ERAS)
def test_the_gateway_knows_nothing_of_the_other_side(shared_product, sides, era):
    a, b = sides
    names = connect(shared_product, era, "/mcp", b.key).names()
    assert names == [f"{b.slug}__act"]
    for slug in (a.slug, a.toolset["slug"], "system"):
        missing = "x" * len(slug)
        client = Client(shared_product, era, "/mcp", b.key)
        for method, params in (("tools/list", {}), ("tools/call", {"name": "act", "arguments": {"how": "ok"}})):
            body = client.message(method, params)
            foreign, none = (client.send(body, path=f"/mcp/{one}") for one in (slug, missing))
            assert foreign.status == 404
            assert foreign.body.replace(slug.encode(), b"") == none.body.replace(missing.encode(), b"")
    client = connect(shared_product, era, "/mcp", b.key)
    for name in (f"{a.slug}__act", "system__calculate"):
        missing = "x" * (len(name) - 5) + "__act"
        foreign, none = (
            client.send(client.message("tools/call", {"name": one, "arguments": {"how": "ok"}}) | {"id": 5})
            for one in (name, missing)
        )
        assert foreign.type == "not-found"
        scrub = re.compile(rb'"call_id":"[^"]*"')
        assert scrub.sub(b"", foreign.body).replace(name.encode(), b"") == scrub.sub(b"", none.body).replace(
            missing.encode(), b""
        )
    assert not a.rogue.calls(mark="b")


def test_the_other_sides_call_goes_to_its_own_server(shared_product, sides):
    a, b = sides
    before = len(a.rogue.calls())
    assert connect(shared_product, "modern", "/mcp", b.key).call(f"{b.slug}__act", {"how": "ok", "mark": "b"}).result
    assert len(a.rogue.calls()) == before
    row = recorded(shared_product, "event_type = 'call.outcome' AND server = ?", b.slug)
    assert row["tenant"] != audit_rows(shared_product, "event_type = 'call.outcome' AND server = ?", a.slug)[0]["tenant"]


def test_a_session_of_the_other_side_is_unknown(shared_product, sides):
    a, b = sides
    session = connect(shared_product, "legacy", "/mcp", a.key).session
    answer = Client(shared_product, "legacy", "/mcp", b.key, session=session).ask("tools/list")
    assert (answer.status, answer.type) == (404, "session-gone")


def test_a_copy_of_a_built_in_server_is_trusted_with_no_tenant(shared_product, sides):
    """The built-in servers keep tenants apart by a signed assertion; a program that was merely registered gets none."""
    _, b = sides
    slug = unique("copy")
    settings = {
        "transport": "stdio",
        "command": sys.executable,
        "args": ["-m", "apps.workbench.servers.system"],
        "cwd": str(ROOT),
    }
    b.make("servers/", {"slug": slug, **settings})
    try:
        client = Client(shared_product, "modern", f"/mcp/{slug}", b.key)
        b.make("grants/", {"kind": "server", "server": slug, "user": b.user["username"]})
        eventually(lambda: client.ask("tools/list").status == 200 and "context_set" in client.names(), within=30)
        answer = client.call("context_set", {"key": "k", "value": "v"})
        assert "error" in answer.json or answer.result.get("isError") is True
    finally:
        made(rest(shared_product, "DELETE", f"servers/{slug}/", tenant=b.tenant))
