"""The clients that were seen, as they are kept: one row for each, bounded for a key and for a tenant, forgotten after a while."""

from dataclasses import replace
from datetime import timedelta

import pytest

from apps.accounts.services.api_keys import revoke_api_key
from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.errors import NotFound
from apps.gateway.models import ClientSeen
from apps.gateway.plane.ports import ClientSighting
from apps.gateway.selectors import clients, get_client
from apps.gateway.services import clients as services
from apps.gateway.services.clients import FORGOTTEN, forget_clients, record_clients
from tests.factories import make_key, make_tenant, make_user

pytestmark = pytest.mark.django_db


def seen(key, **changes) -> ClientSighting:
    made = ClientSighting(
        key_id=str(key.pk), tenant_id=str(key.tenant_id), toolset="", door="/mcp", name="agent", version="1.0", revision="2026-07-28",
        declared=("roots",), streams=True, address="10.0.0.1", session="", calls=1, last=now().timestamp(),
    )  # fmt: skip
    return replace(made, **changes)


@pytest.fixture
def key(db):
    tenant = make_tenant()
    return make_key(make_user(tenant), tenant)[0]


def rows(key):
    return list(ClientSeen.unscoped.filter(tenant_id=key.tenant_id).order_by("first_seen_at", "id"))


def test_one_row_for_each_and_the_newest_facts_in_it(key):
    start = now().timestamp()
    assert (
        record_clients(
            [seen(key, last=start), seen(key, last=start + 5, address="10.0.0.2", calls=2, declared=None, session="abc")]
        )
        == 1
    )
    assert record_clients([seen(key, last=start + 9, calls=3, declared=("elicitation.form",), streams=False)]) == 0
    assert record_clients([seen(key, toolset="desk"), seen(key, revision="2025-11-25"), seen(key, version="2.0")]) == 3
    first = next(row for row in rows(key) if (row.toolset, row.revision, row.version) == ("", "2026-07-28", "1.0"))
    assert (first.calls, first.address, first.declared, first.streams, first.session) == (
        6,
        "10.0.0.1",
        ["elicitation.form"],
        False,
        "abc",
    )
    assert first.first_seen_at.timestamp() == pytest.approx(start + 5, abs=0.01)
    assert first.last_seen_at.timestamp() == pytest.approx(start + 9, abs=0.01)


def test_an_older_sighting_of_another_process_takes_nothing_back(key):
    start = now().timestamp()
    record_clients([seen(key, last=start)])
    record_clients([seen(key, last=start - 60)])
    assert rows(key)[0].last_seen_at.timestamp() == pytest.approx(start, abs=0.01)


def test_what_is_not_known_of_a_client_leaves_what_was(key):
    record_clients([seen(key)])
    record_clients([seen(key, declared=None)])
    assert rows(key)[0].declared == ["roots"]


def test_a_key_that_is_gone_or_of_another_tenant_leaves_no_trace(key):
    with tenant_scope(key.tenant_id, SYSTEM):
        other = make_key(make_user(key.tenant), key.tenant)[0]
        revoke_api_key(other)
    stranger = str(make_tenant().pk)
    wrong = [seen(other), seen(key, tenant_id=stranger), seen(key, key_id="01980000-0000-7000-8000-0000000000ff")]
    assert record_clients([*wrong, seen(key)]) == 1
    assert len(rows(key)) == 1


def test_a_key_and_a_tenant_have_so_many_rows_and_the_newest_stay(key, monkeypatch):
    monkeypatch.setattr(services, "MOST_OF_KEY", 5)
    monkeypatch.setattr(services, "MOST_OF_TENANT", 7)
    start = now().timestamp()
    with tenant_scope(key.tenant_id, SYSTEM):
        quiet = make_key(make_user(key.tenant), key.tenant)[0]
    record_clients([seen(quiet, name="quiet one", last=start - 100)])
    for number in range(12):
        record_clients([seen(key, name=f"invented {number}", last=start + number)])
    names = {row.name for row in rows(key)}
    assert names == {"quiet one", *(f"invented {number}" for number in range(7, 12))}, "the inventor loses its own"
    with tenant_scope(key.tenant_id, SYSTEM):
        third = make_key(make_user(key.tenant), key.tenant)[0]
    record_clients([seen(third, name=f"third {number}", last=start + 100 + number) for number in range(5)])
    assert {row.name for row in rows(key)} == {"invented 10", "invented 11", *(f"third {number}" for number in range(5))}


def test_who_is_not_seen_for_long_is_forgotten(key):
    long_ago = (now() - FORGOTTEN - timedelta(days=1)).timestamp()
    record_clients([seen(key, name="old", last=long_ago), seen(key, name="new")])
    with every_tenant(SYSTEM):
        assert forget_clients() == 1
    assert [row.name for row in rows(key)] == ["new"]


def test_lists_see_the_tenant_in_force(key):
    record_clients([seen(key, name="mine", toolset="desk"), seen(key, name="other", address="192.0.2.7")])
    stranger = make_tenant()
    with tenant_scope(key.tenant_id, SYSTEM):
        assert {row.name for row in clients()} == {"mine", "other"}
        assert [row.name for row in clients(toolset="desk")] == ["mine"]
        assert [row.name for row in clients(text="192.0.2")] == ["other"]
        assert len(clients(text=key.name)) == 2
        assert get_client(clients(toolset="desk")[0].pk).name == "mine"
    with tenant_scope(stranger.pk, SYSTEM):
        assert not clients()
        for ref in (rows(key)[0].pk, "nothing", "\x00"):
            with pytest.raises(NotFound):
                get_client(ref)
