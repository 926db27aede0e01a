"""The relay chains what the control plane did: everything, once, within a second, whoever dies."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from django.db import transaction

from apps.audit.models import AuditEvent, AuditRelay
from apps.audit.runtime import AuditThread
from apps.audit.services.relay import Relay, relayed_up_to, to_record
from apps.audit.sink.config import SinkConfig
from apps.audit.sink.record import decode
from apps.common.context import Actor, every_tenant, tenant_scope
from apps.common.events import ControlEvent
from apps.common.models import OutboxEvent
from apps.common.outbox import audit, audit_apart, changed, unit_of_work
from tests.audit import logs
from tests.support import eventually

ANN = Actor(kind="user", id="u1", label="Ann", origin="rest", address="10.0.0.9", request_id="req-12345")


def did(event_type: str, **fields: Any) -> None:
    """Do something in the control plane."""
    with tenant_scope("0193b1f2-aaaa-7bbb-8ccc-1234567890ab", ANN), unit_of_work():
        audit(
            ControlEvent(event_type, action="server.write", object_kind="server", object_id="s1", object_label="Echo", **fields)
        )
        changed("server", "s1")


def relay_all(config: SinkConfig) -> int:
    """Run a relay of its own until nothing is left."""

    async def run() -> int:
        async with logs.running(config) as sink:
            return await asyncio.to_thread(run_closing, Relay(sink))

    return asyncio.run(run())


def run_closing(relay: Relay) -> int:
    """Run a relay in a thread and give its connections back."""
    from django.db import connections

    try:
        return relay.run_until_empty()
    finally:
        connections.close_all()


def test_an_event_arrives_with_who_what_and_where(log: SinkConfig) -> None:
    did("server.registered", server="echo", details={"after": {"url": "http://x", "password": "hunter2-hunter2"}})
    assert relay_all(log) == 1
    event = AuditEvent.objects.get()
    assert (event.event_type, event.action, event.object_kind, event.object_id, event.object) == (
        "server.registered", "server.write", "server", "s1", "Echo",
    )  # fmt: skip
    assert (event.tenant, event.actor_kind, event.actor_id, event.actor) == (
        "0193b1f2-aaaa-7bbb-8ccc-1234567890ab",
        "user",
        "u1",
        "Ann",
    )
    assert (event.origin, event.request_id, event.server, event.outcome, event.tool) == (
        "rest",
        "req-12345",
        "echo",
        "ok",
        None,
    )
    row = OutboxEvent.objects.get(topic="audit")
    assert abs(event.time - row.created_at).total_seconds() < 1
    details = decode(bytes(event.body)).details
    assert details["address"] == "10.0.0.9"
    assert details["after"]["url"] == "http://x"
    assert "hunter2" not in bytes(event.body).decode()
    assert relayed_up_to() >= row.pk


def test_order_gaps_and_other_topics(log: SinkConfig) -> None:
    for number in range(700):
        did(f"test.e{number}")
        if number % 100 == 0:
            with transaction.atomic():
                OutboxEvent.objects.create(topic="audit", payload={"event_type": "never"})
                transaction.set_rollback(True)
    assert relay_all(log) == 700
    assert relay_all(log) == 0
    assert list(AuditEvent.objects.order_by("id").values_list("event_type", flat=True)) == [f"test.e{n}" for n in range(700)]
    assert logs.chain_is_whole(log) == 700


def test_a_refusal_of_a_rolled_back_unit_arrives(log: SinkConfig) -> None:
    def refused() -> None:
        with every_tenant(ANN), unit_of_work():
            audit_apart(ControlEvent("access.refused", action="server.write", outcome="refused"))
            audit(ControlEvent("server.registered", action="server.write"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        refused()
    relay_all(log)
    assert [event.event_type for event in AuditEvent.objects.all()] == ["access.refused"]


def test_a_long_stretch_without_events_does_not_hold_pruning_back(log: SinkConfig) -> None:
    did("test.first")
    for _ in range(3):
        with every_tenant(ANN), unit_of_work():
            for number in range(500):
                changed("server", number)
    relay_all(log)
    assert relayed_up_to() > 1000


def test_a_restored_database_is_relayed_from_its_beginning(log: SinkConfig) -> None:
    did("test.first")
    relay_all(log)
    AuditRelay.objects.update(outbox_id=10**9)
    did("test.second")
    relay_all(log)
    kinds = list(AuditEvent.objects.order_by("id").values_list("event_type", flat=True))
    assert kinds[:2] == ["test.first", "audit.relay_rewound"]
    assert kinds[-1] == "test.second"
    assert logs.chain_is_whole(log) == len(kinds)


def test_several_relays_write_each_event_once(log: SinkConfig) -> None:
    for number in range(300):
        did(f"test.e{number}")

    async def run() -> None:
        async with logs.running(log) as first, logs.running(log) as second:
            await asyncio.gather(*(asyncio.to_thread(run_closing, Relay(sink)) for sink in (first, second) * 2))

    asyncio.run(run())
    assert sorted(AuditEvent.objects.values_list("event_type", flat=True)) == sorted(f"test.e{n}" for n in range(300))
    assert logs.chain_is_whole(log) == 300


def test_the_runtime_chains_within_a_second(log: SinkConfig) -> None:
    thread = AuditThread()
    runtime = thread.start()
    try:
        assert runtime.sink.failure is None
        started = time.monotonic()
        did("test.bell")
        eventually(lambda: AuditEvent.objects.filter(event_type="test.bell").exists(), within=1.0)
        # as another process would write it: nobody rings here
        OutboxEvent.objects.create(topic="audit", payload={"event_type": "test.silent"})
        eventually(lambda: AuditEvent.objects.filter(event_type="test.silent").exists(), within=1.0)
        assert time.monotonic() - started < 2
        did("test.last")
    finally:
        thread.stop()
    assert AuditEvent.objects.filter(event_type="test.last").exists()


CRASH = """
import asyncio, sys
import django
django.setup()
from django.db import connections
connections["default"].settings_dict["NAME"] = sys.argv[1]
connections["audit" if "audit" in connections.databases else "default"].settings_dict["NAME"] = sys.argv[2]
from apps.audit.services import relay
from apps.audit.runtime import sink_config_from_settings
from tests.audit.logs import running
relay._ROWS = 3
async def main():
    async with running(sink_config_from_settings()) as sink:
        print("ready", flush=True)
        await asyncio.to_thread(relay.Relay(sink).run_until_empty)
asyncio.run(main())
"""


def test_a_relay_that_is_killed_leaves_no_gap_and_no_double(log: SinkConfig) -> None:
    from django.conf import settings
    from django.db import connections

    names = [str(connections[alias].settings_dict["NAME"]) for alias in ("default", settings.AUDIT_DATABASE)]
    for number in range(400):
        did(f"test.e{number}")
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", CRASH, *names], cwd=logs.ROOT, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(random.uniform(0.0, 0.08))  # the moment of death is what this is about
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    eventually(lambda: relay_all(log) == 0)
    assert list(AuditEvent.objects.order_by("time", "id").values_list("event_type", flat=True)) == [
        f"test.e{n}" for n in range(400)
    ]
    logs.chain_is_whole(log)


def test_a_payload_of_odd_kinds_is_taken() -> None:
    record = to_record({"event_type": "x", "at": "2026-11-20T09:00:00.000001+00:00", "details": None, "tenant_id": ""})
    assert record.time_us == 1_795_165_200_000_001
    assert record.tenant is None
    assert record.details is None
