"""Compatibility by REST: clients that were seen, pairs with a verdict for each feature, page by page, and what one sees now."""

from functools import partial

import pytest

from apps.common.context import SYSTEM, tenant_scope
from apps.gateway.adapters.sight import look
from apps.gateway.plane.mcp.compat import FEATURES
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.services.sight import register_viewer
from apps.servers.services.endpoints import remember_era
from apps.tools.services.grants import grant
from apps.tools.services.review import approve_all
from tests.accounts.client import Api, problem
from tests.api.world import World, make_client
from tests.factories import make_key, make_user
from tests.gateway.pictures import read
from tests.tools.support import make_server, offer, tool

pytestmark = pytest.mark.django_db


@pytest.fixture
def three(world: World) -> World:
    """Three servers in all, and three clients: at `/mcp`, at the composed toolset, at a toolset that is gone."""
    for slug in ("aaa", "zzz"):
        server = make_server(world.tenant, slug)
        offer(server, tool("one", outputSchema={"type": "object"}))
        remember_era(
            server.endpoints.get().pk,
            "modern" if slug == "aaa" else "legacy",
            ("2026-07-28" if slug == "aaa" else "2025-11-25",),
        )
    make_client(world.key, name="composed", toolset=world.toolset.slug, revision="2026-07-28", declared=["elicitation.form"])
    make_client(world.key, name="lost", toolset="gone")
    return world


def test_a_client_is_shown_in_its_own_words(world: World, admin: Api):
    shown = admin.get(f"clients/{world.client.pk}/").json()
    assert {shown[name] for name in ("name", "version", "revision", "era", "toolset")} == {
        "agent",
        "1.0",
        "2025-11-25",
        "legacy",
        "",
    }
    assert shown["declared"] == ["roots"]
    assert shown["api_key"] == str(world.key.pk)
    assert world.key.prefix in shown["key"]
    for query, found in {
        "revision=2025-11-25": 1,
        "revision=2026-07-28": 0,
        "search=agen": 1,
        "search=nobody": 0,
        "streams=true": 1,
    }.items():
        assert len(admin.get(f"clients/?{query}").json()["results"]) == found, query
    problem(admin.get("clients/?ordering=address"), 400, "validation-failed")


def pairs(answer) -> list[tuple[str, str]]:
    assert answer.status_code == 200, answer.content
    return [(pair["client"]["name"], pair["server"]["slug"]) for pair in answer.json()["results"]]


def test_a_client_meets_the_servers_that_it_reaches(three: World, admin: Api):
    mine = three.server.slug
    everything = [("agent", "aaa"), ("agent", mine), ("agent", "zzz"), ("composed", mine)]
    assert pairs(admin.get("compatibility/")) == everything
    assert pairs(admin.get(f"compatibility/?client={three.client.pk}")) == everything[:3]
    assert pairs(admin.get("compatibility/?server=aaa")) == [everything[0]]
    assert pairs(admin.get(f"compatibility/?server={three.server.pk}&revision=2026-07-28")) == [("composed", mine)]
    assert pairs(admin.get("compatibility/?server=none")) == []
    assert pairs(admin.get(f"compatibility/?toolset={three.toolset.slug}")) == [("composed", mine)]


def test_each_pair_says_what_works_and_why(three: World, admin: Api):
    first, _, last = admin.get(f"compatibility/?client={three.client.pk}").json()["results"]
    for pair in (first, last):
        assert [one["feature"] for one in pair["features"]] == list(FEATURES)
        assert sum(pair["counts"].values()) == len(FEATURES)
    states = [{one["feature"]: one["state"] for one in pair["features"]} for pair in (first, last)]
    assert [found["tools"] for found in states] == ["translated", "works"]
    assert [found["structured-content"] for found in states] == ["translated", "works"]
    assert [found["roots"] for found in states] == ["translated", "works"]
    assert [found["sampling"] for found in states] == ["not-asked", "not-asked"]
    assert (first["server"]["era"], first["server"]["has"]["structured"], last["server"]["era"]) == ("modern", 1, "legacy")


def test_pages_hold_every_pair_once(three: World, admin: Api):
    seen, address = [], "compatibility/?limit=1"
    while address:
        answer = admin.get(address)
        seen += pairs(answer)
        assert len(seen) < 20
        address = answer.json()["next"]
        address = address and address.removeprefix("http://testserver")
    assert seen == pairs(admin.get("compatibility/"))
    assert pairs(admin.get("compatibility/?limit=2")) == seen[:2]
    for cursor in ("nonsense", "W10", "WyJhIiwgImIiLCAiYyJd", "\u202e"):
        problem(admin.get(f"compatibility/?cursor={cursor}"), 400, "validation-failed")
    problem(admin.get("compatibility/?limit=0"), 400, "validation-failed")
    problem(admin.get("compatibility/?colour=red"), 400, "validation-failed")


def test_what_a_client_sees_now(world: World, admin: Api):
    with tenant_scope(world.tenant.pk, SYSTEM):
        approve_all(world.server)
        grant(kind="server", api_key=world.key, server=world.server)
        other = make_key(make_user(world.tenant), world.tenant)[0]
    store = SnapshotStore()
    read(store)
    register_viewer(partial(look, store))
    try:
        sight = admin.get(f"compatibility/sight/?client={world.client.pk}").json()
        slug = world.server.slug
        assert [one["name"] for one in sight["listed"] if one["kind"] == "tool"] == [f"{slug}__read", f"{slug}__search"]
        assert (sight["path"], sight["counts"]["tool"], sight["missing"]) == ("/mcp", 2, [])
        composed = admin.get(f"compatibility/sight/?client={world.client.pk}&toolset={world.toolset.slug}").json()
        assert [one["name"] for one in composed["listed"]] == [f"{slug}__read"]
        assert admin.get(f"compatibility/sight/?key={other.prefix}").json()["counts"]["tool"] == 0
        problem(admin.get(f"compatibility/sight/?key={other.prefix}&toolset=none"), 404, "not-found")
        problem(admin.get(f"compatibility/sight/?key={other.prefix}&client={world.client.pk}"), 400, "validation-failed")
        problem(admin.get("compatibility/sight/?client=01980000-0000-7000-8000-0000000000ff"), 404, "not-found")
    finally:
        register_viewer(None)
    problem(admin.get(f"compatibility/sight/?client={world.client.pk}"), 503, "not-ready")
