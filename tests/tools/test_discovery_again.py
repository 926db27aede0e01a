"""Servers are discovered again by themselves: with growing pauses where it failed, every 15 minutes where nobody tells of changes."""

from datetime import timedelta

import pytest

from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.gateway.adapters.learned import Learned
from apps.gateway.plane.store import SnapshotStore
from apps.servers.models import Endpoint, Server
from apps.servers.services.endpoints import set_endpoint_state
from apps.servers.services.registry import register_server
from apps.tools.models import Discovery
from apps.tools.services import again
from apps.tools.services.again import discover_due
from apps.tools.services.claim import pause
from apps.tools.tasks import discover_due_task
from tests.factories import unique
from tests.tools.support import tool
from tests.tools.test_discovery import Offers, discover, enqueued, raw

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def offers(tmp_path) -> Offers:
    return Offers(tmp_path / "offers.json", tools=[tool("a")])


def web(tenant, **fields):
    """A server at an address, which is not asked; when it was last discovered is told."""
    with tenant_scope(tenant.pk, SYSTEM):
        server = register_server(slug=unique("s"), transport="http", url="https://plain.example.com/mcp")
    Server.unscoped.filter(pk=server.pk).update(**fields)
    if fields.get("discovered_at"):
        Discovery.unscoped.create(server=server, tenant=tenant)
    return server


def due(server) -> int:
    """Let the clock look; how often it enqueued this server's discovery."""
    before = enqueued(server)
    discover_due()
    return enqueued(server) - before


def later(server, **times) -> None:
    """Let time go by for a server's next discovery."""
    row = Discovery.unscoped.get(server=server)
    Discovery.unscoped.filter(pk=row.pk).update(next_at=row.next_at - timedelta(**times))


def test_a_server_that_was_never_discovered_is_discovered_in_the_end(tenant):
    server = web(tenant)
    assert due(server) == 0, "what its registration enqueued is on its way"
    later(server, seconds=31)
    assert due(server) == 1
    assert due(server) == 0, "once, whichever worker looks"


def test_a_discovery_that_fails_is_repeated_with_growing_pauses_until_it_does_not(tenant, offers):
    server = raw(tenant, offers)
    offers.change(mode="die")
    for failures in (1, 2, 3):
        assert not discover(server, limit=10).ok
        row = Discovery.unscoped.get(server=server)
        assert row.failures == failures
        assert row.next_at - row.finished_at == timedelta(seconds=30 * 2 ** (failures - 1))
        assert due(server) == 0
        later(server, seconds=30 * 2 ** (failures - 1))
        assert due(server) == 1
    offers.change(tools=[tool("a")])
    assert discover(server).ok
    row = Discovery.unscoped.get(server=server)
    assert (row.failures, row.next_at) == (0, None)
    assert due(server) == 0, "a program is not started to be asked again"
    assert pause(50) == timedelta(minutes=15)


def test_servers_at_an_address_are_asked_again_after_15_minutes_a_few_at_a_time(tenant, monkeypatch):
    long_ago = now() - timedelta(minutes=16)
    fresh = web(tenant, discovered_at=now() - timedelta(minutes=14))
    paused = web(tenant, discovered_at=long_ago, paused_at=now())
    busy = web(tenant, discovered_at=long_ago)
    Discovery.unscoped.filter(server=busy).update(token="theirs")
    stale = [web(tenant, discovered_at=long_ago + timedelta(seconds=n)) for n in range(3)]
    monkeypatch.setattr(again, "STALE_AT_ONCE", 1)
    order = []
    for _ in range(5):
        before = {one.pk: enqueued(one) for one in stale}
        discover_due_task()
        order += [one for one in stale if enqueued(one) > before[one.pk]]
    assert order == stale, "each once, the oldest first"
    assert [due(one) for one in (fresh, paused, busy)] == [0, 0, 0]


def test_who_looks_at_the_same_time_takes_it_once(tenant):
    server = web(tenant, discovered_at=now() - timedelta(minutes=16))
    with every_tenant(SYSTEM):
        row = Discovery.objects.get(server=server)
        assert [again._take(row, timedelta(minutes=15)) for _ in range(2)] == [1, 0]


@pytest.fixture
def learned(monkeypatch):
    monkeypatch.setattr("apps.gateway.adapters.learned.close_old_connections", lambda: None)  # the test's own connection
    return Learned(SnapshotStore())


def test_a_server_that_answers_again_is_discovered_but_not_all_the_time(tenant, learned):
    server = web(tenant, discovered_at=now())
    endpoint = str(Endpoint.unscoped.get(server=server).pk)
    asked: list[float] = []
    with every_tenant(SYSTEM):
        for _ in range(3):
            set_endpoint_state(endpoint, "unhealthy", "It was refused.")
            learned._note_state(endpoint, "healthy", "It answered a call.")
            asked.append(learned._changed.pop(str(server.pk)))
            learned._note_state(endpoint, "healthy", "It answered a call.")
            assert not learned._changed, "no news"
    assert [round(then - asked[0]) for then in asked] == [0, 30, 60]
    learned.list_changed(str(server.pk), "tools")
    assert learned._changed[str(server.pk)] < asked[1], "what a server announces does not wait for that"


def test_an_era_that_is_found_has_a_server_discovered_that_never_was(tenant, learned, offers):
    server = web(tenant)
    endpoint = str(Endpoint.unscoped.get(server=server).pk)
    with every_tenant(SYSTEM):
        learned._note_era(endpoint, "legacy", ("2025-11-25",))
        assert list(learned._changed) == [str(server.pk)]
        learned._changed.clear()
        Server.unscoped.filter(pk=server.pk).update(discovered_at=now())
        learned._note_era(endpoint, "modern", ("2026-07-28",))
        assert not learned._changed
