"""Lists: as many queries for fifty rows as for one, filters that narrow, pages that hold every row once."""

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from apps.common.clock import now
from apps.common.context import SYSTEM, tenant_scope
from apps.common.ids import new_id
from apps.common.outbox import unit_of_work
from apps.gateway.services.limits import set_limit
from apps.servers.models import Endpoint, UpstreamProcess
from apps.servers.services.registry import register_server
from apps.tools.services.discovery import apply_found
from apps.tools.services.grants import grant
from apps.tools.services.review import approve_all
from apps.tools.services.toolsets import create_toolset
from tests.accounts.client import Api
from tests.api.routes import routes
from tests.api.world import NOWHERE, World, make_client, make_connection, make_event, make_recording, make_world
from tests.factories import make_key, make_role, make_tenant, make_user
from tests.tools.support import found, offer, prompt, resource, template, tool

pytestmark = pytest.mark.django_db

LISTS = [
    route.template
    for route in routes()
    # what is above all tenants is of its own kind, without relations
    if route.name.endswith("-list")
    and route.method == "get"
    and not route.name.startswith(("audit-checkpoint", "audit-retention"))
]
MANY = 50


def queries(api: Api, path: str) -> tuple[int, int]:
    """How many queries a list takes, and how many rows it has."""
    with (
        CaptureQueriesContext(connections["default"]) as one,
        CaptureQueriesContext(connections["audit" if "audit" in connections else "default"]) as two,
    ):
        answer = api.get(path)
    assert answer.status_code == 200, answer.content
    return len(one) + (len(two) if "audit" in connections else 0), len(
        answer.json().get("results", answer.json().get("tools", []))
    )


def fill(world: World) -> None:
    """Fifty more of everything."""
    tenant = world.tenant
    with tenant_scope(tenant.pk, SYSTEM), unit_of_work():
        first = register_server(slug="first", transport="stdio", command="true", env={"A": "b"})
        offered = found(
            *(tool(f"tool-{number}") for number in range(MANY)), resources=[resource(f"docs://{number}") for number in range(MANY)],
            templates=[template(f"docs://{number}/{{page}}") for number in range(MANY)], prompts=[prompt(f"prompt-{number}") for number in range(MANY)],
        )  # fmt: skip
        apply_found(first, offered)
        endpoint = Endpoint.objects.get(server=first)
        for number in range(MANY):
            UpstreamProcess.objects.create(
                id=new_id(), endpoint=endpoint, worker="host:1", pid=number + 1, started_at=now(), seen_at=now()
            )
            server = register_server(slug=f"s-{number}", transport="http", url=NOWHERE, headers={"X-Key": "v"})
            apply_found(server, found(tool("one"), instructions="Be kind."))
            make_connection(server, f"token-{number}")
            create_toolset(slug=f"set-{number}", entries=[{"server": first, "pattern": f"tool-{number}"}, {"server": server}])
            role = make_role(tenant, "server.read")
            grant(kind="server", role=role, server=server)
            make_client(make_key(make_user(tenant, role, password=None), tenant)[0])
            make_event(tenant, str(new_id()))
            make_recording(tenant)
            set_limit(subject="role", role=role, amount=number, window="day")


def test_a_list_takes_as_many_queries_for_fifty_rows_as_for_one(world: World, admin: Api, root: Api):
    few = {path: queries(admin, path) for path in LISTS}
    contents = queries(admin, f"toolsets/{world.toolset.slug}/contents/")
    fill(world)
    many = {path: queries(admin, f"{path}{'?limit=200' if path != 'statistics/' else ''}") for path in LISTS}
    grown = {path: (few[path], many[path]) for path in LISTS if many[path][0] > few[path][0]}
    assert grown == {}
    short = {path: rows for path, (_, rows) in many.items() if rows < MANY and path not in ("tenants/", "statistics/")}
    assert short == {}
    assert queries(admin, f"toolsets/{world.toolset.slug}/contents/")[0] == contents[0]
    for _ in range(10):
        make_tenant()
    before = queries(root, "tenants/?limit=1")
    assert queries(root, "tenants/?limit=200")[0] == before[0]


def slugs(api: Api, path: str) -> set[str]:
    """The slugs (or names) of a list."""
    answer = api.get(path)
    assert answer.status_code == 200, answer.content
    return {row.get("slug") or row.get("full_name") or row["id"] for row in answer.json()["results"]}


def test_filters_of_servers(world: World, root: Api):
    with tenant_scope(world.tenant.pk, SYSTEM):
        local = register_server(slug="local", transport="stdio", command="true", description="Reads the clock")
        register_server(slug="events", transport="sse", url=NOWHERE, paused=True)
    with_resources = found(tool("now"))
    with_resources.capabilities = {"tools": {}, "resources": {}}
    with tenant_scope(world.tenant.pk, SYSTEM), unit_of_work():
        apply_found(local, with_resources)
    mine = world.server.slug
    for query, expected in {
        "": {mine, "local", "events"}, "transport=stdio": {"local"}, "transport=sse": {"events"}, "state=paused": {"events"},
        "state=unknown": {mine, "local"}, "capability=resources": {"local"}, "capability=tools": {mine, "local"}, "search=clock": {"local"},
        "builtin=true": set(), "review=hold-all": {mine}, f"tenant={world.tenant.slug}": {mine, "local", "events"},
        f"tenant={world.tenant.pk}&transport=http": {mine}, "tenant=another": set(),
    }.items():  # fmt: skip
        assert slugs(root, f"servers/?{query}") == expected, query
    ordered = [row["slug"] for row in root.get("servers/?ordering=-slug").json()["results"]]
    assert ordered == sorted(ordered, reverse=True)


def test_filters_of_the_catalogue(world: World, root: Api):
    other = make_world(world.tenant)
    with tenant_scope(world.tenant.pk, SYSTEM):
        approve_all(other.server)
    mine = {f"{world.server.slug}__search", f"{world.server.slug}__read"}
    theirs = {f"{other.server.slug}__search", f"{other.server.slug}__read"}
    for query, expected in {
        "": mine | theirs, f"server={world.server.slug}": mine, f"server={other.server.pk}": theirs, "state=held": mine, "state=active": theirs,
        "transport=http": mine | theirs, "transport=stdio": set(), "search=finds": {one for one in mine | theirs if one.endswith("search")},
        "effects=unknown": mine | theirs, "effects=read-only": set(), f"tenant={world.tenant.slug}": mine | theirs, "tenant=another": set(),
    }.items():  # fmt: skip
        assert slugs(root, f"tools/?{query}") == expected, query
    for kind in ("resources", "resource-templates", "prompts", "instructions"):
        assert len(slugs(root, f"{kind}/")) == 2
        assert len(slugs(root, f"{kind}/?state=held")) == 1


def test_filters_of_toolsets_grants_and_processes(world: World, root: Api):
    assert slugs(root, "toolsets/?composed=true") == {world.toolset.slug}
    assert (
        slugs(root, "toolsets/?composed=false") == slugs(root, f"toolsets/?server={world.server.slug}") == {world.server.slug}
    )
    root.post(f"toolsets/{world.toolset.slug}/pause/")
    assert slugs(root, "toolsets/?paused=true") == {world.toolset.slug}
    assert slugs(root, "toolsets/?paused=false") == {world.server.slug}
    assert slugs(root, f"toolsets/?search={world.toolset.slug[:8]}") == {world.toolset.slug}
    assert slugs(root, f"grants/?role={world.role.pk}&kind=server") == {str(world.grant.pk)}
    assert slugs(root, f"grants/?role={world.spare_role.pk}") == set()
    assert (
        slugs(root, f"processes/?server={world.server.slug}")
        == slugs(root, "processes/?worker=host:1")
        == {str(world.process.pk)}
    )
    shown = root.get(f"grants/{world.grant.pk}/").json()
    assert (shown["subject"], shown["object"]) == (world.role.slug, world.server.slug)


def test_the_log_is_read_page_by_page(world: World, admin: Api):
    for _ in range(5):
        make_event(world.tenant, str(new_id()))
    seen, path = [], "audit-events/?limit=2&event_type=call."
    while path:
        body = admin.get(path).json()
        seen += [row["event_id"] for row in body["results"]]
        path = body["next"] and body["next"].removeprefix("http://testserver")
    assert len(seen) == len(set(seen)) == 6
    (story,) = admin.get(f"audit-events/calls/{world.call_id}/").json()
    assert story["details"] == {"n": 1}
    assert admin.get(f"audit-events/{world.event}/").json()["event_id"] == world.event


def test_statistics_are_those_of_what_is_in_view(world: World, root: Api):
    offer(world.server, tool("search", "Finds things."), tool("read", "Reads."))
    figures = root.get("statistics/").json()["servers"]
    assert (figures["total"], figures["active"], figures["tools"], figures["held"]) == (1, 1, 0, 2)
    assert figures["by_transport"] == {"stdio": 0, "sse": 0, "http": 1}
    root.post(f"servers/{world.server.slug}/approve-all/")
    root.post(f"servers/{world.server.slug}/pause/")
    figures = root.get("statistics/").json()["servers"]
    assert (figures["total"], figures["active"], figures["tools"], figures["held"], figures["by_state"]["paused"]) == (
        1,
        0,
        2,
        0,
        1,
    )
