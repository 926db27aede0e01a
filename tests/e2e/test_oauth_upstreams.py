"""Servers behind an authorization server, through the whole product: connected by a person, called by keys, refreshed by the clock."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.browsing import Browser
from tests.e2e.support import LEGACY, Client, audit_rows, made, recorded, rest, unique
from tests.servers.oauth_world import World
from tests.support import eventually

pytestmark = pytest.mark.once
SECOND, SLACK = 1.0, 0.5


class Installation:
    """Where things are changed, every gateway, and the protected server."""

    def __init__(self, control, gateways, world) -> None:
        self.control, self.gateways, self.world = control, gateways, world
        self.operator = Browser(control, control.username, control.password)

    def register(self, **fields) -> str:
        """Register the protected server; returns its slug."""
        slug = unique("guarded")
        made(rest(self.control, "POST", "servers/", {"slug": slug, "transport": "http", "url": self.world.url, **fields}))
        return slug

    def connect(self, slug: str) -> float:
        """Connect it as the operator; returns when that was done."""
        begun = made(rest(self.control, "POST", f"servers/{slug}/connect/", {}))
        page = self.operator.get(self.operator.agree(begun["authorization_url"]))
        assert (page.status, page.location[:22]) == (302, "/admin/servers/server/"), page.text
        return time.monotonic()

    def listed(self, slug: str) -> None:
        """Wait until every gateway lists its tools."""
        for gateway in self.gateways:
            names = lambda gateway=gateway: Client(gateway, "modern", f"/mcp/{slug}").names()  # noqa: E731
            eventually(lambda names=names: names() == ["admin", "whoami"], within=25)

    def ready(self, **fields) -> str:
        """Return a server that is connected and discovered."""
        slug = self.register(auth="oauth", **fields)
        self.connect(slug)
        self.listed(slug)
        return slug


@pytest.fixture(scope="module", params=["one node", "two gateways"])
def installation(request, start_for_module):
    with World() as world:
        if request.param == "one node":
            control = start_for_module("sqlite")
            yield Installation(control, [control], world)
        else:
            control = start_for_module("postgres", role="web")
            start_for_module("", first=control, role="worker")
            public = {"SWITCHYARD_PUBLIC_URL": f"http://localhost:{control.port}"}
            gateways = [start_for_module("", first=control, role="gateway", environment=public) for _ in range(2)]
            yield Installation(control, gateways, world)


ONE_NODE = pytest.mark.parametrize("installation", ["one node"], indirect=True)
TWO_GATEWAYS = pytest.mark.parametrize("installation", ["two gateways"], indirect=True)
"""For what does not depend on how many processes there are, or takes long."""


@pytest.fixture
def world(installation):
    yield installation.world
    installation.world.knobs = type(installation.world.knobs)()


def said(gateway, slug: str, key: str = "", name: str = "whoami") -> str:
    """Return what a call says, or the type of its error."""
    answer = Client(gateway, "modern", f"/mcp/{slug}", key).call(name)
    return answer.result["content"][0]["text"] if "result" in answer.json else answer.type


def everywhere(installation, check, since: float) -> None:
    for gateway in installation.gateways:
        left = max(0.3, since + SECOND + SLACK - time.monotonic())
        eventually(
            lambda gateway=gateway: check(gateway), within=left, every=0.02, because=f"not in force at {gateway.base_url}"
        )


@ONE_NODE
def test_from_a_registration_to_a_call(installation, world) -> None:
    slug = installation.register(auth="oauth")
    state = lambda: made(rest(installation.control, "GET", f"servers/{slug}/"))["state"]  # noqa: E731
    eventually(lambda: state() == "unauthenticated", within=25)
    installation.connect(slug)
    installation.listed(slug)
    for gateway in installation.gateways:
        assert said(gateway, slug) == "whoami: ann"
    eventually(lambda: state() == "healthy", within=10)
    [row] = made(rest(installation.control, "GET", f"upstream-connections/?server={slug}"))["results"]
    assert (row["state"], row["refreshes"], row["user"], row["issuer"]) == ("connected", True, None, world.issuer)


@TWO_GATEWAYS
def test_a_token_is_refreshed_ahead_of_its_end_and_no_call_notices(installation, world) -> None:
    world.knobs.token_seconds = 12
    slug = installation.ready()
    before = world.asked["refresh_token"]
    refused = world.asked["tools/call"] - len(world.calls)
    deadline = time.monotonic() + 16
    while time.monotonic() < deadline:
        for gateway in installation.gateways:
            assert said(gateway, slug) == "whoami: ann"
    assert world.asked["refresh_token"] > before
    assert (world.asked["reuse"], world.asked["tools/call"] - len(world.calls)) == (0, refused)
    recorded(installation.control, "event_type = ? AND server = ?", "connection.refreshed", slug)


def test_a_token_that_the_server_refuses_is_replaced_in_the_middle_of_calls_once(installation, world) -> None:
    slug = installation.ready()
    for gateway in installation.gateways:
        assert said(gateway, slug) == "whoami: ann"
    before, ran = world.asked["refresh_token"], len(world.calls)
    eventually(lambda: old_enough(installation, slug), within=10)
    world.revoke_all()
    world.knobs.token_delay = 0.2
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda number: said(installation.gateways[number % len(installation.gateways)], slug), range(8))
        )
    assert answers == ["whoami: ann"] * 8
    assert (world.asked["refresh_token"] - before, world.asked["reuse"]) == (1, 0)
    assert len(world.calls) - ran == 8


def old_enough(installation, slug: str) -> bool:
    """A token that was just given is not refreshed when it is refused."""
    from datetime import UTC, datetime

    [row] = made(rest(installation.control, "GET", f"upstream-connections/?server={slug}"))["results"]
    return (datetime.now(UTC) - datetime.fromisoformat(row["refreshed_at"])).total_seconds() > 3.2


@ONE_NODE
def test_what_cannot_be_refreshed_is_named_and_a_new_connect_heals_it_without_a_restart(installation, world) -> None:
    slug = installation.ready()
    eventually(lambda: old_enough(installation, slug), within=10)
    world.end_families()
    for gateway in installation.gateways:
        assert said(gateway, slug) == "upstream-unauthenticated"
    [row] = made(rest(installation.control, "GET", f"upstream-connections/?server={slug}&state=failed"))["results"]
    assert "invalid_grant" in row["reason"]
    page = installation.operator.get(f"/admin/servers/oauthconnection/?state=failed&q={slug}").text
    assert (slug in page, "Failed" in page) == (True, True)
    assert made(rest(installation.control, "GET", f"servers/{slug}/"))["state"] == "unauthenticated"
    since = installation.connect(slug)
    everywhere(installation, lambda gateway: said(gateway, slug) == "whoami: ann", since)


def test_a_disconnect_is_in_force_on_every_gateway_within_a_second(installation, world) -> None:
    slug = installation.ready()
    for gateway in installation.gateways:
        assert said(gateway, slug) == "whoami: ann"
    assert rest(installation.control, "POST", f"servers/{slug}/disconnect/", {}).status == 204
    ran = len(world.calls)
    everywhere(installation, lambda gateway: said(gateway, slug) == "upstream-unauthenticated", time.monotonic())
    assert len(world.calls) == ran


def test_another_account_is_in_force_on_every_gateway_within_a_second(installation, world) -> None:
    slug = installation.ready()
    for gateway in installation.gateways:
        assert said(gateway, slug) == "whoami: ann"
    world.knobs.subject = "bob"
    since = installation.connect(slug)
    everywhere(installation, lambda gateway: said(gateway, slug) == "whoami: bob", since)


@ONE_NODE
def test_a_call_that_needs_a_wider_authorization_says_so_and_works_after_it(installation, world) -> None:
    world.knobs.tool_scopes = {"admin": "mcp:admin"}
    slug = installation.ready()
    ran = len(world.calls)
    for gateway in installation.gateways:
        assert said(gateway, slug, name="admin") == "scope-needed"
        assert said(gateway, slug) == "whoami: ann"
    assert [name for name, _ in world.calls[ran:]] == ["whoami"] * len(installation.gateways)
    assert made(rest(installation.control, "GET", f"servers/{slug}/"))["state"] == "healthy"
    since = installation.connect(slug)
    everywhere(installation, lambda gateway: said(gateway, slug, name="admin") == "admin: ann", since)
    [row] = made(rest(installation.control, "GET", f"upstream-connections/?server={slug}"))["results"]
    assert row["scope"] == "mcp:basic mcp:admin"


def person(installation) -> tuple[str, str, str]:
    """Make a user who may sign in and call; returns name, password and the text of a key of theirs."""
    name, password = unique("person"), f"a long pass phrase {unique('x')}"
    user = made(rest(installation.control, "POST", "users/", {"username": name, "password": password, "is_staff": True}))
    made(rest(installation.control, "POST", "memberships/", {"user": user["id"], "role": "operator"}))
    key = made(rest(installation.control, "POST", "api-keys/", {"name": unique("key"), "owner": name, "inherits_owner": True}))
    made(rest(installation.control, "POST", "grants/", {"kind": "tool", "pattern": "*", "api_key": key["id"]}))
    return name, password, key["key"]


def test_each_user_calls_with_their_own_account(installation, world) -> None:
    slug = installation.register(auth="oauth-user")
    installation.connect(slug)
    installation.listed(slug)
    server = made(rest(installation.control, "GET", f"servers/{slug}/"))
    people = [person(installation) for _ in range(2)]
    wanted = f"http://localhost:{installation.control.port}/oauth/connect/{server['id']}"
    for name, password, key in people:
        for gateway in installation.gateways:
            eventually(lambda gateway=gateway, key=key: said(gateway, slug, key) == "connection-required", within=5)
            answer = Client(gateway, "modern", f"/mcp/{slug}", key).call("whoami")
            assert answer.error["data"]["connect_url"] == wanted
        browser = Browser(installation.control, name, password)
        world.knobs.subject = name
        path = f"/oauth/connect/{server['id']}"
        page = browser.post(path, {"begin": "1"})
        address = page.text.split('href="' + world.issuer, 1)[1].split('"', 1)[0].replace("&amp;", "&")
        back = browser.get(browser.agree(world.issuer + address))
        assert (back.status, f"Connected with {slug}" in back.text) == (200, True), back.text
        assert "Disconnect" in browser.get(path).text
    ran = len(world.calls)
    with ThreadPoolExecutor(8) as pool:
        jobs = [(people[n % 2], installation.gateways[n // 2 % len(installation.gateways)]) for n in range(24)]
        answers = list(pool.map(lambda job: (job[0][0], said(job[1], slug, job[0][2])), jobs))
    assert [answer for name, answer in answers if answer != f"whoami: {name}"] == []
    assert sorted(subject for _, subject in world.calls[ran:]) == sorted(name for (name, _, _), _ in jobs)
    stranger = person(installation)
    eventually(lambda: said(installation.gateways[0], slug, stranger[2]) == "connection-required", within=5)
    # what one ends ends for nobody else
    Browser(installation.control, *people[0][:2]).post(f"/oauth/connect/{server['id']}", {"end": "1"})
    everywhere(installation, lambda gateway: said(gateway, slug, people[0][2]) == "connection-required", time.monotonic())
    for gateway in installation.gateways:
        assert said(gateway, slug, people[1][2]) == f"whoami: {people[1][0]}"


@ONE_NODE
def test_a_client_that_can_send_its_user_somewhere_is_asked_to(installation, world) -> None:
    slug = installation.register(auth="oauth-user")
    installation.connect(slug)
    installation.listed(slug)
    server = made(rest(installation.control, "GET", f"servers/{slug}/"))
    address = f"http://localhost:{installation.control.port}/oauth/connect/{server['id']}"
    gateway = installation.gateways[0]
    modern = Client(gateway, "modern", f"/mcp/{slug}")
    message = modern.message("tools/call", {"name": "whoami", "arguments": {}})
    message["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = {"elicitation": {"url": {}}}
    [asked] = modern.send(message).result["inputRequests"].values()
    assert (asked["method"], asked["params"]["mode"], asked["params"]["url"]) == ("elicitation/create", "url", address)
    legacy = Client(gateway, "legacy", f"/mcp/{slug}")
    hello = {
        "protocolVersion": LEGACY,
        "capabilities": {"elicitation": {"url": {}}},
        "clientInfo": {"name": "x", "version": "1"},
    }
    legacy.session = legacy.send(legacy.message("initialize", hello), {"MCP-Protocol-Version": None}).headers["mcp-session-id"]
    error = legacy.call("whoami").error
    assert (error["code"], error["data"]["elicitations"][0]["url"]) == (-32042, address)


@ONE_NODE
def test_the_callback_takes_an_answer_once_and_leads_nowhere_else(installation, world) -> None:
    slug = installation.register(auth="oauth")
    begun = made(rest(installation.control, "POST", f"servers/{slug}/connect/", {}))
    back = installation.operator.agree(begun["authorization_url"])
    nobody = Browser(installation.control)
    page = nobody.get(back)
    assert (page.status, page.location.startswith("/admin/login/?next=/oauth/callback")) == (302, True)
    name, password, _ = person(installation)
    assert Browser(installation.control, name, password).get(back).status == 404
    page = installation.operator.get(f"{back}&next=https://evil.example&redirect_uri=https://evil.example")
    assert (page.status, page.location.startswith("/admin/servers/server/")) == (302, True)
    page = installation.operator.get(back)
    assert (page.status, "used already" in page.text, page.headers["referrer-policy"]) == (409, True, "no-referrer")
    for wrong in ("", "?state=", f"?state={'x' * 300}", "?state=a&state=b&code=c", "?state=%00&code=1"):
        page = installation.operator.get(f"/oauth/callback{wrong}")
        assert page.status in (400, 404), (wrong, page.status)
    script = installation.operator.get("/oauth/callback?state=x&error=%3Cscript%3Ealert(1)%3C/script%3E")
    assert "<script>alert" not in script.text
    assert Browser(installation.control).get("/oauth/client-metadata.json").status == 200


@ONE_NODE
def test_no_token_stands_in_logs_answers_events_or_exports(installation, world) -> None:
    slug = installation.ready()
    control = installation.control
    for gateway in installation.gateways:
        said(gateway, slug)
    texts = [json.dumps(made(rest(control, "GET", path))) for path in (
        "upstream-connections/", f"servers/{slug}/", "servers/export/", "audit-events/?limit=200",
    )]  # fmt: skip
    texts += [installation.operator.get(path).text for path in ("/admin/servers/oauthconnection/", "/admin/servers/server/")]
    texts += [json.dumps(audit_rows(control), default=str)]
    texts += [one.log() for one in {control, *installation.gateways}]
    found = [secret for secret in world.secrets() if any(secret in text for text in texts)]
    assert world.secrets()
    assert not found
