"""The console's part in connecting servers: it asks first, shows the way on as a link, and never a token."""

from dataclasses import replace

import pytest
from django.urls import reverse

from apps.common.context import SYSTEM, tenant_scope
from apps.servers.models import OAuthClient, OAuthConnection, PendingAuthorization, Server
from apps.servers.services.registry import register_server
from tests.api.world import make_connection
from tests.console.pages import address
from tests.factories import make_user, unique
from tests.servers.oauth_world import World


@pytest.fixture
def guarded(tenant, settings):
    """A server behind an authorization server, not connected yet."""
    settings.SWITCHYARD = replace(settings.SWITCHYARD, allowed_networks=["loopback"])
    with World() as world, tenant_scope(tenant.pk, SYSTEM):
        yield register_server(slug=unique("guarded"), transport="http", url=world.url, auth="oauth")


def test_connect_asks_first_and_shows_the_way_on_as_a_link(operator, guarded):
    url = address(Server, "connect", guarded.pk)
    asked = operator.get(url).content.decode()
    assert "You go there, sign in and agree" in asked
    assert not PendingAuthorization.unscoped.exists()
    shown = operator.post(url).content.decode()
    assert "/authorize?response_type=code" in shown
    assert PendingAuthorization.unscoped.count() == 1


def test_what_keeps_a_server_from_being_connected_is_said_in_the_dialog(operator, tenant, guarded):
    with tenant_scope(tenant.pk, SYSTEM):
        lost = register_server(slug=unique("lost"), transport="http", url="http://127.0.0.1:1/mcp", auth="oauth")
    assert "cannot be reached" in operator.post(address(Server, "connect", lost.pk)).content.decode()


@pytest.mark.parametrize("role", ["user", "guest", "auditor"])
def test_others_connect_and_end_nothing(staff, role, guarded):
    row = make_connection(guarded, unique("token"))
    for url in (
        address(Server, "connect", guarded.pk),
        address(Server, "disconnect", guarded.pk),
        address(Server, "set_oauth_client", guarded.pk),
        address(OAuthConnection, "disconnect", row.pk),
        address(OAuthConnection, "reconnect", row.pk),
    ):
        assert staff[role].post(url).status_code in (302, 403, 404), url
    assert OAuthConnection.unscoped.filter(pk=row.pk).exists()
    assert not PendingAuthorization.unscoped.exists()


def test_the_page_says_what_failed_and_what_it_stops_and_shows_no_token(operator, staff, guarded):
    token = unique("token")
    row = make_connection(guarded, token, state="failed", reason="It gave no token (invalid_grant).")
    page = operator.get(reverse("admin:servers_oauthconnection_changelist")).content.decode()
    for words in (guarded.slug, "Failed", "when somebody connects again", f"{guarded.slug} with 0 tools"):
        assert words in page
    opened = operator.get(address(OAuthConnection, "change", row.pk)).content.decode()
    assert "invalid_grant" in opened
    panel = operator.get(address(Server, "change", guarded.pk)).content.decode()
    assert "Connect again" in panel
    assert not [text for text in (page, opened, panel) if token in text]
    assert guarded.slug not in staff["user"].get(reverse("admin:servers_oauthconnection_changelist")).content.decode()


def test_disconnect_asks_first(operator, guarded):
    row = make_connection(guarded, unique("token"))
    url = address(OAuthConnection, "disconnect", row.pk)
    assert "are refused until it is connected again" in operator.get(url).content.decode()
    assert OAuthConnection.unscoped.filter(pk=row.pk).exists()
    operator.post(url)
    assert not OAuthConnection.unscoped.filter(pk=row.pk).exists()


def test_a_client_is_entered_and_its_secret_never_shown(operator, guarded):
    secret = unique("secret")
    url = address(Server, "set_oauth_client", guarded.pk)
    operator.post(
        url, {"issuer": "https://auth.example.com", "client_id": "ours", "method": "", "secret": secret, "private_key": ""}
    )
    assert OAuthClient.unscoped.get(server=guarded).client_id == "ours"
    again = operator.get(url).content.decode()
    assert ("ours" in again, secret in again) == (True, False)
    operator.post(
        url,
        {
            "issuer": "https://auth.example.com",
            "client_id": "ours",
            "method": "client_secret_post",
            "secret": "",
            "private_key": "",
        },
    )
    row = OAuthClient.unscoped.get(server=guarded)
    assert (row.method, row.sealed is not None) == ("client_secret_post", True)
    wrong = operator.post(
        url, {"issuer": "nowhere", "client_id": "ours", "method": "", "secret": secret, "private_key": ""}
    ).content.decode()
    assert secret not in wrong


def test_another_tenants_connection_has_no_page(stranger, guarded):
    row = make_connection(guarded, unique("token"))
    assert stranger.get(address(OAuthConnection, "change", row.pk)).status_code in (302, 404)
    assert stranger.post(address(OAuthConnection, "disconnect", row.pk)).status_code == 404


def test_ones_own_account_is_connected_at_a_page_of_its_own(client, tenant, guarded):
    with tenant_scope(tenant.pk, SYSTEM):
        Server.objects.filter(pk=guarded.pk).update(auth="oauth-user")
    url = reverse("oauth_connect", args=(guarded.pk,))
    assert client.get(url).url.startswith(reverse("admin:login"))
    client.force_login(make_user(tenant, "user"))
    assert "Calls that you make" in client.get(url).content.decode()
    assert not PendingAuthorization.unscoped.exists()
    assert "Go on to 127.0.0.1" in client.post(url, {"begin": "1"}).content.decode()
    assert PendingAuthorization.unscoped.get().personal
    client.force_login(make_user(tenant, "guest"))
    assert client.post(url, {"begin": "1"}).status_code == 403
