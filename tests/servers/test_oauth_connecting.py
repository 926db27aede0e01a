"""Switchyard as an OAuth client: connecting, and everything that must not work; against a real authorization server."""

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from apps.common.clock import now
from apps.common.context import SYSTEM, tenant_scope
from apps.common.errors import (
    AddressRefused,
    AuthorizationFailed,
    Conflict,
    NotFound,
    PermissionDenied,
    ScopeNeeded,
    UpstreamUnauthenticated,
    ValidationFailed,
)
from apps.servers.models import Endpoint, OAuthClient, OAuthConnection, PendingAuthorization
from apps.servers.services.access import access_of
from apps.servers.services.oauth import disconnecting, identity, refreshing, store
from apps.servers.services.registry import update_server
from tests.factories import as_user, make_member, make_tenant, make_user
from tests.servers.oauth_support import agree, begin, connect, finish, probe_as_system, token_of, types
from tests.servers.support import make_server, recorded

# Connecting


def test_a_first_connect_registers_leads_there_and_comes_back_with_a_token(world, server, operator) -> None:
    with recorded() as rows:
        begun = begin(server, operator)
        asked = {name: values[0] for name, values in parse_qs(urlsplit(begun.authorization_url).query).items()}
        assert begun.authorization_url.startswith(f"{world.issuer}/authorize?")
        assert (asked["resource"], asked["code_challenge_method"], asked["scope"]) == (world.url, "S256", "mcp:basic")
        assert asked["redirect_uri"] == "http://localhost:8000/oauth/callback"
        done = finish(agree(begun.authorization_url), operator)
    assert (done.state, done.issuer, done.scope, done.user_id) == ("connected", world.issuer, "mcp:basic", None)
    assert token_of(server) in world.access
    assert types(rows) == ["connection.started", "connection.connected"]
    assert next(iter(world.clients.values()))["application_type"] == "native"
    report = probe_as_system(server)
    assert (report.ok, report.server_info["name"]) == (True, "protected")


def test_before_it_is_connected_a_server_says_so_and_is_unauthenticated(server) -> None:
    with pytest.raises(UpstreamUnauthenticated, match="not connected yet"):
        access_of(server.pk)
    report = probe_as_system(server)
    assert not report.ok
    assert "not connected yet" in report.error
    assert Endpoint.unscoped.get(server=server).state == "unauthenticated"


def test_a_new_connect_heals_what_failed(world, server, operator) -> None:
    row = connect(server, operator)
    world.end_families()
    with pytest.raises(UpstreamUnauthenticated):
        refreshing.refresh(row.pk, row.generation)
    assert Endpoint.unscoped.get(server=server).state == "unauthenticated"
    assert connect(server, operator).pk == row.pk
    assert probe_as_system(server).ok
    assert Endpoint.unscoped.get(server=server).state == "healthy"


def test_a_registration_is_kept_by_issuer_and_used_for_the_next_server(world, tenant, operator) -> None:
    for _ in range(2):
        connect(make_server(tenant, url=world.url, auth="oauth"), operator)
    assert world.asked["register"] == 1
    assert OAuthClient.unscoped.get(issuer=world.issuer).origin == "dynamic"


def test_with_another_address_of_ours_it_registers_anew(world, tenant, server, operator, configure) -> None:
    connect(server, operator)
    configure(public_url="http://localhost:9000")
    connect(make_server(tenant, url=world.url, auth="oauth"), operator)
    assert world.asked["register"] == 2


def test_the_metadata_document_stands_before_a_registration(world, server, operator, configure) -> None:
    world.knobs.documents = True
    configure(client_metadata_url="https://switchyard.example/who.json")
    url = begin(server, operator).authorization_url
    assert parse_qs(urlsplit(url).query)["client_id"] == ["https://switchyard.example/who.json"]
    assert world.asked["register"] == 0
    assert identity.document()["client_id"] == "https://switchyard.example/who.json"


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_an_entered_client_stands_before_everything_and_shows_itself_as_it_is_told(world, server, operator, method) -> None:
    world.knobs.documents = True
    world.clients["ours"] = {
        "client_id": "ours", "client_secret": "cs: entered/1", "token_endpoint_auth_method": method,
        "redirect_uris": ["http://localhost:8000/oauth/callback"],
    }  # fmt: skip
    with tenant_scope(server.tenant_id, as_user(operator)):
        disconnecting.set_client(server, issuer=world.issuer, client_id="ours", secret="cs: entered/1", method=method)
    assert connect(server, operator).client.client_id == "ours"
    assert world.asked["register"] == 0


def test_a_registered_secret_is_sealed_and_sent(world, server, operator) -> None:
    world.knobs.method = "client_secret_basic"
    row = connect(server, operator)
    secret = next(iter(world.clients.values()))["client_secret"]
    assert secret.encode() not in bytes(row.client.sealed)
    assert identity.of_row(row.client).secret == secret


def test_credentials_go_to_the_issuer_they_are_for_alone(world, server, operator) -> None:
    with tenant_scope(server.tenant_id, as_user(operator)):
        disconnecting.set_client(server, issuer="https://elsewhere.example", client_id="ours", secret="cs-entered")
    with pytest.raises(AuthorizationFailed, match="not sent there") as caught:
        begin(server, operator)
    assert caught.value.extra["rule"] == "client-issuer"
    assert world.asked["authorization_code"] == world.asked["register"] == 0


def test_a_client_by_itself_needs_no_person(world, tenant, operator) -> None:
    server = make_server(tenant, url=world.url, auth="client-credentials")
    with pytest.raises(Conflict, match="enter client id"):
        begin(server, operator)
    world.clients["machine"] = {
        "client_id": "machine", "client_secret": "cs-machine", "token_endpoint_auth_method": "client_secret_basic", "redirect_uris": [],
    }  # fmt: skip
    with tenant_scope(tenant.pk, as_user(operator)):
        disconnecting.set_client(server, issuer=world.issuer, client_id="machine", secret="cs-machine")
    begun = begin(server, operator)
    assert (begun.authorization_url, begun.connection.scope) == ("", "mcp:basic")
    assert world.access[token_of(server)].subject == "machine"
    first = begun.connection
    assert refreshing.refresh(first.pk, first.generation).access != store.open_token(first, "access")
    assert world.asked["client_credentials"] == 2


def test_a_client_by_itself_asks_for_more_scope_by_itself_and_not_for_ever(world, tenant, operator) -> None:
    server = make_server(tenant, url=world.url, auth="client-credentials")
    world.clients["machine"] = {
        "client_id": "machine", "client_secret": "cs-machine", "token_endpoint_auth_method": "client_secret_basic", "redirect_uris": [],
    }  # fmt: skip
    with tenant_scope(tenant.pk, as_user(operator)):
        disconnecting.set_client(server, issuer=world.issuer, client_id="machine", secret="cs-machine")
    row = begin(server, operator).connection
    wider = refreshing.after_refusal(row.pk, row.generation, 403, 'Bearer error="insufficient_scope", scope="mcp:write"')
    assert world.access[wider.access].scope == "mcp:basic mcp:write"
    world.knobs.granted = "mcp:basic"

    def want(number: int, generation: int) -> None:
        while True:
            said = f'Bearer error="insufficient_scope", scope="mcp:admin{number}"'
            generation = refreshing.after_refusal(row.pk, generation, 403, said).generation
            number += 1

    with pytest.raises(ScopeNeeded):
        want(0, wider.generation)
    assert world.asked["client_credentials"] <= 6


@pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
def test_a_private_key_signs_for_its_issuer(world, tenant, operator, kind) -> None:
    import jwt
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from apps.servers.services.oauth.grants import _signed

    key = {
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    server = make_server(tenant, url=world.url, auth="client-credentials")
    with tenant_scope(tenant.pk, as_user(operator)):
        row = disconnecting.set_client(server, issuer=world.issuer, client_id="signer", private_key=pem)
    form, headers = _signed(identity.of_row(row), {"issuer": world.issuer}, {"grant_type": "client_credentials"})
    claims = jwt.decode(form["client_assertion"], key.public_key(), algorithms=[row.algorithm], audience=world.issuer)
    assert (claims["iss"], claims["sub"], headers) == ("signer", "signer", {})
    assert pem.encode() not in bytes(row.sealed)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"issuer": "ftp://x"}, "issuer"),
        ({"client_id": ""}, "client_id"),
        ({"client_id": "a\nb"}, "client_id"),
        ({"method": "mtls"}, "token_endpoint_auth_method"),
        ({"private_key": "not a key"}, "private_key"),
        ({"secret": None, "method": "private_key_jwt"}, "private_key"),
    ],
)
def test_a_wrong_client_is_refused_by_field(world, server, operator, fields, name) -> None:
    given = {"issuer": world.issuer, "client_id": "ours", "secret": "cs-1", **fields}
    with tenant_scope(server.tenant_id, as_user(operator)), pytest.raises(ValidationFailed) as caught:
        disconnecting.set_client(server, **given)
    assert name in caught.value.extra["errors"]


# What must not work


@pytest.mark.parametrize(
    ("knobs", "rule"),
    [
        ({"resource": "https://other.example/mcp"}, "resource"),
        ({"issuer": "https://mixed-up.example"}, "issuer"),
        ({"s256": False}, "pkce"),
        ({"registration": False}, "registration"),
        ({"redirects": True}, "metadata"),
    ],
)
def test_an_authorization_server_that_breaks_a_rule_is_not_gone_to(world, server, operator, knobs, rule) -> None:
    for name, value in knobs.items():
        setattr(world.knobs, name, value)
    with recorded() as rows, pytest.raises(AuthorizationFailed) as caught:
        begin(server, operator)
    assert caught.value.extra["rule"] == rule
    assert [(row["outcome"], row["details"]["rule"]) for row in rows] == [("refused", rule)]
    assert (world.asked["authorize"], world.asked["followed"]) == (0, 0)
    assert not PendingAuthorization.unscoped.exists()


@pytest.mark.parametrize(
    "address", ["http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/x", "http://[fe80::1]/x", "http://0x7f.1/x"]
)
def test_metadata_at_a_private_address_is_refused_and_recorded(world, server, operator, address) -> None:
    world.knobs.resource_metadata = address
    with recorded() as rows, pytest.raises(AddressRefused):
        begin(server, operator)
    assert [(row["event_type"], row["outcome"], row["details"]["rule"]) for row in rows] == [
        ("connection.refused", "refused", "network")
    ]
    assert world.asked["metadata"] == 0


def test_a_state_is_good_once(world, server, operator) -> None:
    answer = agree(begin(server, operator).authorization_url)
    row = finish(answer, operator)
    with recorded() as rows, pytest.raises(Conflict, match="used already"):
        finish(answer, operator)
    assert rows[0]["details"]["rule"] == "replay"
    assert OAuthConnection.unscoped.get().generation == row.generation
    assert world.asked["authorization_code"] == 1


def test_a_state_is_good_for_whoever_began_it_alone(world, tenant, server, operator) -> None:
    other = make_user(tenant, "operator")
    answer = agree(begin(server, operator).authorization_url)
    with recorded() as rows, pytest.raises(NotFound):
        finish(answer, other)
    assert rows[0]["details"]["rule"] == "state"
    assert world.asked["authorization_code"] == 0
    assert finish(answer, operator).state == "connected"


def test_a_state_that_is_nobodys_is_refused(operator) -> None:
    with pytest.raises(NotFound):
        finish({"state": "x" * 43, "code": "c"}, operator)


def test_a_state_ends_with_its_time(world, server, operator) -> None:
    answer = agree(begin(server, operator).authorization_url)
    PendingAuthorization.unscoped.update(expires_at=now() - timedelta(seconds=1))
    with pytest.raises(Conflict, match="too late"):
        finish(answer, operator)
    with pytest.raises(Conflict):
        finish(answer, operator)
    assert world.asked["authorization_code"] == 0


@pytest.mark.parametrize("iss", ["wrong", "missing"])
def test_an_answer_of_another_issuer_is_not_redeemed(world, server, operator, iss) -> None:
    world.knobs.iss = iss
    answer = agree(begin(server, operator).authorization_url)
    with recorded() as rows, pytest.raises(AuthorizationFailed) as caught:
        finish(answer, operator)
    assert caught.value.extra["rule"] == rows[0]["details"]["rule"] == "iss"
    assert world.asked["authorization_code"] == 0


@pytest.mark.parametrize("change", ["{}/", "{}:443", "HTTP://127.0.0.1"])
def test_iss_is_compared_byte_for_byte(world, server, operator, change) -> None:
    answer = agree(begin(server, operator).authorization_url)
    answer["iss"] = change.format(world.issuer)
    with pytest.raises(AuthorizationFailed):
        finish(answer, operator)
    assert world.asked["authorization_code"] == 0


def test_a_person_may_decline(world, server, operator) -> None:
    world.knobs.decline = 'access_denied<script>"'
    answer = agree(begin(server, operator).authorization_url)
    with pytest.raises(AuthorizationFailed, match="did not agree"):
        finish(answer, operator)
    assert not OAuthConnection.unscoped.exists()


def test_an_answer_for_a_server_that_moved_meanwhile_ends_in_nothing(world, server, operator) -> None:
    answer = agree(begin(server, operator).authorization_url)
    with tenant_scope(server.tenant_id, SYSTEM):
        update_server(server, url="http://127.0.0.1:9/mcp")
    with pytest.raises(Conflict):
        finish(answer, operator)
    assert world.asked["authorization_code"] == 0


def test_who_may_not_change_a_server_may_not_connect_it(tenant, server) -> None:
    with pytest.raises(PermissionDenied):
        begin(server, make_user(tenant, "user"))


def test_rights_that_were_taken_meanwhile_count_when_the_person_comes_back(world, tenant, server, operator) -> None:
    from apps.accounts.models import Membership

    answer = agree(begin(server, operator).authorization_url)
    Membership.unscoped.filter(user=operator, tenant=tenant).delete()
    other = make_tenant()
    make_member(operator, other, "operator")
    with pytest.raises(PermissionDenied):
        finish(answer, operator)
    assert world.asked["authorization_code"] == 0


def test_a_server_with_headers_is_not_connected(tenant, operator) -> None:
    with pytest.raises(Conflict, match="stored headers"):
        begin(make_server(tenant), operator)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"auth": "oauth", "headers": {"authorization": "Bearer x"}}, "headers"),
        ({"auth": "oauth", "oauth_scope": 'a "b"'}, "oauth_scope"),
        ({"auth": "magic"}, "auth"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_field(tenant, fields, name) -> None:
    with pytest.raises(ValidationFailed) as caught:
        make_server(tenant, **fields)
    assert name in caught.value.extra["errors"]
