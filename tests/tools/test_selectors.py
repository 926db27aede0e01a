"""What the data plane is fed from, at size, and the lists for people."""

import time
from collections import Counter

import pytest

from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.errors import NotFound, TenantRequired
from apps.common.ids import new_id
from apps.tools.domain import canonical, digest
from apps.tools.models import Grant, Tool, Toolset
from apps.tools.selectors import (
    catalogue,
    definition_counts,
    get_definition,
    get_toolset,
    last_discovery,
    plane_definitions,
    plane_grants,
    plane_toolsets,
    toolsets,
)
from apps.tools.services.toolsets import create_toolset
from tests.factories import make_role, make_tenant
from tests.tools.support import make_server, offer, prompt, resource, tool


def fill(tenant, servers: int, tools: int) -> None:
    """Many servers with many tools, as rows."""
    definition = tool("x", "Does something worth a paragraph. " * 10, annotations={"readOnlyHint": True})
    made = [make_server(tenant) for _ in range(servers)]
    rows = [
        Tool(tenant=tenant, server=server, name=f"t{n}", definition=definition, digest="d" * 64, position=n)
        for server in made
        for n in range(tools)
    ]
    Tool.unscoped.bulk_create(rows, batch_size=1000)


def test_ten_thousand_tools_are_read_in_time_and_four_queries(tenant, django_assert_num_queries):
    fill(tenant, 20, 500)
    with every_tenant(), django_assert_num_queries(4):
        started = time.thread_time()
        rows = plane_definitions(None)
        taken = time.thread_time() - started
    assert len(rows) == 10_000
    assert taken < 15
    assert Counter(row.effects for row in rows) == {"unknown": 10_000}


def test_ten_thousand_grants_are_read_in_time_and_one_query(tenant, django_assert_num_queries):
    role = make_role(tenant)
    Grant.unscoped.bulk_create(
        [Grant(tenant=tenant, kind="tool", role=role, pattern=f"git__{n}") for n in range(10_000)], batch_size=1000
    )
    with every_tenant(), django_assert_num_queries(1):
        started = time.thread_time()
        rows = plane_grants(None)
        taken = time.thread_time() - started
    assert len(rows) == 10_000
    assert taken < 5
    with every_tenant():
        assert len(plane_grants([f"role:{role.pk}", f"user:{new_id()}", f"api_key:{new_id()}"])) == 10_000
        assert plane_grants([]) == []


def test_a_scope_is_needed_and_walls_hold(tenant):
    server = make_server(tenant, "git")
    offer(server, tool("a"))
    for read in (plane_definitions, plane_toolsets, plane_grants):
        with pytest.raises(TenantRequired):
            list(read(None))
    with tenant_scope(make_tenant().pk, SYSTEM):
        assert plane_definitions([server.pk]) == []
        assert plane_toolsets(None) == []
        assert catalogue().count() == 0
        for ref in ("git__a", Tool.unscoped.get(server=server).pk):
            with pytest.raises(NotFound):
                get_definition(ref)
        for ref in ("git", Toolset.unscoped.get(server=server).pk):
            with pytest.raises(NotFound):
                get_toolset(ref)


def test_ids_that_are_gone_are_not_in_the_answer(tenant):
    server = make_server(tenant)
    offer(server, tool("a"))
    with every_tenant():
        assert {row.server_id for row in plane_definitions([server.pk, new_id()])} == {str(server.pk)}
        assert plane_toolsets([new_id()]) == []
        assert plane_definitions([]) == []


def test_what_is_stored_gives_its_digest_again(tenant):
    server = make_server(tenant)
    definition = tool("a", "\x00 nul, \u2028 and ünïcödé", x=[0.1, 1e21, -0.0, 10**18], z={"b": 1, "a": None})
    offer(server, definition)
    row = Tool.unscoped.get(server=server)
    assert row.state == "held"
    assert row.pending == definition
    assert digest(row.pending) == row.pending_digest
    assert canonical(row.pending) == canonical(definition)


@pytest.mark.usefixtures("inside")
class TestLists:
    def test_filters(self, tenant):
        one, other = make_server(tenant, "git"), make_server(tenant, "web")
        offer(one, tool("search", "Finds commits"), tool("push", title="Send away"), prompts=[prompt("p")])
        offer(other, tool("search"), resources=[resource("a://b")])
        offer(one, tool("search", "Finds commits!"), tool("push", title="Send away"))

        def names(*args, **filters) -> set[str]:
            return {f"{row.server.slug}/{row.name}" for row in catalogue(*args, **filters)}

        assert names() == {"git/search", "git/push", "web/search"}
        assert names(server="git") == names(server=one) == names(server=str(one.pk)) == {"git/search", "git/push"}
        assert names(state="held") == {"git/search"}
        assert names(text="COMMITS") == {"git/search"}
        assert names(text="send") == {"git/push"}
        assert names(text="web__sea") == {"web/search"}
        assert names(server="web", text="search") == {"web/search"}
        assert names("prompt", state="removed") == {"git/p"}
        assert names("resource") == {"web/a://b"}
        assert names("prompt", effects="unknown") == set()
        with pytest.raises(NotFound):
            catalogue("spanner")
        assert definition_counts() == {str(one.pk): {"tool": 1}, str(other.pk): {"tool": 1, "resource": 1}}
        assert definition_counts([other.pk]).keys() == {str(other.pk)}

    def test_by_id_and_by_full_name(self, tenant):
        server = make_server(tenant, "git")
        offer(server, tool("a__b"))
        row = get_definition("git__a__b")
        assert get_definition(row.pk) == get_definition(str(row.pk)) == row

    def test_toolsets(self, tenant):
        make_server(tenant, "git")
        dev = create_toolset(slug="dev", name="Development")
        assert [row.slug for row in toolsets()] == ["dev", "git"]
        assert [row.slug for row in toolsets(composed=True)] == ["dev"]
        assert [row.slug for row in toolsets(composed=False)] == ["git"]
        assert [row.slug for row in toolsets(text="velop")] == ["dev"]
        assert get_toolset("dev") == get_toolset(dev.pk) == dev

    def test_the_last_discovery(self, tenant):
        assert last_discovery(make_server(tenant)) is None
