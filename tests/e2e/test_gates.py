"""Commands come from superusers alone, and the installation connects nowhere it should not, whichever route is tried."""

import pytest

from tests.e2e.rogue import Rogue
from tests.e2e.support import assert_serves, audit_mark, connect, made, recorded, rest, unique
from tests.support import eventually

pytestmark = pytest.mark.once  # what it is about does not know the database
PHRASE = "a long pass phrase 4711"


@pytest.fixture(scope="module", params=["operator", "admin"])
def operator(request, shared_product):
    """The key of somebody who may do all but what superusers do."""
    user = made(
        rest(shared_product, "POST", "users/", {"username": unique("op"), "password": PHRASE, "roles": [request.param]})
    )
    key = made(
        rest(shared_product, "POST", "api-keys/", {"name": unique("op"), "owner": user["username"], "inherits_owner": True})
    )
    return key["key"]


@pytest.fixture(scope="module")
def registered(shared_product, rogue):
    """An honest HTTP server, and a stdio server of the superuser's."""
    web, program = unique("web"), unique("program")
    made(rest(shared_product, "POST", "servers/", {"slug": web, "transport": "http", "url": rogue.url}))
    made(rest(shared_product, "POST", "servers/", {"slug": program, "transport": "stdio", "command": "/bin/cat"}))
    return web, program


def ways(web, program, canary):
    """Return every route by which a command might come in: (method, path, body)."""
    command = {"transport": "stdio", "command": "/usr/bin/touch", "args": [str(canary)]}
    entry = {"command": "/usr/bin/touch", "args": [str(canary)]}
    return {
        "create": ("POST", "servers/", {"slug": unique("evil"), **command}),
        "create paused": ("POST", "servers/", {"slug": unique("evil"), "paused": True, **command}),
        "test": ("POST", "servers/test-connection/", command),
        "change of transport": ("PATCH", f"servers/{web}/", command),
        "change of command": ("PATCH", f"servers/{program}/", {"command": "/usr/bin/touch", "args": [str(canary)]}),
        "change of arguments": ("PATCH", f"servers/{program}/", {"args": [str(canary)]}),
        "change of directory": ("PATCH", f"servers/{program}/", {"cwd": "/tmp"}),
        "change of environment": ("PATCH", f"servers/{program}/", {"env": {"GREETING": str(canary)}}),
        "credential": (
            "POST",
            f"servers/{program}/credentials/",
            {"kind": "env", "name": "GREETING", "value": str(canary.parent)},
        ),
        "clone": ("POST", f"servers/{program}/clone/", {"slug": unique("evil")}),
        "import": ("POST", "servers/import/", {"document": {"mcpServers": {unique("evil"): entry}}}),
        "import over it": ("POST", "servers/import/", {"document": {"mcpServers": {program: entry}}}),
        "import, vs code": ("POST", "servers/import/", {"document": {"servers": {unique("evil"): {"type": "stdio", **entry}}}}),
        "dry import": ("POST", "servers/import/", {"document": {"mcpServers": {unique("evil"): entry}}, "dry_run": True}),
    }


NAMES = tuple(ways("w", "p", __import__("pathlib").Path("/tmp/x")))


@pytest.mark.parametrize("way", NAMES)
def test_nobody_but_a_superuser_brings_a_command(shared_product, operator, registered, tmp_path, way):
    canary = tmp_path / "canary"
    method, path, body = ways(*registered, canary)[way]
    since = audit_mark(shared_product)
    answer = rest(shared_product, method, path, body, key=operator)
    if "import" in way and answer.status == 200:
        (entry,) = answer.json
        assert entry["action"] == "failed"
        assert entry["error_type"].endswith(("superuser-required", "permission-denied")), entry
    else:
        assert answer.status == 403, answer.body[:400]
        assert answer.json["type"].endswith(("/superuser-required", "/permission-denied"))
    refused = recorded(shared_product, "event_type = 'access.refused'", since=since)
    assert refused["outcome"] == "refused"
    assert refused["actor"]
    assert not canary.exists()
    assert "/usr/bin/touch" not in rest(shared_product, "GET", "servers/export/").body.decode()


def test_the_canary_would_sing(shared_product, tmp_path):
    canary = tmp_path / "canary"
    rest(
        shared_product,
        "POST",
        "servers/test-connection/",
        {"transport": "stdio", "command": "/usr/bin/touch", "args": [str(canary)]},
    )
    eventually(canary.exists, within=10, because="the command of a superuser does run, or the tests above prove nothing")


REFUSED = [
    "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/mcp", "http://192.168.1.1/mcp", "http://172.16.0.1/mcp",
    "http://100.64.0.1/mcp", "http://0.0.0.0/mcp", "http://[::ffff:10.0.0.1]/mcp", "http://[::ffff:169.254.169.254]/mcp",
    "http://[::ffff:a9fe:a9fe]/mcp", "http://[fe80::1]/mcp", "http://[fd00:ec2::254]/mcp", "http://[fec0::1]/mcp",
    "http://[64:ff9b::a9fe:a9fe]/mcp", "http://[2002:a9fe:a9fe::]/mcp", "http://[::]/mcp", "http://2852039166/mcp",
    "http://0xa9fea9fe/mcp", "http://0xa9.0xfe.0xa9.0xfe/mcp", "http://0251.0376.0251.0376/mcp", "http://169.254.43518/mcp",
    "http://169.254.169.254./mcp", "http://224.0.0.1/mcp", "http://255.255.255.255/mcp", "http://192.0.0.192/mcp",
    "http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/mcp", "http://10.0.0.1%2f@127.0.0.1/mcp", "http://127.0.0.1@10.0.0.1/mcp",
]  # fmt: skip
NOT_URLS = [
    "file:///etc/passwd", "gopher://127.0.0.1/", "ftp://127.0.0.1/", "javascript:alert(1)", "//127.0.0.1/mcp", "http://",
    "http:///mcp", "http://127.0.0.1:99999/mcp", "http://127.0.0.1:0/mcp", "http://127.0.0.1/mcp#x", "http://127.0.0.1\\@10.0.0.1/",
    "http://127.0.0.1/\r\nX: y", "http://user:secret@127.0.0.1/mcp", " ", "unix:///var/run/docker.sock",
]  # fmt: skip


@pytest.mark.parametrize("url", [*REFUSED, *NOT_URLS])
def test_an_address_that_may_not_be_reached(shared_product, url):
    slug = unique("ssrf")
    answer = rest(shared_product, "POST", "servers/", {"slug": slug, "transport": "http", "url": url})
    assert answer.status == 400, answer.body[:300]
    assert answer.json["type"].rsplit("/", 1)[1] in ("address-refused", "validation-failed")
    assert answer.seconds < 5
    assert rest(shared_product, "GET", f"servers/{slug}/").status == 404
    answer = rest(shared_product, "POST", "servers/test-connection/", {"transport": "http", "url": url})
    assert answer.status == 400 or answer.json["ok"] is False
    answer = rest(shared_product, "POST", "servers/import/", {"document": {"mcpServers": {slug: {"url": url}}}})
    assert answer.status == 400 or answer.json[0]["action"] == "failed", answer.body[:300]


def test_a_change_of_address_is_checked_as_well(shared_product, rogue):
    slug = unique("moved")
    made(rest(shared_product, "POST", "servers/", {"slug": slug, "transport": "http", "url": rogue.url}))
    for url in ("http://169.254.169.254/", "http://[::ffff:10.0.0.1]/mcp"):
        since = audit_mark(shared_product)
        answer = rest(shared_product, "PATCH", f"servers/{slug}/", {"url": url})
        assert answer.status == 400
        assert answer.json["type"].endswith("/address-refused")
        row = recorded(shared_product, "event_type = 'access.refused'", since=since)
        assert row["details"]["rule"] == "network"
    assert made(rest(shared_product, "GET", f"servers/{slug}/"))["endpoints"][0]["url"] == rogue.url


@pytest.mark.parametrize("transport", ["http", "sse"])
def test_a_redirect_is_not_followed(shared_product, transport):
    with Rogue() as target, Rogue() as server:
        server.redirect = target.url
        slug = unique("redirect")
        made(rest(shared_product, "POST", "servers/", {"slug": slug, "transport": transport, "url": server.url}))
        found = eventually(
            lambda: (one := made(rest(shared_product, "GET", f"servers/{slug}/")))["discovery_error"] and one, within=20
        )
        assert "redirect" in found["discovery_error"]
        assert server.arrivals
        assert target.arrivals == []
    assert_serves(shared_product)


def test_credentials_do_not_follow_a_change_of_address(shared_product, rogue, operator):
    """A header that was stored for one place is not sent to another that somebody chose who does not know its value."""
    slug, secret = unique("sticky"), "canary-of-the-first-address"
    with Rogue() as elsewhere:
        made(
            rest(
                shared_product,
                "POST",
                "servers/",
                {"slug": slug, "transport": "http", "url": rogue.url, "headers": {"X-Api-Key": secret}},
            )
        )
        eventually(lambda: any(one.headers.get("x-api-key") == secret for one in rogue.arrivals), within=20)
        copy = unique("sticky")
        rest(shared_product, "POST", f"servers/{slug}/clone/", {"slug": copy}, key=operator)
        for named in (slug, copy):
            for body in (
                {"url": elsewhere.url},
                {"url": elsewhere.url, "headers": {"X-Api-Key": None}},
                {"url": elsewhere.url, "transport": "sse"},
            ):
                assert rest(shared_product, "PATCH", f"servers/{named}/", body, key=operator).status in (400, 403, 404)
            document = {"mcpServers": {named: {"url": elsewhere.url}}}
            rest(shared_product, "POST", "servers/import/", {"document": document}, key=operator)
            rest(shared_product, "POST", f"servers/{named}/discover/", key=operator)
            rest(shared_product, "POST", f"servers/{named}/probe/", key=operator)
        client = connect(shared_product, "modern", f"/mcp/{slug}")
        client.call("act", {"how": "ok"})
        assert not any(secret in str(one.headers) for one in elsewhere.arrivals)
