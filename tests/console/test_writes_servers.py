"""Writes go through services: servers, their state and their credentials; state and audit events are right, with the person and the door."""

import json
import re

import pytest
from django.urls import reverse

from apps.common.context import SYSTEM, tenant_scope
from apps.common.models import OutboxEvent
from apps.servers.models import Credential, Endpoint, Server
from apps.tools.models import Toolset
from tests.console.pages import address
from tests.console.support import Recorded, server_form


def test_registering_a_server(operator, tenant):
    form = server_form(**{"headers-name": ["Authorization", "X-Team"], "headers-value": ["Bearer very-secret", "blue"]})
    with Recorded() as seen:
        answer = operator.post(reverse("admin:servers_server_add"), form)
    assert answer.status_code == 302, re.findall(r"text-red-600[^>]*>\s*(.*?)\s*<", answer.content.decode(), re.DOTALL)
    server = Server.unscoped.get(tenant=tenant, slug="billing")
    assert answer["Location"] in (address(Server, "changelist"), address(Server, "change", server.pk))
    assert Endpoint.unscoped.get(server=server).url == "https://billing.example.com/mcp"
    assert set(Credential.unscoped.filter(server=server).values_list("name", flat=True)) == {"Authorization", "X-Team"}
    assert Toolset.unscoped.filter(server=server, slug="billing").exists()
    assert "server.registered" in seen.types
    event = next(event for event in seen.events if event["event_type"] == "server.registered")
    assert event["origin"] == "admin"
    assert event["actor_kind"] == "user"
    assert "very-secret" not in json.dumps(seen.events)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"slug": "Not A Slug"}, "slug"),
        ({"slug": "mcp"}, "reserved"),
        ({"url": ""}, "URL"),
        ({"url": "ftp://x.example/"}, "http"),
        ({"url": "https://user:pass@x.example/"}, "password"),
        ({"headers-name": ["Host"], "headers-value": ["x"]}, "Host"),
        ({"headers-name": [""], "headers-value": ["orphan"]}, "name"),
        ({"timeout_seconds": "0"}, "timeout_seconds"),
    ],
)
def test_what_a_service_refuses_is_told_beside_the_field(fields, message, operator, tenant):
    answer = operator.post(reverse("admin:servers_server_add"), server_form(**fields))
    page = answer.content.decode()
    assert answer.status_code == 200
    assert message.lower() in page.lower()
    assert not Server.unscoped.filter(tenant=tenant).exists()
    assert "orphan" not in page


def test_a_taken_slug_is_told(operator, world):
    page = operator.post(reverse("admin:servers_server_add"), server_form(slug="github")).content.decode()
    assert "github" in page
    assert "error" in page.lower()
    assert Server.unscoped.filter(tenant=world["tenant"]).count() == 2


def test_an_address_inside_is_refused_in_words(operator, tenant):
    answer = operator.post(reverse("admin:servers_server_add"), server_form(url="http://169.254.169.254/latest"))
    assert answer.status_code in (200, 302)
    assert not Server.unscoped.filter(tenant=tenant).exists() or Endpoint.unscoped.filter(server__tenant=tenant).exists()


@pytest.mark.parametrize("role", ["operator", "admin"])
def test_a_command_is_a_superusers(role, staff, tenant):
    page = staff[role].get(reverse("admin:servers_server_add")).content.decode()
    assert 'value="stdio"' not in page
    form = server_form(transport="stdio", url="", command="touch", args="/tmp/canary-console")
    for url in (reverse("admin:servers_server_add"), reverse("admin:servers_server_test_settings")):
        answer = staff[role].post(url, form)
        assert answer.status_code == 200
    assert not Server.unscoped.filter(tenant=tenant).exists()


def test_a_superuser_chooses_the_tenant_of_what_is_made(root, tenant):
    form = server_form(
        transport="stdio", url="", command="python3", args="-c\npass", **{"env-name": ["TOKEN"], "env-value": ["s3cret"]}
    )
    page = root.post(reverse("admin:servers_server_add"), form).content.decode()
    assert "tenant" in page.lower()
    assert not Server.unscoped.filter(slug="billing").exists()
    answer = root.post(reverse("admin:servers_server_add"), {**form, "tenant": str(tenant.pk)})
    assert answer.status_code == 302
    server = Server.unscoped.get(slug="billing")
    assert server.tenant_id == tenant.pk
    assert Endpoint.unscoped.get(server=server).args == ["-c", "pass"]


def test_changing_a_server(operator, world):
    server = world["servers"][0][0]
    form = server_form(name="Git", url=f"https://{server.slug}.mcp.example.com/mcp", review="accept")
    form.pop("slug")
    with Recorded() as seen:
        answer = operator.post(address(Server, "change", server.pk), form)
    assert answer.status_code == 302
    server.refresh_from_db()
    assert (server.name, server.review) == ("Git", "accept")
    assert seen.types == ["server.updated"]
    assert set(seen.events[0]["details"]["after"]) == {"name", "description", "review"}


def test_saving_without_a_change_leaves_no_event(operator, world):
    server = world["servers"][0][0]
    form = server_form(
        name=server.name, description=server.description, review=server.review, url=f"https://{server.slug}.mcp.example.com/mcp"
    )
    with Recorded() as seen:
        operator.post(address(Server, "change", server.pk), form)
    assert seen.types == []


@pytest.mark.parametrize(("verb", "event", "paused"), [("pause", "server.paused", True), ("resume", "server.resumed", False)])
def test_pausing_and_resuming(verb, event, paused, operator, world):
    server = world["servers"][0][0]
    if not paused:
        operator.post(address(Server, "pause", server.pk))
    with Recorded() as seen:
        answer = operator.post(address(Server, verb, server.pk))
    assert answer.status_code == 302
    assert (Server.unscoped.get(pk=server.pk).paused_at is not None) is paused
    assert seen.types == [event]
    assert seen.events[0]["origin"] == "admin"
    assert OutboxEvent.objects.filter(topic="changed").order_by("-id").first().payload["kind"] == "server"


def test_pausing_several(operator, world):
    chosen = [str(server.pk) for server, _ in world["servers"]]
    first = operator.post(address(Server, "changelist"), {"action": "pause_chosen", "_selected_action": chosen})
    page = first.content.decode()
    assert "Pause 2 servers?" in page
    assert Server.unscoped.filter(pk__in=chosen, paused_at__isnull=False).count() == 0
    with Recorded() as seen:
        operator.post(address(Server, "changelist"), {"action": "pause_chosen", "_selected_action": chosen, "confirmed": "yes"})
    assert Server.unscoped.filter(pk__in=chosen, paused_at__isnull=False).count() == 2
    assert seen.types == ["server.paused", "server.paused"]


def test_credentials_go_in_and_never_come_out(operator, world):
    server = world["servers"][0][0]
    with Recorded() as seen:
        operator.post(address(Server, "set_credential", server.pk), {"name": "X-Api-Key", "value": "canary-4711"})
    assert seen.types == ["credential.set"]
    page = operator.get(address(Server, "change", server.pk)).content.decode()
    assert "X-Api-Key" in page
    assert "canary-4711" not in page + json.dumps(seen.events)
    with Recorded() as seen:
        operator.post(address(Server, "remove_credential", server.pk), {"name": "X-Api-Key"})
    assert seen.types == ["credential.deleted"]


def test_cloning_takes_another_slug(operator, world):
    server = world["servers"][0][0]
    answer = operator.post(address(Server, "clone", server.pk), {"slug": server.slug, "name": ""})
    assert answer.status_code == 200
    answer = operator.post(
        address(Server, "clone", server.pk), {"slug": "github-two", "name": ""}, headers={"HX-Request": "true"}
    )
    assert answer["HX-Redirect"] == address(Server, "change", Server.unscoped.get(slug="github-two").pk)


def test_deleting_is_an_administrators(operator, boss, world):
    server = world["servers"][0][0]
    assert operator.post(address(Server, "delete_it", server.pk)).status_code == 403
    with Recorded() as seen:
        boss.post(address(Server, "delete_it", server.pk))
    assert not Server.unscoped.filter(pk=server.pk).exists()
    assert "server.deleted" in seen.types


def test_an_import_is_previewed_and_then_made(operator, tenant):
    document = json.dumps(
        {
            "mcpServers": {
                "weather": {"url": "https://weather.example.com/mcp", "headers": {"X-Key": "canary"}},
                "shell": {"command": "sh"},
            }
        }
    )
    url = reverse("admin:import_servers")
    page = operator.post(url, {"text": document, "preview": "1"}).content.decode()
    assert "What would happen" in page
    assert "weather" in page
    assert "Not possible" in page
    assert not Server.unscoped.filter(tenant=tenant).exists()
    with Recorded() as seen:
        page = operator.post(url, {"text": document, "confirmed": "1"}).content.decode()
    assert Server.unscoped.filter(tenant=tenant).count() == 1
    assert "server.registered" in seen.types


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "null", "[" * 100_000])
def test_rubbish_is_not_imported(text, operator, tenant):
    answer = operator.post(reverse("admin:import_servers"), {"text": text, "confirmed": "1"})
    assert answer.status_code == 200
    assert not Server.unscoped.filter(tenant=tenant).exists()


def test_an_export_has_no_secret(operator, world):
    with Recorded() as seen:
        page = operator.post(address(Server, "export_servers")).content.decode()
    assert "github.mcp.example.com" in page
    assert "not-a-real-secret" not in page
    assert seen.types == ["server.exported"]


def test_refusals_of_services_are_messages_never_errors(root, world):
    server = world["servers"][0][0]
    with tenant_scope(world["tenant"].pk, SYSTEM):
        Server.unscoped.filter(pk=server.pk).update(builtin=True)
    answer = root.post(address(Server, "delete_it", server.pk), headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert "alert" in answer.content.decode()
    answer = root.post(address(Server, "set_credential", server.pk), {"name": "X-A", "value": "b"})
    assert answer.status_code == 200
    assert Server.unscoped.filter(pk=server.pk).exists()
