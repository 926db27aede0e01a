"""The compatibility pages: who may see them, what they say of a client, a server and a pair, and that nobody's words become markup."""

import re
from functools import partial

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.common.clock import now
from apps.common.context import SYSTEM, tenant_scope
from apps.gateway.adapters.sight import look
from apps.gateway.plane.mcp.compat import FEATURES
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.services.sight import register_viewer
from apps.servers.models import Endpoint, Server
from apps.servers.services.endpoints import remember_era
from apps.servers.services.lifecycle import pause_server
from apps.tools.models import Tool, Toolset
from apps.tools.services.grants import grant
from tests.api.world import make_client
from tests.console.pages import address
from tests.console.test_queries import queries
from tests.gateway.pictures import read

pytestmark = pytest.mark.django_db
PAGE, NOW = "admin:compatibility", "admin:compatibility_now"
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def seen(world):
    """Two clients of the world: one at `/mcp`, of the initialize era, and one at a server's own address."""
    server = world["servers"][1][0]
    remember_era(Endpoint.unscoped.get(server=server).pk, "modern", ("2026-07-28",))
    key = next(key for key in world["keys"] if not key.inherits_owner)
    with tenant_scope(world["tenant"].pk, SYSTEM):
        grant(kind="server", api_key=key, server=server)
    return {
        "old": make_client(key, name="old agent", declared=["roots", "sampling"], streams=False),
        "new": make_client(key, name="new agent", toolset=server.slug, revision="2026-07-28", declared=[]),
        "server": server,
        "key": key,
    }


@pytest.fixture
def live(world):
    store = SnapshotStore()
    read(store)
    register_viewer(partial(look, store))
    yield store
    register_viewer(None)


def body(browser, name: str, **query) -> str:
    answer = browser.get(reverse(name), query)
    assert answer.status_code == 200, answer.status_code
    return answer.content.decode()


def test_who_may_see_who_speaks_to_the_gateway(staff, stranger, seen, live):
    for role, status in {"admin": 200, "operator": 200, "user": 403, "guest": 403, "auditor": 403}.items():
        for name in (PAGE, NOW):
            assert staff[role].get(reverse(name)).status_code == status, (role, name)
        page = staff[role].get(address(Server, "change", seen["server"].pk))
        if page.status_code == 200:
            assert ("old agent" in page.content.decode()) == (status == 200), role
    assert "old agent" not in body(stranger, PAGE)
    for name, query in (
        (PAGE, {"client": seen["old"].pk}),
        (PAGE, {"server": seen["server"].pk}),
        (NOW, {"client": seen["old"].pk}),
    ):
        assert stranger.get(reverse(name), query).status_code == 404
    assert "Compatibility" in body(staff["operator"], PAGE)
    assert reverse(PAGE) not in staff["user"].get(reverse("admin:servers_server_changelist")).content.decode()


def test_nobody_has_spoken_yet(staff, tenant):
    page = body(staff["operator"], PAGE)
    assert "No client has spoken yet" in page
    assert "Choose who looks" in body(staff["operator"], NOW)


def test_clients_and_what_is_lost_with_their_servers(operator, seen):
    page = body(operator, PAGE)
    assert "old agent" in page
    assert "new agent" in page
    assert re.search(r"Progress with \w", page)
    assert "nothing lost" in page
    assert "Nothing matches" in body(operator, PAGE, q="no such client")
    assert "new agent" not in re.sub(r"<select.*?</select>", "", body(operator, PAGE, q="old"), flags=re.DOTALL)


def test_a_pair_feature_by_feature(operator, seen):
    page = body(operator, PAGE, client=seen["old"].pk, server=seen["server"].pk)
    for name in FEATURES.values():
        assert name in page
    assert "The client takes no event stream, on which progress is told" in page
    assert "Translated" in page
    other = body(
        operator,
        PAGE,
        client=seen["new"].pk,
        server=Server.unscoped.filter(tenant=seen["old"].tenant).exclude(pk=seen["server"].pk)[0].pk,
    )
    assert "They do not meet" in other


def test_one_client_with_each_server_and_one_server_with_each_client(operator, seen, world):
    page = body(operator, PAGE, client=seen["old"].pk)
    for server, _ in world["servers"]:
        assert server.slug in page
    assert "With each server that it reaches" in page
    assert "Lost: Progress" in page
    page = body(operator, PAGE, server=seen["server"].pk)
    assert "With each client that reaches it" in page
    assert "new agent" in page


def test_the_pages_of_a_server_and_of_a_toolset_have_their_part(operator, seen, world):
    page = operator.get(address(Server, "change", seen["server"].pk)).content.decode()
    assert "Clients seen" in page
    assert "Lost: Progress" in page
    own = Toolset.unscoped.get(server=seen["server"])
    page = operator.get(address(Toolset, "change", own.pk)).content.decode()
    assert "new agent" in page
    assert "old agent" not in page
    composed = Toolset.unscoped.filter(tenant=world["tenant"], server__isnull=True)[0]
    assert (
        f"No client has spoken at /mcp/{composed.slug} yet"
        in operator.get(address(Toolset, "change", composed.pk)).content.decode()
    )


def test_what_a_client_sees_now(operator, seen, live, world):
    page = body(operator, NOW, client=seen["new"].pk)
    server = seen["server"]
    names = {
        state: list(Tool.unscoped.filter(server=server, state=state).values_list("name", flat=True))
        for state in ("active", "held")
    }
    assert names["active"]
    assert names["held"]
    assert f"at /mcp/{server.slug}" in page
    listed, absent = page.partition('aria-label="Tools"')[::2][::-1]
    assert all(name in listed for name in names["active"])
    assert all(name in absent and name not in listed for name in names["held"])
    assert "Held for review" in absent
    with tenant_scope(world["tenant"].pk, SYSTEM):
        pause_server(server)
    read(live)
    page = body(operator, NOW, client=seen["new"].pk)
    assert "Its server is paused" in page
    assert names["active"][0] in page
    page = body(operator, NOW, client=seen["new"].pk, toolset="no-such")
    assert "There is no toolset no-such here" in page


def test_keys_are_for_those_who_may_see_keys(staff, seen, live):
    assert (
        "API keys"
        in re.search(
            r"<select.*?id=\"n-who\".*?</select>|id=\"n-who\".*?</select>", body(staff["admin"], NOW), re.DOTALL
        ).group()
    )
    page = body(staff["admin"], NOW, key=seen["key"].pk)
    assert "at /mcp" in page
    operators = body(staff["operator"], NOW, key=seen["key"].pk)
    assert "Choose who looks" in operators
    assert str(seen["key"].pk) not in re.sub(r"<a [^>]*>", "", operators)


def test_without_a_data_plane_it_says_so(operator, seen):
    assert "No data plane runs in this process" in body(operator, NOW, client=seen["new"].pk)


def test_what_a_client_calls_itself_is_text(operator, seen, live):
    make_client(seen["key"], name=EVIL, version=EVIL[:40], declared=[EVIL, '"><img src=x>'], address=EVIL[:30])
    for page in (body(operator, PAGE), body(operator, PAGE, server=seen["server"].pk), body(operator, NOW)):
        assert EVIL not in page
        assert "<img src=x>" not in page
        assert "&lt;script&gt;" in page


def test_what_happened_lately_is_counted(root, seen, world):
    about = {
        "tenant": str(seen["old"].tenant_id),
        "actor_id": str(seen["key"].pk),
        "agent": "old agent 1.0",
        "server": seen["server"].slug,
    }
    rows = [{"event_type": "call.asked", "action": "roots/list"}] * 3 + [
        {"event_type": "call.refused", "error_type": "not-expressible"}
    ]
    AuditEvent.objects.bulk_create(
        AuditEvent(id=(9 << 40) + number, time=now(), body=b"{}", **about, **row) for number, row in enumerate(rows)
    )
    page = body(root, PAGE, client=seen["old"].pk)
    assert re.search(r"<b>3</b></a> × <span class=\"sy-mono\">roots/list</span> asked of it", page)
    assert "not-expressible" in page
    assert "roots/list" not in body(root, PAGE, client=seen["new"].pk)
    assert "not-expressible" in root.get(address(Server, "change", seen["server"].pk)).content.decode()


def test_the_page_costs_the_same_with_many_clients(operator, seen):
    url = reverse(PAGE)
    few = queries(operator, url)
    for number in range(60):
        make_client(seen["key"], name=f"agent {number}")
    assert queries(operator, url) == few
    with CaptureQueriesContext(connections["default"]) as captured:
        page = body(operator, PAGE, page="2")
    assert len(captured) <= few
    assert "Seen later" in page


@pytest.mark.parametrize("query", [{"client": "x"}, {"server": "none"}, {"client": "\x00"}, {"server": "\x00"}])
def test_what_there_is_not(operator, query, tenant):
    assert operator.get(reverse(PAGE), query).status_code == 404


@pytest.mark.parametrize(("name", "query"), [(PAGE, {"q": "a\x00"}), (NOW, {"who": "key:\x00", "toolset": "\x00"})])
def test_what_no_database_takes_does_no_harm(boss, name, query, seen, live):
    assert boss.get(reverse(name), query).status_code in (200, 404)


@pytest.mark.parametrize("page", ["0", "-1", "x", "99999999", "²"])
def test_odd_pages_do_no_harm(operator, page, seen):
    body(operator, PAGE, page=page)
