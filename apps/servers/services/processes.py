"""The rows of stdio processes: written by the data plane that has them, listed in the console, and ended by an order."""

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from apps.common import authorise
from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant
from apps.common.errors import NotFound
from apps.common.events import ControlEvent
from apps.common.outbox import audit, order, unit_of_work
from apps.servers.models import Endpoint, UpstreamProcess

KILL_PROCESS = "kill-process"
"""Name of the order; its payload is `process_id`."""
STALE_SECONDS = 60.0
"""A row that its data plane has not touched for so long tells of a process that is gone."""


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What a data plane says of one of its processes at each heartbeat."""

    process_id: str
    in_flight: int = 0
    calls: int = 0
    memory_bytes: int = 0


def worker_name() -> str:
    """Return `<host>:<pid>` of this data plane."""
    return f"{socket.gethostname()[:100]}:{os.getpid()}"


def record_process(endpoint_id: UUID | str, process_id: UUID | str, *, pid: int, restarts: int = 0, worker: str = "") -> bool:
    """Note that a process runs for an endpoint; False when the endpoint is gone. Noting it again updates the row."""
    with every_tenant(actor=SYSTEM), unit_of_work():
        if not Endpoint.objects.filter(pk=endpoint_id).exists():
            return False
        moment = now()
        UpstreamProcess.objects.update_or_create(
            pk=process_id,
            defaults={"endpoint_id": endpoint_id, "pid": pid, "restarts": restarts, "seen_at": moment},
            create_defaults={
                "endpoint_id": endpoint_id,
                "pid": pid,
                "restarts": restarts,
                "seen_at": moment,
                "started_at": moment,
                "worker": worker or worker_name(),
            },
        )
    return True


def touch_processes(uses: Iterable[ProcessUse]) -> int:
    """Take a heartbeat: what each process does now. Returns how many rows there were; rows of processes that are gone stay gone."""
    moment = now()
    rows = [
        UpstreamProcess(
            pk=use.process_id, in_flight=use.in_flight, calls=use.calls, memory_bytes=use.memory_bytes, seen_at=moment
        )
        for use in uses
    ]
    if not rows:
        return 0
    return UpstreamProcess.objects.bulk_update(rows, ["in_flight", "calls", "memory_bytes", "seen_at"], batch_size=200)


def forget_process(process_id: UUID | str) -> None:
    """Remove the row of a process that has ended."""
    UpstreamProcess.objects.filter(pk=process_id).delete()


def forget_worker(worker: str = "") -> int:
    """Remove every row of a data plane that stops, this one by default; returns how many there were."""
    return UpstreamProcess.objects.filter(worker=worker or worker_name()).delete()[0]


def remove_stale_processes(older_than: float = STALE_SECONDS) -> int:
    """Remove the rows of data planes that died: not touched for `older_than` seconds, or of a pid of this host that is gone."""
    rows = UpstreamProcess.objects.all()
    removed = rows.filter(seen_at__lt=now() - timedelta(seconds=older_than)).delete()[0]
    here = f"{socket.gethostname()[:100]}:"
    for worker in rows.filter(worker__startswith=here).order_by().values_list("worker", flat=True).distinct():
        if not _alive(int(worker.removeprefix(here))):
            removed += forget_worker(worker)
    return removed


def kill_process(process: UpstreamProcess) -> None:
    """Order the data plane that has a process to end it. Raises NotFound and PermissionDenied."""
    with unit_of_work():
        # The row has no tenant of its own: its endpoint says whether the scope in force may see it.
        row = UpstreamProcess.objects.select_related("endpoint__server").filter(pk=process.pk).first()
        if row is None or not Endpoint.objects.filter(pk=row.endpoint_id).exists():
            raise NotFound("No such process.")
        server = row.endpoint.server
        authorise.require("process.write", tenant_id=server.tenant_id, kind="process", object_id=row.pk, label=str(row))
        order(KILL_PROCESS, process_id=str(row.pk))
        audit(
            ControlEvent(
                event_type="process.killed",
                action="process.write",
                object_kind="process",
                object_id=str(row.pk),
                object_label=str(row),
                tenant_id=str(server.tenant_id),
                server=server.slug,
                details={"worker": row.worker, "pid": row.pid, "command": row.endpoint.command},
            )
        )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
