"""What a client sees now: the very lists that the gateway gives it, and what is missing from them, by name and with the reason."""

import json
from dataclasses import asdict
from functools import partial
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from apps.common.context import SYSTEM, tenant_scope
from apps.common.errors import NotFound, NotReady, PermissionDenied
from apps.gateway.adapters.sight import look
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.mcp.lists import LISTS, Lists
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.plane.views import find_target
from apps.gateway.services.sight import register_viewer, seen_now
from apps.servers.models import Endpoint, Server
from apps.servers.services.endpoints import set_endpoint_state
from apps.servers.services.lifecycle import pause_server
from apps.servers.services.registry import register_server
from apps.tools.models import Grant
from apps.tools.services.grants import grant
from apps.tools.services.toolsets import create_toolset, pause_toolset
from tests.factories import as_user, make_key, make_superuser, make_tenant, make_user
from tests.gateway.pictures import KEYRING, read
from tests.tools.support import make_server, offer, prompt, resource, template, tool

pytestmark = pytest.mark.django_db


class House:
    """A tenant with two servers, a toolset of both, and a key that may use the first and one tool of the second."""

    def __init__(self) -> None:
        self.tenant = make_tenant()
        self.first = make_server(self.tenant, "first", review="hold-changed")
        self.second = make_server(self.tenant, "second", review="hold-all")
        long = "n" * 60
        offer(
            self.first, tool("read", "Reads."), tool("write"), tool(long), resources=[resource("docs://a")],
            templates=[template("docs://{page}")], prompts=[prompt("triage")],
        )  # fmt: skip
        offer(self.second, tool("search", "Searches."), tool("drop"))
        self.key = make_key(make_user(self.tenant), self.tenant)[0]
        with tenant_scope(self.tenant.pk, SYSTEM):
            grant(kind="server", api_key=self.key, server=self.first)
            grant(kind="tool", api_key=self.key, pattern="second__search")
            entries = [
                {"server": "first", "kind": "tool", "pattern": "*e*"},
                {"server": "second", "kind": "all", "pattern": "*"},
            ]
            self.desk = create_toolset(slug="desk", entries=entries)
        self.store = SnapshotStore()
        self.build()

    def build(self) -> None:
        read(self.store)
        register_viewer(partial(look, self.store))

    def sees(self, toolset: str = "", key=None):
        with tenant_scope(self.tenant.pk, SYSTEM):
            return seen_now(api_key=key or self.key, toolset=toolset)

    def listed(self, slug: str) -> dict[str, list[str]]:
        """What the gateway's own lists give."""
        snapshot = self.store.current
        caller = snapshot.caller_of_key_id(str(self.key.pk))
        target = find_target(snapshot, caller, slug)
        lists = Lists(PlaneConfig(public_url="http://127.0.0.1:8000"), KEYRING)
        found = {}
        for method, (kind, member) in LISTS.items():
            raw, given, total = lists.list(snapshot, caller, target, method, {}, modern=True)
            assert given == total
            found[kind] = [one.get("uriTemplate") or one.get("uri") or one["name"] for one in json.loads(raw)[member.decode()]]
        return found


@pytest.fixture
def house(db):
    yield House()
    register_viewer(None)


def names(sight, kind: str = "tool") -> list[str]:
    return [one.name for one in sight.listed if one.kind == kind]


def missing(sight) -> set[tuple[str, str]]:
    return {(one.name, one.why) for one in sight.missing}


@pytest.mark.parametrize("slug", ["", "first", "second", "desk"])
def test_it_is_what_the_lists_give(house, slug):
    sight = house.sees(slug)
    for kind, found in house.listed(slug).items():
        assert names(sight, kind) == found
        assert sight.counts[kind] == len(found)
    assert sight.path == (f"/mcp/{slug}" if slug else "/mcp")


def test_what_waits_for_review_is_missing_by_name_for_those_whose_grants_reach_it(house):
    assert missing(house.sees("second")) == {("search", "held")}
    assert missing(house.sees("desk")) >= {("second__search", "held")}
    assert ("second__search", "held") in missing(house.sees())
    assert not any("drop" in name for name, _ in missing(house.sees())), "no grant would give it"


def test_a_paused_server_and_a_paused_toolset_are_named(house):
    with tenant_scope(house.tenant.pk, SYSTEM):
        pause_server(house.first)
    house.build()
    sight = house.sees("first")
    assert names(sight) == []
    assert {("read", "paused"), ("write", "paused"), ("docs://a", "paused"), ("triage", "paused")} <= missing(sight)
    with tenant_scope(house.tenant.pk, SYSTEM):
        pause_toolset(house.desk)
    house.build()
    assert house.sees("desk").counts["tool"] == 0
    assert ("first__read", "paused") in missing(house.sees("desk"))


def test_a_name_that_is_too_long_is_missing_where_names_have_a_prefix(house):
    assert ("first__" + "n" * 60, "name") in missing(house.sees())
    assert "n" * 60 in names(house.sees("first"))


def test_a_dead_server_is_listed_and_named(house):
    set_endpoint_state(Endpoint.unscoped.get(server=house.first).pk, "unhealthy", "Connection refused")
    house.build()
    sight = house.sees()
    assert "first__read" in names(sight)
    assert [(one.server, one.state) for one in sight.trouble] == [("first", "unhealthy")]


def test_a_server_that_was_never_reached_is_named(house):
    with tenant_scope(house.tenant.pk, SYSTEM):
        register_server(slug="third", transport="stdio", command="true")
        grant(kind="server", api_key=house.key, server=Server.objects.get(slug="third"))
    house.build()
    sight = house.sees("third")
    assert (sight.listed, [(one.server, one.state) for one in sight.trouble]) == ([], [("third", "unknown")])
    assert "1 unknown" in sight.empty


def test_what_no_grant_gives_is_counted(house):
    offer(house.second, tool("search", "Searches."), tool("drop"))
    with tenant_scope(house.tenant.pk, SYSTEM):
        from apps.tools.services.review import approve_all

        approve_all(house.second)
    house.build()
    sight = house.sees("second")
    assert names(sight) == ["search"]
    assert sight.not_granted == {"tool": 1}
    assert [(one.name, one.rule) for one in sight.refused] == [("drop", "default-deny")]


def test_every_entry_names_the_rule_that_allows_it_and_every_refusal_its_rule(house):
    with tenant_scope(house.tenant.pk, SYSTEM):
        deny = grant(kind="tool", effect="deny", api_key=house.key, pattern="first__w*")
        allow = Grant.objects.get(api_key=house.key, server=house.first)
    house.build()
    sight = house.sees("first")
    assert {one.rule for one in sight.listed} == {f"grant:{allow.pk}"}
    assert [(one.name, one.rule) for one in sight.refused] == [("write", f"grant:{deny.pk}")]
    assert set(sight.rules) == {f"grant:{allow.pk}", f"grant:{deny.pk}"}
    assert "first__w*" in sight.rules[f"grant:{deny.pk}"]
    assert sight.empty == ""


def test_a_person_is_looked_at_like_a_key(house):
    person = make_user(house.tenant, "user")
    with tenant_scope(house.tenant.pk, SYSTEM):
        grant(kind="server", user=person, server=house.first)
    house.build()
    with tenant_scope(house.tenant.pk, SYSTEM):
        sight = seen_now(user=person)
        assert (sight.principal, "first__read" in names(sight)) == (person.username, True)
        with pytest.raises(NotFound):
            seen_now(user=make_user(make_tenant(), "user"))


def test_lists_that_are_empty_say_why(house):
    nobody = make_key(make_user(house.tenant), house.tenant)[0]
    house.build()
    sight = house.sees("first", nobody)
    assert sight.listed == []
    assert "refused by default-deny" in sight.empty
    out = StringIO()
    call_command("explain_access", key=nobody.prefix, toolset="first", stdout=out)
    assert f"gets nothing: {sight.empty}" in out.getvalue()


def test_the_command_says_what_the_page_says(house):
    out = StringIO()
    call_command("explain_access", key=house.key.prefix, stdout=out)
    text = out.getvalue()
    assert "first__read  (tool of first)  grant:" in text
    assert "second__search  (tool of second)  held" in text
    out = StringIO()
    call_command("explain_access", key=house.key.prefix, toolset="second", json=True, stdout=out)
    assert json.loads(out.getvalue()) == asdict(house.sees("second")) | {"version": json.loads(out.getvalue())["version"]}
    with pytest.raises(CommandError, match="There is no such user"):
        call_command("explain_access", user="nobody-of-that-name")


def test_who_may_look(house):
    def ask(actor, tenant, toolset=""):
        with tenant_scope(tenant.pk, actor):
            return seen_now(api_key=house.key, toolset=toolset)

    assert ask(as_user(make_user(house.tenant, "operator")), house.tenant).counts["tool"]
    assert ask(as_user(make_superuser()), house.tenant).counts["tool"]
    for role in ("user", "guest", "auditor"):
        with pytest.raises(PermissionDenied):
            ask(as_user(make_user(house.tenant, role)), house.tenant)
    stranger = make_tenant()
    with pytest.raises(NotFound):
        ask(as_user(make_user(stranger, "admin")), stranger)
    with pytest.raises(NotFound):
        ask(SYSTEM, house.tenant, "no-such-toolset")


def test_a_key_that_is_not_good_sees_nothing(house):
    from apps.accounts.services.api_keys import revoke_api_key

    with tenant_scope(house.tenant.pk, SYSTEM):
        revoke_api_key(house.key)
        house.key.refresh_from_db()
    with pytest.raises(NotFound, match="revoked"):
        house.sees()


def test_without_a_data_plane_it_says_so(house):
    register_viewer(None)
    with pytest.raises(NotReady):
        house.sees()
