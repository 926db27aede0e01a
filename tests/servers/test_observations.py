"""What the data plane reports: states, eras, processes; written only when it is news."""

import os
import socket
import subprocess
import sys
from datetime import timedelta

import pytest

from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.errors import NotFound, PermissionDenied, ValidationFailed
from apps.common.ids import new_id
from apps.servers import selectors
from apps.servers.models import Endpoint, Server, UpstreamProcess
from apps.servers.services import processes
from apps.servers.services.endpoints import remember_era, set_endpoint_state
from apps.servers.services.registry import delete_server
from apps.servers.tasks import remove_stale_processes
from tests.factories import as_user, make_tenant, make_user
from tests.servers.support import events, last_id, make_server, recorded, superuser_in

pytestmark = pytest.mark.django_db(databases="__all__")

GONE = "01890000-0000-7000-8000-000000000000"


@pytest.fixture
def endpoint(tenant):
    return Endpoint.unscoped.get(server=make_server(tenant, command="cat"))


def test_a_state_is_written_published_and_recorded_once(endpoint):
    before = last_id()
    assert set_endpoint_state(endpoint.pk, "unhealthy", "No answer. " * 100)
    assert not set_endpoint_state(endpoint.pk, "unhealthy", "Still none.")
    endpoint.refresh_from_db()
    assert endpoint.state == "unhealthy"
    assert endpoint.state_reason.startswith("No answer.")
    assert len(endpoint.state_reason) == 500
    assert endpoint.state_since is not None
    [event] = events(after=before)
    assert (event["event_type"], event["actor_kind"]) == ("server.state_changed", "system")
    assert (event["details"]["before"], event["details"]["after"]) == ("unknown", "unhealthy")
    assert [change["id"] for change in events("changed", after=before)] == [str(endpoint.server_id)]
    assert set_endpoint_state(endpoint.pk, "healthy")
    assert len(events(after=before)) == 2


def test_an_observation_is_the_products_whoever_called(tenant, endpoint):
    elsewhere, guest = make_tenant(), as_user(make_user(tenant, "guest"))
    with recorded() as found, tenant_scope(elsewhere.pk, guest):
        assert set_endpoint_state(endpoint.pk, "degraded", "slow")
    assert found[0]["actor_kind"] == "system"
    assert found[0]["tenant_id"] == str(tenant.pk)


def test_states_that_nobody_observes_are_refused_and_a_gone_endpoint_is_no_news(endpoint):
    for state in ("paused", "fine", ""):
        with pytest.raises(ValidationFailed):
            set_endpoint_state(endpoint.pk, state)
    assert not set_endpoint_state(GONE, "healthy")
    assert not remember_era(GONE, "modern", ())
    with pytest.raises(ValidationFailed):
        remember_era(endpoint.pk, "stone age", ())


def test_an_era_is_remembered_once(endpoint):
    before = last_id()
    assert remember_era(endpoint.pk, "dual", ("2026-07-28", "2025-11-25"))
    assert not remember_era(endpoint.pk, "dual", ("2026-07-28", "2025-11-25"))
    assert not remember_era(endpoint.pk, "dual", ())
    assert Endpoint.unscoped.get(pk=endpoint.pk).era == "dual"
    assert Server.unscoped.get(pk=endpoint.server_id).revisions == ["2026-07-28", "2025-11-25"]
    assert len(events("changed", after=before)) == 1
    assert remember_era(endpoint.pk, "legacy", ("2025-11-25",))
    assert len(events("changed", after=before)) == 2


def test_a_process_is_listed_touched_and_forgotten(tenant, endpoint):
    id = new_id()
    assert processes.record_process(endpoint.pk, id, pid=4711, restarts=2)
    assert processes.touch_processes([processes.ProcessUse(str(id), in_flight=1, calls=9, memory_bytes=77)]) == 1
    with tenant_scope(tenant.pk, SYSTEM):
        [row] = selectors.processes()
        assert selectors.get_process(id) == row
    assert (row.worker, row.pid, row.restarts, row.calls, row.memory_bytes) == (processes.worker_name(), 4711, 2, 9, 77)
    assert row.endpoint.server.slug
    processes.forget_process(id)
    assert processes.touch_processes([processes.ProcessUse(str(id))]) == 0
    assert processes.touch_processes([]) == 0
    assert not UpstreamProcess.objects.exists()
    assert not processes.record_process(GONE, new_id(), pid=1)
    with tenant_scope(tenant.pk, SYSTEM):
        for missing in (id, "rubbish"):
            with pytest.raises(NotFound):
                selectors.get_process(missing)


def test_rows_of_dead_data_planes_are_removed(endpoint):
    here = socket.gethostname()[:100]
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    rows = {name: new_id() for name in ("alive", "dead", "silent", "elsewhere")}
    processes.record_process(endpoint.pk, rows["alive"], pid=1, worker=f"{here}:{os.getpid()}")
    processes.record_process(endpoint.pk, rows["dead"], pid=1, worker=f"{here}:{child.pid}")
    processes.record_process(endpoint.pk, rows["silent"], pid=1, worker="another-host:12")
    processes.record_process(endpoint.pk, rows["elsewhere"], pid=1, worker="another-host:13")
    UpstreamProcess.objects.filter(pk=rows["silent"]).update(seen_at=now() - timedelta(seconds=processes.STALE_SECONDS + 1))
    assert remove_stale_processes() == 2
    assert set(UpstreamProcess.objects.values_list("pk", flat=True)) == {rows["alive"], rows["elsewhere"]}
    assert processes.forget_worker() == 1
    assert processes.forget_worker("another-host:13") == 1


def test_killing_is_an_order_to_every_data_plane_and_an_event(tenant, endpoint):
    id = new_id()
    processes.record_process(endpoint.pk, id, pid=4711)
    process = UpstreamProcess.objects.get(pk=id)
    before = last_id()
    with superuser_in(tenant):
        processes.kill_process(process)
    [order] = events("control", after=before)
    assert (order["order"], order["process_id"]) == ("kill-process", str(id))
    [event] = [event for event in events(after=before) if event["object_kind"] == "process"]
    assert (event["event_type"], event["details"]["pid"]) == ("process.killed", 4711)


def test_who_may_not_kill(tenant, endpoint):
    processes.record_process(endpoint.pk, new_id(), pid=4711)
    process = UpstreamProcess.objects.get()
    with tenant_scope(tenant.pk, as_user(make_user(tenant, "user"))), pytest.raises(PermissionDenied):
        processes.kill_process(process)
    with superuser_in(make_tenant()), pytest.raises(NotFound):
        processes.kill_process(process)
    assert not events("control")


def test_processes_of_other_tenants_are_not_listed_and_go_with_their_server(tenant, endpoint):
    processes.record_process(endpoint.pk, new_id(), pid=1)
    with tenant_scope(make_tenant().pk, SYSTEM):
        assert not selectors.processes().exists()
    with every_tenant(SYSTEM):
        assert selectors.processes().count() == 1
        delete_server(Server.unscoped.get(pk=endpoint.server_id))
        assert not selectors.processes().exists()
