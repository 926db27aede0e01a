"""A list costs the same with one row as with fifty, and so does the overview."""

import pytest
from django.core.cache import cache
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.accounts.services.api_keys import create_api_key
from apps.common.context import SYSTEM, tenant_scope
from apps.servers.models import Endpoint, Server, UpstreamProcess
from apps.servers.services.registry import register_server
from apps.tools.models import Prompt, Resource, Tool
from apps.tools.services.grants import grant
from apps.tools.services.toolsets import create_toolset
from tests.console.conftest import client_of
from tests.factories import make_role, make_user

FEW, MANY = 2, 50


def queries(client, url: str) -> int:
    """Count the queries of a page on every database, once everything that is kept has been kept."""
    client.get(url)
    cache.clear()
    with CaptureQueriesContext(connections["default"]) as default:
        if "audit" in connections:
            with CaptureQueriesContext(connections["audit"]) as log:
                answer = client.get(url)
            extra = len(log)
        else:
            answer = client.get(url)
            extra = 0
    assert answer.status_code == 200
    return len(default) + extra


def grow(tenant, start: int, end: int, owner) -> None:
    """Add rows of every kind."""
    with tenant_scope(tenant.pk, SYSTEM):
        for number in range(start, end):
            server = register_server(slug=f"grown-{number}", transport="http", url=f"https://grown-{number}.example.com/mcp")
            for model, name in ((Tool, f"tool_{number}"), (Resource, f"docs://{number}"), (Prompt, f"prompt_{number}")):
                model.objects.create(
                    tenant=tenant, server=server, name=name, definition={"name": name}, digest="x", state="active"
                )
            toolset = create_toolset(slug=f"composed-{number}", entries=[{"server": server, "kind": "tool", "pattern": "*"}])
            key, _ = create_api_key(name=f"grown {number}", owner=owner)
            grant(kind="server", api_key=key, server=server)
            grant(kind="toolset", api_key=key, toolset=toolset)
            grant(kind="tool", api_key=key, pattern=f"grown-{number}__*")
            make_role(tenant, "tool.read")
            make_user(tenant, "user")
            process = {
                "endpoint": Endpoint.objects.get(server=server),
                "worker": "host:1",
                "pid": number + 1,
                "started_at": server.created_at,
                "seen_at": server.created_at,
            }
            UpstreamProcess.objects.create(id=server.pk, **process)


PAGES = (
    "index", "servers_server_changelist", "tools_tool_changelist", "tools_resource_changelist", "tools_prompt_changelist",
    "tools_toolset_changelist", "tools_grant_changelist", "accounts_apikey_changelist", "accounts_role_changelist",
    "accounts_membership_changelist", "accounts_user_changelist", "servers_upstreamprocess_changelist", "audit_auditevent_changelist",
)  # fmt: skip


@pytest.mark.django_db
def test_lists_cost_the_same_with_fifty_rows(tenant):
    boss = make_user(tenant, "admin")
    client = client_of(boss)
    grow(tenant, 0, FEW, boss)
    few = {page: queries(client, reverse(f"admin:{page}")) for page in PAGES}
    grow(tenant, FEW, MANY, boss)
    many = {page: queries(client, reverse(f"admin:{page}")) for page in PAGES}
    assert many == few
    assert max(many.values()) <= 60, many


@pytest.mark.django_db
def test_a_server_page_costs_the_same_with_fifty_tools(tenant):
    client = client_of(make_user(tenant, "admin"))
    with tenant_scope(tenant.pk, SYSTEM):
        server = register_server(slug="wide", transport="http", url="https://wide.example.com/mcp")

    def add(start: int, end: int) -> None:
        for number in range(start, end):
            Tool.unscoped.create(
                tenant=tenant, server=server, name=f"t_{number}", definition={"name": f"t_{number}"}, digest="x", state="active"
            )

    url = reverse("admin:servers_server_change", args=(server.pk,))
    add(0, FEW)
    few = queries(client, url)
    add(FEW, MANY)
    assert queries(client, url) == few


@pytest.mark.django_db
def test_badges_are_counted_once_in_a_while(tenant, world, staff):
    client = staff["operator"]
    url = reverse("admin:import_servers")
    client.get(url)
    with CaptureQueriesContext(connections["default"]) as seen:
        client.get(url)
    assert not [
        query["sql"]
        for query in seen.captured_queries
        if "COUNT" in query["sql"] and ("servers_server" in query["sql"] or "tools_tool" in query["sql"])
    ]
    assert Server.unscoped.filter(tenant=tenant).exists()
