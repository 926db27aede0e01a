"""The tokens of connections: refreshed, refused, rotated, ended, and never seen; against a real authorization server."""

import json
import threading
from datetime import timedelta

import pytest

from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.crypto.keyring import new_key_text
from apps.common.errors import (
    Conflict,
    ConnectionRequired,
    NotFound,
    PermissionDenied,
    ScopeNeeded,
    UpstreamUnauthenticated,
    UpstreamUnavailable,
)
from apps.common.models import OutboxEvent
from apps.servers.models import Endpoint, OAuthConnection, PendingAuthorization
from apps.servers.services.access import access_of
from apps.servers.services.oauth import connecting, disconnecting, refreshing, store
from apps.servers.services.registry import update_server
from apps.servers.services.secrets import reencrypt_all
from tests.factories import as_user, make_tenant, make_user
from tests.servers.oauth_support import begin, connect, tenant_of, token_of, types
from tests.servers.support import events, make_server, recorded

# Tokens


def test_a_refresh_rotates_and_keeps_what_the_answer_leaves_out(world, server, operator) -> None:
    row = connect(server, operator)
    before = store.open_token(row, "refresh")
    with recorded() as rows:
        fresh = refreshing.refresh(row.pk, row.generation)
    row.refresh_from_db()
    assert (fresh.access in world.access, row.generation, row.scope) == (True, 2, "mcp:basic")
    assert store.open_token(row, "refresh") not in (before, "")
    assert world.asked["reuse"] == 0
    assert types(rows) == ["connection.refreshed"]
    assert refreshing.refresh(row.pk, 1).access == fresh.access
    assert world.asked["refresh_token"] == 1


def test_the_clock_refreshes_what_is_due_ahead_of_its_end(world, server, operator) -> None:
    row = connect(server, operator)
    assert row.expires_at - row.refresh_due_at == timedelta(seconds=300)
    assert refreshing.refresh_due() == 0
    OAuthConnection.unscoped.update(refresh_due_at=now())
    assert refreshing.refresh_due() == 1
    assert refreshing.refresh_due() == 0
    assert world.asked["refresh_token"] == 1
    short = store.due(now(), now() + timedelta(seconds=10))
    assert short - now() > timedelta(seconds=7)


@pytest.mark.django_db(transaction=True)
def test_eight_who_refresh_at_once_make_one_request(world, server, operator) -> None:
    row = connect(server, operator)
    world.knobs.token_delay = 0.3
    found: list[str] = []
    failed: list[BaseException] = []
    gate = threading.Barrier(8)

    def one() -> None:
        from django.db import connection

        try:
            gate.wait(10)
            found.append(refreshing.refresh(row.pk, row.generation).access)
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failed
    assert (len(found), len(set(found))) == (8, 1)
    assert (world.asked["refresh_token"], world.asked["reuse"]) == (1, 0)


def test_a_claim_of_a_process_that_died_is_taken_over(world, server, operator) -> None:
    row = connect(server, operator)
    OAuthConnection.unscoped.update(claim="dead", claim_until=now() - timedelta(seconds=1))
    assert refreshing.refresh(row.pk, row.generation).generation == 2


def test_a_refusal_fails_the_connection_and_names_the_reason(world, server, operator) -> None:
    row = connect(server, operator)
    world.end_families()
    with recorded() as rows, pytest.raises(UpstreamUnauthenticated, match="invalid_grant"):
        refreshing.refresh(row.pk, row.generation)
    row.refresh_from_db()
    assert (row.state, row.refresh_due_at) == ("failed", None)
    assert "connection.refresh_failed" in types(rows)
    assert Endpoint.unscoped.get(server=server).state == "unauthenticated"
    with pytest.raises(UpstreamUnauthenticated):
        access_of(server.pk)


def test_an_outage_of_the_authorization_server_is_waited_out(world, server, operator) -> None:
    row = connect(server, operator)
    world.knobs.token_status = 503
    for _ in range(2):
        with pytest.raises(UpstreamUnavailable):
            refreshing.refresh(row.pk, row.generation)
        with pytest.raises(UpstreamUnavailable, match="for now"):  # and the authorization server is not asked again at once
            refreshing.refresh(row.pk, row.generation)
        OAuthConnection.unscoped.update(refresh_due_at=now())
    assert world.asked["refresh_token"] == 2
    row.refresh_from_db()
    assert (row.state, row.failures) == ("connected", 2)
    assert [row["event_type"] for row in events()].count("connection.refresh_failed") == 1
    world.knobs.token_status = 0
    assert refreshing.refresh(row.pk, row.generation).generation == 2
    row.refresh_from_db()
    assert (row.failures, row.reason) == (0, "")


def test_a_token_without_refresh_ends_with_its_time(world, server, operator) -> None:
    world.knobs.refresh = False
    row = connect(server, operator)
    assert row.refresh is None
    with pytest.raises(UpstreamUnauthenticated, match="expired"):
        refreshing.refresh(row.pk, row.generation)


def test_a_refused_token_is_refreshed_and_one_just_given_is_not(world, server, operator) -> None:
    row = connect(server, operator)
    OAuthConnection.unscoped.update(refreshed_at=now() - timedelta(minutes=1))
    fresh = refreshing.after_refusal(row.pk, 1, 401, "Bearer")
    assert fresh.generation == 2
    assert refreshing.after_refusal(row.pk, 1, 401, "Bearer").access == fresh.access
    with pytest.raises(UpstreamUnauthenticated, match="just given"):
        refreshing.after_refusal(row.pk, 2, 401, "Bearer")
    assert world.asked["refresh_token"] == 1


def test_a_wider_authorization_is_asked_of_a_person_with_all_that_was_granted(world, server, operator) -> None:
    row = connect(server, operator)
    with pytest.raises(ScopeNeeded) as caught:
        refreshing.after_refusal(row.pk, 1, 403, 'Bearer error="insufficient_scope", scope="mcp:write"')
    assert caught.value.extra["scope"] == "mcp:write"
    again = connect(server, operator)
    assert (again.scope, again.wanted_scope) == ("mcp:basic mcp:write", "")


def test_wider_authorizations_that_come_to_nothing_are_not_asked_for_ever(world, server, operator) -> None:
    row = connect(server, operator)
    for _ in range(refreshing.STEP_UPS):
        with pytest.raises(ScopeNeeded):
            refreshing.after_refusal(row.pk, row.generation, 403, 'Bearer error="insufficient_scope", scope="mcp:basic"')
        row.refresh_from_db()
        if row.step_ups < refreshing.STEP_UPS:
            row = connect(server, operator)
    with pytest.raises(Conflict, match="in a row"):
        begin(server, operator)
    with tenant_scope(server.tenant_id, as_user(operator)):
        disconnecting.disconnect(row)
    assert connect(server, operator).state == "connected"


def test_tokens_are_sealed_to_their_row_and_field(world, tenant, server, operator) -> None:
    row = connect(server, operator)
    other = connect(make_server(tenant, url=world.url, auth="oauth"), operator)
    raw = bytes(row.access) + bytes(row.refresh)
    assert not any(text.encode() in raw for text in world.secrets())
    from apps.common.errors import NotReady

    for field, sealed in (("access", row.access), ("access", other.refresh), ("refresh", other.access)):
        setattr(other, field, sealed)
        with pytest.raises(NotReady):
            store.open_token(other, field)


def test_no_token_is_ever_in_an_event_or_a_notice(world, server, operator) -> None:
    world.knobs.method = "client_secret_basic"
    row = connect(server, operator)
    refreshing.refresh(row.pk, row.generation)
    world.end_families()
    row.refresh_from_db()
    with pytest.raises(UpstreamUnauthenticated):
        refreshing.refresh(row.pk, row.generation)
    with tenant_scope(server.tenant_id, as_user(operator)):
        disconnecting.disconnect(row)
    said = json.dumps(list(OutboxEvent.objects.values_list("payload", flat=True)))
    verifiers = [form["code_verifier"] for form in world.forms if "code_verifier" in form]
    assert verifiers
    assert not [text for text in (*world.secrets(), *verifiers) if text in said]


# Ending


def test_a_disconnect_forgets_and_revokes(world, server, operator) -> None:
    row = connect(server, operator)
    token = token_of(server)
    with recorded() as rows, tenant_scope(server.tenant_id, as_user(operator)):
        assert disconnecting.disconnect(row)
    assert (token in world.access, world.asked["revoke"]) == (False, 2)
    assert types(rows) == ["connection.disconnected", "connection.revoked"]
    with pytest.raises(UpstreamUnauthenticated):
        access_of(server.pk)
    assert Endpoint.unscoped.get(server=server).state == "unauthenticated"


def test_a_new_origin_or_authentication_ends_the_connections(world, server, operator) -> None:
    connect(server, operator)
    with tenant_scope(server.tenant_id, SYSTEM):
        update_server(server, url=f"{world.origin}/mcp?x=1")
        assert OAuthConnection.unscoped.filter(server=server).exists()
        update_server(server, url="http://127.0.0.1:9/mcp")
    assert not OAuthConnection.unscoped.filter(server=server).exists()


def test_another_tenants_connection_does_not_exist(world, server, operator) -> None:
    row = connect(server, operator)
    stranger = make_user(make_tenant(), "operator")
    with tenant_scope(tenant_of(stranger), as_user(stranger)):
        with pytest.raises(NotFound):
            disconnecting.disconnect(row)
        with pytest.raises(NotFound):
            connecting.begin(server, person=stranger)
    assert OAuthConnection.unscoped.filter(pk=row.pk).exists()


# Each user their own


def test_each_user_has_their_own_and_nobody_elses(world, tenant, personal) -> None:
    people = [make_user(tenant, "user") for _ in range(2)]
    for person in people:
        world.knobs.subject = person.username
        connect(personal, person, personal=True)
    for person in people:
        assert world.access[token_of(personal, str(person.pk))].subject == person.username
    third = make_user(tenant, "user")
    for user in (str(third.pk), "-"):
        with pytest.raises(ConnectionRequired) as caught:
            access_of(personal.pk, user)
        assert caught.value.extra["connect_url"] == f"http://localhost:8000/oauth/connect/{personal.pk}"
    with pytest.raises(UpstreamUnauthenticated, match="operator"):
        access_of(personal.pk)


def test_a_user_ends_their_own_alone(world, tenant, personal, operator) -> None:
    mine, other = make_user(tenant, "user"), make_user(tenant, "user")
    rows = [connect(personal, person, personal=True) for person in (mine, other)]
    with tenant_scope(tenant.pk, as_user(mine)):
        with pytest.raises(PermissionDenied):
            disconnecting.disconnect(rows[1])
        disconnecting.disconnect(rows[0])
    with tenant_scope(tenant.pk, as_user(operator)):
        disconnecting.disconnect(rows[1])
    assert not OAuthConnection.unscoped.exists()


def test_a_guest_connects_nothing(tenant, personal) -> None:
    with pytest.raises(PermissionDenied):
        begin(personal, make_user(tenant, "guest"), personal=True)


def test_a_failed_connection_of_a_user_stops_nobody_else(world, tenant, personal) -> None:
    person = make_user(tenant, "user")
    row = connect(personal, person, personal=True)
    world.end_families()
    with pytest.raises(ConnectionRequired):
        refreshing.refresh(row.pk, row.generation)
    assert Endpoint.unscoped.get(server=personal).state == "unknown"


def test_authorizations_begun_and_left_are_forgotten_and_bounded(world, server, operator) -> None:
    for _ in range(connecting.PENDING_AT_ONCE + 3):
        begin(server, operator)
    assert PendingAuthorization.unscoped.count() == connecting.PENDING_AT_ONCE
    PendingAuthorization.unscoped.update(expires_at=now() - timedelta(days=2))
    with every_tenant(SYSTEM):
        assert connecting.forget_pending() == connecting.PENDING_AT_ONCE


def test_a_new_key_reseals_tokens_and_secrets_of_clients(world, server, operator, configure, settings) -> None:
    world.knobs.method = "client_secret_basic"
    row = connect(server, operator)
    token, before = token_of(server), settings.SWITCHYARD.encryption_keys
    configure(encryption_keys=f"{new_key_text('k9')},{before}")
    with every_tenant(SYSTEM):
        state = reencrypt_all()
    assert (state.done, state.failed) == (3, [])
    configure(encryption_keys=settings.SWITCHYARD.encryption_keys.split(",")[0])
    assert token_of(server) == token
    assert refreshing.refresh(row.pk, row.generation).generation == 2
