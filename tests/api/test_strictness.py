"""What cannot be: each is a problem of a stable type that names what is wrong, and changes nothing."""

import base64
import json

import pytest
from django.test import Client

from apps.servers.models import Server
from tests.accounts.client import Api, problem
from tests.api.bodies import NOTHING, body_for
from tests.api.people import make_person
from tests.api.routes import routes
from tests.api.world import World
from tests.factories import make_superuser, make_tenant, unique

pytestmark = pytest.mark.django_db

CHANGING = [route for route in routes() if route.method in ("post", "patch", "put")]
LISTS = [route for route in routes() if route.name.endswith("-list") and route.method == "get"]


@pytest.mark.once
def test_malformed_bodies_are_refused_by_every_route(world: World, root: Api):
    """Also by verbs that take nothing: nobody is told that a body was understood which was not."""
    for route in CHANGING:
        path = route.path(world.named(route)[0] if route.parameter else "")
        for raw in (b"{", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"\xff"):
            problem(root(route.method.upper(), path, raw=raw), 400, "malformed-request")
        answer = root.client.generic(
            route.method.upper(), f"/api/v1/{path}", b"x=1", content_type="text/plain", headers=root.headers
        )
        problem(answer, 415, "unsupported-media-type")
    assert Server.unscoped.filter(tenant=world.tenant).count() == 1


@pytest.mark.once
def test_unknown_members_are_refused_by_every_route(world: World, root: Api):
    for route in CHANGING:
        path = route.path(world.named(route)[0] if route.parameter else "")
        body = problem(root(route.method.upper(), path, {"no_such_member": 1}), 400, "validation-failed")
        assert body["errors"]["no_such_member"] == ["There is no such field."], route
        problem(root(route.method.upper(), path, []), 400, "validation-failed")


def test_texts_that_no_database_takes(world: World, root: Api):
    """NUL, half a surrogate pair, and texts of any length, in every text member of every body."""
    for route in CHANGING:
        body = body_for(route, world)
        path = route.path(world.named(route)[0] if route.parameter else "")
        for name, value in body.items():
            if isinstance(value, str):
                problem(root(route.method.upper(), path, {**body, name: "a\x00b"}), 400, "validation-failed")
                raw = json.dumps({**body, name: "SWAP"}).replace("SWAP", "\\ud800").encode()
                problem(root(route.method.upper(), path, raw=raw), 400, "malformed-request")
                answer = root(route.method.upper(), path, {**body, name: "x" * 100_000})
                assert answer.status_code in (400, 404), (route, name)
            answer = root(
                route.method.upper(), path, {**body, name: {"a": [1]}} if name not in ("document", "arguments") else {name: 1}
            )
            assert answer.status_code == 400, (route, name)


def test_addresses_that_cannot_be(world: World, root: Api):
    for route in routes():
        if route.parameter == "id":
            for odd in ("%00", "a%00b", "%F0%9F%98%80", "x" * 2000, "..", "%2e%2e", "'%20OR%201=1--", "sy__", "a__%00"):
                answer = root(route.method.upper(), route.path(odd), body_for(route, world))
                problem(answer, 404, "not-found")


@pytest.mark.once
def test_methods_that_are_not_there(world: World, root: Api):
    for template in {route.template for route in routes()}:
        there = {route.method.upper() for route in routes() if route.template == template}
        route = next(route for route in routes() if route.template == template)
        path = route.path(world.named(route)[0] if route.parameter else "")
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - there:
            answer = root(method, path, NOTHING if method in ("POST", "PUT", "PATCH") else None)
            body = problem(answer, 405, "method-not-allowed")
            assert there <= {name.strip() for name in answer["Allow"].split(",")}, (method, template, body)


# Parameters of the address


@pytest.mark.once
def test_unknown_parameters_are_named(world: World, root: Api):
    """A filter that does not exist is never ignored: the answer would hold what was not asked for."""
    for route in routes():
        if route.method == "get":
            path = route.path(world.named(route)[0] if route.parameter else "")
            for name in (
                "user__password__startswith",
                "tenant__slug",
                "owner__password",
                "format",
                "limi",
                "id__in",
                "__proto__",
            ):
                if (route.name, name) == ("audit-event-export", "format"):
                    continue  # there it is a parameter
                body = problem(root.get(f"{path}?{name}=x"), 400, "validation-failed")
                assert body["errors"] == {name: ["There is no such parameter."]}, route


@pytest.mark.once
def test_a_parameter_stands_once(root: Api):
    body = problem(root.get("servers/?transport=http&transport=sse"), 400, "validation-failed")
    assert body["errors"] == {"transport": ["Give it once."]}


@pytest.mark.once
def test_a_parameter_has_a_value(root: Api):
    body = problem(root.get("servers/?transport=&tenant="), 400, "validation-failed")
    assert set(body["errors"]) == {"transport", "tenant"}


@pytest.mark.once
def test_orders_by_what_is_not_offered(world: World, root: Api):
    for route in LISTS:
        for order in ("tenant__slug", "owner__password", "password", "-digest", "sealed", "name,tenant__id", "", "?", "pk"):
            answer = root.get(f"{route.template}?ordering={order}")
            assert "ordering" in problem(answer, 400, "validation-failed")["errors"], (route, order)


def test_cursors_that_are_not_ours(world: World, root: Api):
    forged = [
        {"o": ["tenant__slug", "id"], "p": ["a", "b"], "b": 0}, {"o": ["slug", "id"], "p": ["a\x00", "b"], "b": 0}, {"o": ["slug", "id"], "p": ["a"], "b": 0},
        {"o": ["slug", "id"], "p": [{"a": 1}, "b"], "b": 0}, {"o": ["slug", "id"], "p": ["a", "not an id"], "b": 0},
        {"o": ["slug", "id"], "p": ["\ud800", str(world.server.pk)], "b": 0}, {"o": ["slug", "id"], "p": [10**400, 10**400], "b": 1}, [], 7, None,
    ]  # fmt: skip
    texts = [
        "x",
        "%00",
        "....",
        "e30",
        "=" * 10,
        "a" * 5000,
        *(base64.urlsafe_b64encode(json.dumps(one).encode()).decode() for one in forged),
    ]
    for route in LISTS:
        if route.template != "statistics/":
            for text in texts:
                problem(root.get(f"{route.template}?cursor={text}"), 400, "validation-failed")


@pytest.mark.parametrize(
    "path",
    [
        "servers/?capability=teleport", "servers/?state=x", "servers/?transport=carrier-pigeon", "servers/?builtin=perhaps", "servers/?search=%00",
        "tools/?effects=x", "tools/?state=x", "tools/?transport=x", "grants/?user=x", "grants/?kind=x", "toolsets/?paused=x", "toolsets/?composed=2",
        "api-keys/?owner=x", "api-keys/?expires_at__lt=yesterday", "audit-events/?since=yesterday", "audit-events/?limit=0", "audit-events/?cursor=x",
        "audit-events/?tenant=x", "statistics/?since=x", "statistics/?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", "servers/?limit=0",
        "servers/?limit=201", "servers/?limit=-1",
    ],
)  # fmt: skip
def test_values_of_filters_that_cannot_be(path: str, world: World, root: Api):
    name = path.partition("?")[2].rpartition("=")[0].rpartition("&")[2]
    assert name in problem(root.get(path), 400, "validation-failed")["errors"]


# Tenants and sessions


def test_a_superusers_session_must_name_the_tenant_of_what_it_makes(world: World):
    make_tenant()
    client = Client()
    client.force_login(make_superuser())
    api = Api()
    api.client = client
    body = {"slug": unique("made")[:40], "transport": "http", "url": "http://127.0.0.1:1/mcp"}
    assert "X-Switchyard-Tenant" in problem(api.post("servers/", body), 400, "validation-failed")["errors"]
    assert api.post("servers/", body, X_Switchyard_Tenant=world.tenant.slug).json()["tenant"] == str(world.tenant.pk)
    # What exists has a tenant of its own.
    assert api.post(f"servers/{world.server.pk}/pause/").json()["state"] == "paused"
    assert api.post(f"servers/{world.server.pk}/resume/").status_code == 200
    held = world.definitions["tools"]
    assert api.post(f"tools/{held.pk}/approve/", {"expected_digest": held.pending_digest}).json()["state"] == "active"
    assert api.get(f"statistics/?tenant={world.tenant.slug}").json()["servers"]["total"] == 2


def test_a_session_may_repeat_a_request(world: World):
    client = Client()
    client.force_login(make_superuser())
    headers = {"Idempotency-Key": unique("key"), "X-Switchyard-Tenant": world.tenant.slug, "X-CSRFToken": "a" * 32}
    answers = [
        client.post("/api/v1/roles/", {"slug": "once"}, content_type="application/json", headers=headers) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[1]["Idempotent-Replayed"] == "true"


def test_commands_are_a_superusers_on_every_way_in(world: World, tmp_path):
    """Create, change, test, import, clone, environment: an administrator starts nothing."""
    canary = tmp_path / "canary"
    command = {"transport": "stdio", "command": "touch", "args": [str(canary)]}
    admin, root = make_person("admin", world), make_person("root", world)
    stdio = root.post("servers/", {"slug": "local", "transport": "stdio", "command": "true", "env": {"A": "b"}}).json()["id"]
    attempts = [
        ("POST", "servers/", {"slug": "evil", **command}),
        ("PATCH", f"servers/{world.server.pk}/", command),
        ("PATCH", f"servers/{stdio}/", {"args": ["x"]}),
        ("PATCH", f"servers/{stdio}/", {"env": {"TOKEN": "x"}}),
        ("POST", f"servers/{stdio}/credentials/", {"kind": "env", "name": "TOKEN", "value": "x"}),
        ("POST", f"servers/{stdio}/clone/", {"slug": "copied"}),
        ("POST", "servers/test-connection/", command),
    ]
    for method, path, body in attempts:
        problem(admin(method, path, body), 403, "superuser-required")
    document = {"document": {"mcpServers": {"evil": {"command": "touch", "args": [str(canary)]}}}}
    for extra in ({}, {"dry_run": True}):
        (result,) = admin.post("servers/import/", {**document, **extra}).json()
        assert (result["action"], result["error_type"].rsplit("/", 1)[1]) == ("failed", "superuser-required")
    assert not canary.exists()
    assert not Server.unscoped.filter(slug__in=("evil", "copied")).exists()


def test_huge_bodies_are_refused_before_they_are_read_whole(world: World, root: Api):
    for route in CHANGING[::12]:
        path = route.path(world.named(route)[0] if route.parameter else "")
        problem(root(route.method.upper(), path, raw=b" " * (4 * 1024 * 1024 + 1)), 413, "too-large")
