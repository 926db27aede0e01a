"""Everybody against every route: who is let in, who is refused, and for whom an object does not exist."""

from contextlib import ExitStack

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from tests.api.bodies import body_for
from tests.api.people import NOBODY, SOMEBODY, make_person
from tests.api.routes import Route, of, routes
from tests.api.state import Undone
from tests.api.world import World, make_world

pytestmark = pytest.mark.django_db

# Who:  bare auditor operator admin stranger root narrow
READS, READS_OWN = "403 403 200 200 404 200 403", "403 403 403 200 404 200 403"
"""An object of the catalogue; an object of the accounts."""
LISTS, LISTS_OWN = "403 403 200 200 200 200 403", "403 403 403 200 200 200 403"
"""The same for lists: a stranger sees the list of their own tenant."""
CREATES, CREATES_OWN = "403 403 201 201 201 201 403", "403 403 403 201 201 201 403"
DELETES_OWN = "403 403 403 204 404 204 403"
SUPERUSERS = "403 403 403 403 404 200 403"
NARROWED = "403 403 200 200 404 200 200"
"""What the narrowed key may do."""
RECORDED, DELETES_RECORDED = "403 403 403 200 404 200 403", "403 403 403 204 404 204 403"
"""Messages are for administrators."""
DEFINITION = {
    ("list", "get"): LISTS, ("detail", "get"): READS, ("access", "get"): READS, ("difference", "get"): READS,
    ("approve", "post"): READS, ("reject", "post"): READS,
}  # fmt: skip

TABLE: dict[tuple[str, str], str] = {
    ("api-key-list", "get"): LISTS_OWN,
    ("api-key-list", "post"): CREATES_OWN,
    ("api-key-detail", "get"): READS_OWN,
    ("api-key-detail", "patch"): READS_OWN,
    ("api-key-detail", "delete"): DELETES_OWN,
    ("api-key-revoke", "post"): READS_OWN,
    ("api-key-rotate", "post"): READS_OWN,
    ("audit-checkpoint-list", "get"): "403 403 403 403 403 200 403",
    ("audit-checkpoint-status", "get"): "403 403 403 403 403 200 403",
    ("audit-checkpoint-keys", "get"): "403 200 200 200 200 200 403",
    ("audit-retention-list", "get"): "403 403 403 403 403 200 403",
    ("audit-retention-list", "post"): "403 403 403 403 403 200 403",
    ("audit-event-export", "get"): "403 400 400 400 400 400 403",  # the form must be said
    ("audit-event-list", "get"): "403 200 200 200 200 200 403",
    ("audit-event-calls", "get"): "403 200 200 200 404 200 403",
    ("audit-event-detail", "get"): "403 200 200 200 404 200 403",
    ("audit-event-last-verification", "get"): "403 404 404 404 404 404 403",  # it was never checked
    ("audit-event-verify", "post"): "403 403 403 403 403 200 403",
    ("client-list", "get"): LISTS,
    ("client-detail", "get"): READS,
    ("compatibility-list", "get"): LISTS,
    ("compatibility-sight", "get"): "403 403 400 400 400 400 403",  # whose view is meant must be said
    ("grant-list", "get"): LISTS,
    ("grant-list", "post"): "403 403 201 201 400 201 403",  # a stranger's body names a role that is not theirs
    ("grant-detail", "get"): READS,
    ("grant-detail", "delete"): "403 403 204 204 404 204 403",
    ("limit-list", "get"): LISTS,
    ("limit-list", "post"): "403 403 201 201 400 201 403",  # a stranger's body names a role that is not theirs
    ("limit-detail", "get"): READS,
    ("limit-detail", "patch"): READS,
    ("limit-detail", "delete"): "403 403 204 204 404 204 403",
    ("membership-list", "get"): LISTS_OWN,
    ("membership-list", "post"): "403 403 403 201 404 201 403",
    ("membership-detail", "get"): READS_OWN,
    ("membership-detail", "delete"): DELETES_OWN,
    ("process-list", "get"): LISTS,
    ("process-detail", "get"): READS,
    ("process-kill", "post"): "403 403 202 202 404 202 403",
    ("recording-list", "get"): "403 200 200 200 200 200 403",
    ("recording-list", "post"): "403 403 403 201 404 201 403",
    ("recording-detail", "get"): "403 200 200 200 404 200 403",
    ("recording-detail", "delete"): DELETES_RECORDED,
    ("recording-stop", "post"): RECORDED,
    ("recording-messages", "get"): RECORDED,
    ("recording-download", "get"): RECORDED,
    ("role-list", "get"): LISTS_OWN,
    ("role-list", "post"): CREATES_OWN,
    ("role-detail", "get"): READS_OWN,
    ("role-detail", "patch"): READS_OWN,
    ("role-detail", "delete"): DELETES_OWN,
    ("server-list", "get"): LISTS,
    ("server-list", "post"): CREATES,
    ("server-detail", "get"): READS,
    ("server-detail", "patch"): READS,
    ("server-detail", "delete"): DELETES_OWN,
    ("server-approve-all", "post"): READS,
    ("server-bulk-pause", "post"): "403 403 200 200 400 200 403",
    ("server-bulk-resume", "post"): "403 403 200 200 400 200 403",
    ("server-clone", "post"): "403 403 201 201 404 201 403",
    ("server-connect", "post"): "403 403 409 409 404 409 403",  # it is reached with headers
    ("server-disconnect", "post"): "403 403 204 204 404 204 403",
    ("server-oauth-client", "get"): "403 403 404 404 404 404 403",  # none was entered
    ("server-oauth-client", "put"): "403 403 400 400 404 400 403",
    ("server-oauth-client", "delete"): "403 403 404 404 404 404 403",
    ("upstream-connection-list", "get"): LISTS,
    ("upstream-connection-detail", "get"): READS,
    ("upstream-connection-disconnect", "post"): "403 403 204 204 404 204 403",
    ("server-credentials", "post"): READS,
    ("server-delete-credential", "post"): READS,
    ("server-discover", "post"): READS,
    ("server-export", "get"): LISTS,
    ("server-import-", "post"): LISTS,
    ("server-pause", "post"): READS,
    ("server-probe", "post"): READS,
    ("server-resume", "post"): READS,
    ("server-test", "post"): LISTS,
    ("statistics-list", "get"): LISTS,
    ("tenant-list", "get"): LISTS_OWN,
    ("tenant-list", "post"): "403 403 403 403 403 201 403",
    ("tenant-detail", "get"): READS_OWN,
    ("tenant-detail", "patch"): READS_OWN,
    ("tenant-activate", "post"): SUPERUSERS,
    ("tenant-deactivate", "post"): SUPERUSERS,
    ("tool-call", "post"): "503 503 503 503 404 503 503",  # the data plane decides by grants; none runs here
    ("tool-effects", "post"): READS,
    ("toolset-list", "get"): "403 403 200 200 200 200 200",
    ("toolset-list", "post"): CREATES,
    ("toolset-detail", "get"): NARROWED,
    ("toolset-detail", "patch"): READS,
    ("toolset-detail", "delete"): DELETES_OWN,
    ("toolset-connect", "get"): NARROWED,
    ("toolset-contents", "get"): NARROWED,
    ("toolset-pause", "post"): READS,
    ("toolset-preview", "post"): "403 403 200 200 200 200 200",
    ("toolset-resume", "post"): READS,
    ("user-list", "get"): LISTS_OWN,
    ("user-list", "post"): "403 403 403 201 404 201 403",
    ("user-detail", "get"): READS_OWN,
    ("user-detail", "patch"): READS_OWN,
    ("user-detail", "delete"): DELETES_OWN,
    ("user-activate", "post"): READS_OWN,
    ("user-deactivate", "post"): READS_OWN,
    **{
        (f"{kind}-{page}", method): statuses
        for kind in ("tool", "resource", "resource-template", "prompt", "instructions")
        for (page, method), statuses in DEFINITION.items()
    },
}


def test_every_route_stands_in_the_table():
    assert {(route.name, route.method) for route in routes()} == set(TABLE)


@pytest.mark.parametrize("who", [*NOBODY, *SOMEBODY])
def test_who_may_do_what(who: str, world: World):
    api = make_person(who, world)
    expected, found = {}, {}
    for route in routes():
        named = world.named(route)[0] if route.parameter else ""
        with Undone():
            answer = api(route.method.upper(), route.path(named), body_for(route, world))
        expected[str(route)] = 401 if who in NOBODY else int(TABLE[route.name, route.method].split()[SOMEBODY.index(who)])
        found[str(route)] = answer.status_code
        if answer.status_code >= 400:
            assert answer["Content-Type"] == "application/problem+json", route
            assert answer.json()["request_id"] == answer["X-Request-Id"], route
            assert answer.json()["type"].startswith("https://switchyard.dev/problems/"), route
        if answer.status_code in (401, 403, 404):
            assert not any(secret in answer.content.decode() for secret in world.secrets), route
    assert {name: status for name, status in found.items() if status != expected[name]} == {}


def outcome(api, route: Route, named: str, world: World) -> tuple[int, str, int]:
    """Status, body without what must differ, and how many queries it took."""
    with Undone(), ExitStack() as stack:
        counted = [stack.enter_context(CaptureQueriesContext(connections[alias])) for alias in connections]
        answer = api(route.method.upper(), route.path(named), body_for(route, world))
        queries = sum(len(one.captured_queries) for one in counted)
    text = answer.content.decode().replace(answer["X-Request-Id"], "REQUEST").replace(named, "NAMED")
    return answer.status_code, text, queries


def missing_like(named: str) -> str:
    """A name of the same form that nobody has."""
    if "-" in named and named.partition("-")[0].isdigit() and named.count("-") == 1:
        return f"{int(named.partition('-')[0]) + 1}-{named.partition('-')[2]}"
    if len(named) == 36 and named.count("-") == 4:
        return "01980000-0000-7000-8000-0000000000ff"
    return f"zz{named[2:]}"


@pytest.mark.parametrize("who", ["stranger", "bare"])
def test_a_foreign_object_is_as_one_that_does_not_exist(who: str, world: World):
    """In status, body and number of queries; a stranger is stopped by the wall, the other before anything is looked up."""
    api = make_person(who, world)
    leaks = {}
    with_objects = [route for route in routes() if route.parameter]
    assert len(with_objects) > 50
    for route in with_objects:
        for named in world.named(route) if who == "stranger" else world.named(route)[:1]:
            foreign, missing = outcome(api, route, named, world), outcome(api, route, missing_like(named), world)
            if who == "bare" and route.name == "tool-call":
                continue  # decided by grants, in the data plane; the tool is of their own tenant
            if foreign != missing or foreign[0] not in (403, 404):
                leaks[f"{route} {named}"] = (foreign, missing)
    assert leaks == {}


def test_a_foreign_object_in_a_body_or_a_filter_is_as_one_that_does_not_exist(world: World):
    mine = make_world()
    api = make_person("admin", mine)
    nobody = "01980000-0000-7000-8000-0000000000ff"
    cases = [
        ("POST", "grants/", {"kind": "tool", "pattern": "x__*"}, "role", world.role.pk),
        ("POST", "grants/", {"kind": "tool", "pattern": "x__*"}, "user", world.member.pk),
        ("POST", "grants/", {"kind": "tool", "pattern": "x__*"}, "api_key", world.key.pk),
        ("POST", "grants/", {"kind": "server", "role": mine.role.slug}, "server", world.server.pk),
        ("POST", "grants/", {"kind": "toolset", "role": mine.role.slug}, "toolset", world.toolset.pk),
        ("POST", "memberships/", {"role": mine.role.slug}, "user", world.member.pk),
        ("POST", "memberships/", {"user": mine.member.username}, "role", world.role.pk),
        ("POST", "api-keys/", {"name": "x"}, "owner", world.member.pk),
        ("POST", "users/", {"username": "someone"}, "roles", [str(world.role.pk)]),
        ("POST", "servers/bulk/pause/", {}, "servers", [str(world.server.pk)]),
        ("POST", "toolsets/", {"slug": "set"}, "entries", [{"server": str(world.server.pk)}]),
        ("POST", "toolsets/preview/", {}, "entries", [{"server": str(world.server.pk)}]),
    ]
    for method, path, body, field, value in cases:
        answers = []
        for given in (value, [_swapped(value[0], nobody)] if isinstance(value, list) else nobody):
            with Undone():
                answer = api(method, path, {**body, field: given if isinstance(given, list) else str(given)})
            text = answer.content.decode().replace(answer["X-Request-Id"], "").replace(str(_plain(given)), "NAMED")
            answers.append((answer.status_code, text))
        assert answers[0] == answers[1], (path, field)
        assert answers[0][0] in (400, 404), (path, field)
    filters = {
        "api-keys/?owner=": world.member.pk, "memberships/?user=": world.member.pk, "memberships/?role=": world.role.pk,
        "grants/?user=": world.member.pk, "grants/?role=": world.role.pk, "grants/?api_key=": world.key.pk,
        "grants/?server=": world.server.pk, "grants/?toolset=": world.toolset.pk, "grants/?tenant=": world.tenant.pk,
        "toolsets/?server=": world.server.pk, "tools/?server=": world.server.pk, "processes/?server=": world.server.pk,
        "servers/?tenant=": world.tenant.pk, "tools/?tenant=": world.tenant.pk, "statistics/?tenant=": world.tenant.pk,
        "audit-events/?tenant=": world.tenant.pk, "clients/?tenant=": world.tenant.pk, "clients/?api_key=": world.key.pk,
        "compatibility/?client=": world.client.pk, "compatibility/?server=": world.server.pk, "compatibility/?tenant=": world.tenant.pk,
        "compatibility/?api_key=": world.key.pk,
    }  # fmt: skip
    for path, value in filters.items():
        there, gone = (api.get(f"{path}{given}") for given in (value, nobody))
        assert there.status_code == gone.status_code, path
        assert there.json().get("results", []) == gone.json().get("results", []) == [], path
    for header in (world.tenant.slug, "no-such-tenant"):
        assert api.get("servers/", X_Switchyard_Tenant=header).json()["detail"] == "There is no such tenant."


def _plain(given: object) -> object:
    one = given[0] if isinstance(given, list) else given
    return one["server"] if isinstance(one, dict) else one


def _swapped(one: object, nobody: str) -> object:
    return {**one, "server": nobody} if isinstance(one, dict) else nobody


def test_an_object_is_found_by_every_name_it_has(world: World, admin):
    for route in routes():
        if route.method == "get" and route.name.endswith("-detail") and not route.name.startswith("audit"):
            answers = {admin.get(route.path(named)).json()["id"] for named in world.named(route)}
            assert len(answers) == 1, route
    tool = world.definitions["tools"]
    assert admin.get(of("tool-detail", "get").path(f"{world.server.slug}__{tool.name}")).json()["id"] == str(tool.pk)
