"""A server is discovered once at a time, and a process that ends in the middle holds up nobody and loses nothing."""

import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta

import psutil
import pytest
from django.db import connections

from apps.common.clock import now
from apps.common.context import SYSTEM, tenant_scope
from apps.common.errors import Conflict
from apps.common.outbox import unit_of_work
from apps.tools.models import Discovery
from apps.tools.services import claim as claims
from apps.tools.services.discovery import discover_server, end_discoveries, take_up_discoveries
from apps.tools.tasks import discover_server_task
from tests.support import eventually
from tests.tools.support import tool
from tests.tools.test_discovery import Offers, discover, enqueued, in_force, raw

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def offers(tmp_path) -> Offers:
    return Offers(tmp_path / "offers.json", tools=[tool("a", "first"), tool("b")])


@pytest.fixture
def process():
    """Some process of this machine, and the name under which it would hold a claim."""
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = int(psutil.Process(running.pid).create_time())
    running.name = f"{socket.gethostname()[:36]}/{running.pid}/{began}"
    yield running
    running.kill()
    running.communicate()


def held(server, holder: str, *, seconds: float = 15.0, again: bool = False) -> Discovery:
    """The claim that a process made when it began to discover a server."""
    Discovery.unscoped.update_or_create(
        server=server,
        defaults={
            "tenant_id": server.tenant_id, "token": "theirs", "holder": holder, "again": again, "started_at": now(),
            "lease_until": now() + timedelta(seconds=seconds),
        },
    )  # fmt: skip
    return Discovery.unscoped.get(server=server)


class Running(threading.Thread):
    """A discovery in a thread."""

    def __init__(self, server, **options) -> None:
        super().__init__(daemon=True)
        self.server, self.options, self.result = server, options, None
        self.start()
        eventually(lambda: Discovery.unscoped.filter(server=server).exclude(token="").exists() or self.result)

    def run(self) -> None:
        try:
            self.result = discover(self.server, **self.options)
        except Conflict as error:
            self.result = error
        finally:
            connections.close_all()


def test_the_claim_of_a_process_that_is_gone_is_taken_over_at_once(tenant, offers, process):
    server = raw(tenant, offers)
    held(server, process.name)
    with pytest.raises(Conflict, match="already"):
        discover(server)
    process.kill()
    process.wait()
    assert discover(server).added == 2
    row = Discovery.unscoped.get(server=server)
    assert (row.token, row.holder, row.lease_until, row.again) == ("", "", None, False)


def test_another_process_of_the_same_number_is_not_the_holder(tenant, offers, process):
    server = raw(tenant, offers)
    host, pid, began = process.name.split("/")
    held(server, f"{host}/{pid}/{int(began) - 3600}")
    assert discover(server).ok


def test_the_claim_of_another_machine_lapses_soon(tenant, offers):
    server = raw(tenant, offers)
    held(server, "another-machine/7/1700000000")
    with pytest.raises(Conflict, match="already"):
        discover(server)
    assert Discovery.unscoped.get(server=server).again
    held(server, "another-machine/7/1700000000", seconds=-1, again=True)
    assert discover(server).ok


def test_a_new_claim_is_short_and_is_renewed_as_long_as_the_discovery_runs(tenant, offers, monkeypatch):
    assert claims.LEASE_SECONDS <= 15
    assert claims.RENEW_SECONDS * 3 <= claims.LEASE_SECONDS
    monkeypatch.setattr(claims, "LEASE_SECONDS", 1.5)
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.1)
    offers.change(mode="slow", tools=[tool("a")])
    server = raw(tenant, offers)
    running = Running(server)
    refused, until = 0, time.monotonic() + 2.5
    while time.monotonic() < until:
        with pytest.raises(Conflict, match="already"):
            discover(server)
        refused += 1
    offers.change(tools=[tool("a")])
    running.join(20)
    assert refused > 2
    assert running.result.added == 1
    assert Discovery.unscoped.get(server=server).token == ""
    assert enqueued(server) == 2  # registered, and once more for those refused


def test_a_discovery_that_hangs_is_not_renewed_for_ever(tenant, offers, monkeypatch):
    monkeypatch.setattr(claims, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.05)
    server = raw(tenant, offers)
    with tenant_scope(tenant.pk, SYSTEM):
        with unit_of_work():
            token = claims.claim(server)
        with claims.kept(server, token, seconds=0.5):
            eventually(lambda: Discovery.objects.get(server=server).lease_until < now())
    assert discover(server).ok


def test_an_orderly_stop_gives_the_claim_back(tenant, offers):
    offers.change(mode="slow", tools=[tool("a")])
    server = raw(tenant, offers)
    running = Running(server)
    with pytest.raises(Conflict, match="already"):
        discover(server)
    assert end_discoveries() == 1
    row = Discovery.unscoped.get(server=server)
    assert (row.token, row.lease_until) == ("", None)
    assert enqueued(server) == 2
    offers.change(tools=[tool("b")])
    running.join(20)
    assert isinstance(running.result, Conflict)
    assert in_force(server) == set()
    assert end_discoveries() == 0
    assert discover(server).added == 1


def test_what_a_dead_process_was_asked_to_do_once_more_is_done(tenant, offers, process):
    alive, dead, elsewhere, lapsed = (raw(tenant, offers) for _ in range(4))
    gone = f"{process.name}1"
    for server, holder, seconds in (
        (alive, process.name, 15), (dead, gone, 15), (elsewhere, "another-machine/7/1", 15), (lapsed, "another-machine/7/1", -1),
    ):  # fmt: skip
        held(server, holder, seconds=seconds, again=True)
    assert take_up_discoveries() == 2
    assert [enqueued(server) for server in (alive, dead, elsewhere, lapsed)] == [1, 2, 1, 2]
    assert [Discovery.unscoped.get(server=server).token for server in (alive, dead, elsewhere, lapsed)] == [
        "theirs", "", "theirs", "",
    ]  # fmt: skip
    assert take_up_discoveries() == 0
    for server in (dead, lapsed):
        discover_server_task.apply(args=[str(server.pk)], throw=True)
        assert in_force(server) == {"a", "b"}


def test_who_asks_just_as_a_discovery_ends_is_served_or_has_it_repeated(tenant, offers):
    """Nobody is told that it will be done once more by a discovery that has ended."""
    server = raw(tenant, offers)
    lost: list[str] = []

    def ask() -> None:
        try:
            for _ in range(12):
                before = enqueued(server)
                try:
                    discover(server)
                except Conflict:
                    row = Discovery.unscoped.get(server=server)
                    if not row.again and not row.token and enqueued(server) <= before:
                        lost.append("a repetition")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert lost == []
    row = Discovery.unscoped.get(server=server)
    assert (row.token, row.again) == ("", False)


def test_a_server_is_discovered_by_one_thread_alone(tenant, offers):
    server = raw(tenant, offers)
    with tenant_scope(tenant.pk, SYSTEM):
        with unit_of_work():
            assert claims.claim(server)
            assert claims.claim(server) == ""
        with pytest.raises(Conflict):
            discover_server(server)
