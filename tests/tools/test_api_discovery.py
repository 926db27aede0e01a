"""`POST /api/v1/servers/{id}/discover/`: the verb, who may use it, and what it answers when the server cannot be asked."""

import sys

import pytest

from apps.common.context import SYSTEM, tenant_scope
from apps.servers.services.lifecycle import pause_server
from apps.servers.services.registry import register_server
from tests.accounts.client import Api, problem
from tests.factories import make_key, make_tenant, make_user
from tests.tools.support import PROGRAMS, make_server

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


def key_of(tenant, role):
    """A client of a member."""
    return Api(make_key(make_user(tenant, role), tenant, inherits_owner=True)[1])


def test_a_server_is_discovered_by_slug_and_its_tools_can_be_read(tenant):
    with tenant_scope(tenant.pk, SYSTEM):
        server = register_server(
            slug="friendly", transport="stdio", command=sys.executable, args=[str(PROGRAMS / "friendly.py")], review="hold-all"
        )
    api = key_of(tenant, "operator")
    answer = api.post("servers/friendly/discover/")
    assert answer.status_code == 200, answer.content
    found = answer.json()
    assert found["ok"] is True
    assert found["held"] > 0
    assert found["error"] == ""
    again = api.post(f"servers/{server.pk}/discover/", {}).json()
    assert again["held"] == 0
    assert again["waiting"] == found["held"]
    assert {tool["state"] for tool in api.get("tools/?server=friendly").json()["results"]} == {"held"}


def test_a_server_that_ends_at_once_is_an_answer_and_not_an_error(tenant):
    server = make_server(tenant)
    found = key_of(tenant, "operator").post(f"servers/{server.slug}/discover/").json()
    assert found["ok"] is False
    assert found["error"]
    assert found["error_type"].startswith("upstream-")


def test_it_is_refused_to_whoever_may_not_change_servers_and_to_strangers(tenant):
    server = make_server(tenant)
    problem(key_of(tenant, "user").post(f"servers/{server.slug}/discover/"), 403, "permission-denied")
    problem(key_of(make_tenant(), "operator").post(f"servers/{server.pk}/discover/"), 404, "not-found")
    problem(Api().post(f"servers/{server.slug}/discover/"), 401, "authentication-required")


def test_a_paused_server_and_an_unknown_field_are_told(tenant):
    server = make_server(tenant)
    api = key_of(tenant, "operator")
    assert problem(api.post(f"servers/{server.slug}/discover/", {"force": True}), 400, "validation-failed")["errors"]["force"]
    with tenant_scope(tenant.pk, SYSTEM):
        pause_server(server)
    problem(api.post(f"servers/{server.slug}/discover/"), 503, "paused")
