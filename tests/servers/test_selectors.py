"""Reads of the registry: filters, figures, rows, the data plane's facts, and what they cost."""

import time

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.errors import NotFound, TenantRequired
from apps.servers import selectors
from apps.servers.models import Endpoint, Server
from apps.servers.services.endpoints import set_endpoint_state
from apps.servers.services.processes import record_process
from apps.servers.services.registry import pause_server
from tests.factories import make_tenant
from tests.servers.support import PUBLIC, make_server

pytestmark = pytest.mark.django_db(databases="__all__")


def slugs(rows) -> list[str]:
    return sorted(row.slug for row in rows)


@pytest.fixture
def fleet(tenant):
    """Servers of every kind and state in one tenant, one of another."""
    web = make_server(tenant, "web", headers={"X-Key": "v"}, description="Weather maps")
    make_server(tenant, "old", transport="sse", url=PUBLIC + "/sse")
    files = make_server(tenant, "files", command="cat", args=["-n"])
    pause_me = make_server(tenant, "asleep")
    make_server(make_tenant(), "web")
    Server.unscoped.filter(pk=web.pk).update(capabilities={"tools": {}, "prompts": {}}, revisions=["2026-07-28"])
    Server.unscoped.filter(pk=files.pk).update(capabilities={"tools": {"listChanged": True}})
    with tenant_scope(tenant.pk, SYSTEM):
        pause_server(pause_me)
        set_endpoint_state(Endpoint.objects.get(server=web).pk, "healthy")
        set_endpoint_state(Endpoint.objects.get(server=files).pk, "unhealthy", "It died.")
    return tenant


def test_filters(fleet):
    with tenant_scope(fleet.pk, SYSTEM):
        find = selectors.servers
        assert slugs(find()) == ["asleep", "files", "old", "web"]
        assert slugs(find(capability="tools")) == ["files", "web"]
        assert slugs(find(capability="prompts")) == ["web"]
        assert slugs(find(transport="sse")) == ["old"]
        assert slugs(find(state="paused")) == ["asleep"]
        assert slugs(find(state="unhealthy")) == ["files"]
        assert slugs(find(state="unknown")) == ["old"]
        assert slugs(find(state="healthy", capability="tools", transport="http")) == ["web"]
        assert slugs(find(search="weather")) == ["web"]
        assert slugs(find(search="/sse")) == ["old"]
        assert slugs(find(search="cat")) == ["files"]
        assert slugs(find(tenant=fleet.slug)) == slugs(find(tenant=fleet.pk)) == slugs(find())
        assert slugs(find(tenant="nobody")) == []
        assert slugs(Server.objects.active()) == ["files", "old", "web"]
        assert slugs(Server.objects.paused()) == ["asleep"]
        assert slugs(Server.objects.in_state("unhealthy")) == ["files"]


def test_one_tenant_is_seen_all_tenants_are_seen_and_none_is_an_error(fleet):
    with every_tenant(SYSTEM):
        assert slugs(selectors.servers(search="web")).count("web") == 2
        assert slugs(selectors.servers(tenant=fleet.slug, search="web")) == ["web"]
    with pytest.raises(TenantRequired):
        selectors.servers()


def test_the_worst_endpoint_is_the_state(tenant):
    server = make_server(tenant)
    with tenant_scope(tenant.pk, SYSTEM):
        second = Endpoint.objects.create(tenant=tenant, server=server, url=PUBLIC + "/2")
        first = Endpoint.objects.get(server=server, url=PUBLIC)
        for one, other, worst in (
            ("healthy", "healthy", "healthy"),
            ("healthy", "unknown", "unknown"),
            ("degraded", "unknown", "degraded"),
            ("degraded", "unauthenticated", "unauthenticated"),
            ("unauthenticated", "unhealthy", "unhealthy"),
        ):
            Endpoint.objects.filter(pk=first.pk).update(state=one)
            Endpoint.objects.filter(pk=second.pk).update(state=other)
            assert selectors.servers().get().state == worst
        Endpoint.objects.all().delete()
        assert selectors.servers().get().state == "unknown"


def test_rows_for_lists_cost_the_same_for_many_as_for_few(fleet):
    with tenant_scope(fleet.pk, SYSTEM):
        with CaptureQueriesContext(
            connection,
        ) as few:
            rows = {row.slug: row for row in selectors.server_rows()}
        for _ in range(10):
            make_server(fleet)
        with CaptureQueriesContext(connection) as many:
            assert len(selectors.server_rows()) == 14
    assert len(many) == len(few) <= 3
    assert rows["web"].credentials == ("header X-Key",)
    assert rows["web"].capabilities == ("prompts", "tools")
    assert (rows["files"].address, rows["files"].state_reason) == ("cat -n", "It died.")
    assert rows["asleep"].state == "paused"


def test_statistics(fleet):
    with tenant_scope(fleet.pk, SYSTEM):
        files = Endpoint.objects.get(server__slug="files")
        record_process(files.pk, "01890000-0000-7000-8000-000000000001", pid=1)
        figures = selectors.server_statistics()
    assert (figures.total, figures.active, figures.processes) == (4, 3, 1)
    assert figures.by_transport == {"stdio": 1, "sse": 1, "http": 2}
    assert figures.by_state == {
        "healthy": 1, "degraded": 0, "unhealthy": 1, "unauthenticated": 0, "paused": 1, "unknown": 1,
    }  # fmt: skip
    with every_tenant(SYSTEM):
        assert selectors.server_statistics().total == 5
        assert selectors.server_statistics(fleet.slug).total == 4


def test_by_id_or_slug(fleet):
    with tenant_scope(fleet.pk, SYSTEM):
        server = selectors.get_server("web")
        assert selectors.get_server(server.pk) == selectors.get_server(str(server.pk)) == server
        for missing in ("nobody", "", "01890000-0000-7000-8000-000000000000", None, 7):
            with pytest.raises(NotFound):
                selectors.get_server(missing)
    with every_tenant(SYSTEM):
        foreign = Server.objects.exclude(tenant=fleet).get(slug="web")
    with tenant_scope(fleet.pk, SYSTEM), pytest.raises(NotFound):
        selectors.get_server(foreign.pk)


def test_facts_of_the_data_plane(fleet):
    with every_tenant(SYSTEM):
        facts = {facts.slug: facts for facts in selectors.plane_servers() if facts.tenant_id == str(fleet.pk)}
        assert sorted(facts) == ["asleep", "files", "old", "web"]
        assert facts["asleep"].paused
        assert facts["web"].revisions == ("2026-07-28",)
        [endpoint] = facts["files"].endpoints
        assert (endpoint.command, endpoint.args, endpoint.state) == ("cat", ("-n",), "unhealthy")
        assert selectors.plane_servers([facts["web"].id]) == [facts["web"]]
        assert selectors.facts_of(facts["web"].id) == facts["web"]
        gone = "01890000-0000-7000-8000-000000000000"
        assert [found.slug for found in selectors.plane_servers([gone, facts["old"].id])] == ["old"]
        with pytest.raises(NotFound):
            selectors.facts_of(gone)
    assert "X-Key" not in repr(facts)


def test_a_thousand_servers_are_read_in_half_a_second_with_two_queries(tenant):
    servers = [Server(tenant=tenant, slug=f"s{n}", name=f"S {n}", transport="http") for n in range(1000)]
    Server.unscoped.bulk_create(servers)
    Endpoint.unscoped.bulk_create([Endpoint(tenant=tenant, server=server, url=PUBLIC) for server in servers])
    with every_tenant(SYSTEM), CaptureQueriesContext(connection) as queries:
        begun = time.perf_counter()
        facts = selectors.plane_servers()
        taken = time.perf_counter() - begun
        assert len(facts) >= 1000
        assert len(selectors.plane_servers([server.pk for server in servers])) == 1000
    assert len(queries) == 4
    assert taken < 5
