"""What the data plane learns, taken to the control plane by one thread: uses of keys, eras, states, processes, changed lists."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psutil
from django.db import close_old_connections

from apps.accounts.services.api_keys import record_key_use
from apps.common.context import SYSTEM, every_tenant
from apps.common.errors import SwitchyardError
from apps.gateway.plane.limits import MemoryLimiter
from apps.gateway.plane.ports import ClientSighting, RecordedMessage
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.services.clients import record_clients
from apps.gateway.services.limits import keep_uses
from apps.gateway.services.recordings import record_messages
from apps.servers.selectors import server_of_endpoint
from apps.servers.services import endpoints, processes
from apps.tools.services.again import wants_discovery
from apps.tools.services.discovery import discover_server

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
HEARTBEAT_SECONDS = 10.0
DISCOVER_AGAIN_SECONDS = 1.0
"""A server that announces more often than this is discovered this often."""
BACK_SECONDS, BACKS = 30.0, 10_000
"""A server that comes and goes is discovered this often; of so many it is remembered."""
STATE_SECONDS = 5.0
QUEUE_LIMIT = 10_000
DISCOVERIES_AT_ONCE = 2
CLIENTS_AT_ONCE = 200

Order = Callable[[], None]


class Learned:
    """The `Facts` and `UpstreamEvents` of a data plane. Its methods return at once and may be called from any thread."""

    def __init__(self, store: SnapshotStore, stats: Callable[[], dict[str, dict[str, Any]]] | None = None) -> None:
        self._store = store
        self.stats = stats
        self.limits: MemoryLimiter | None = None
        """Whose days and months are kept over a restart."""
        self._queue: queue.Queue[Order | None] = queue.Queue(QUEUE_LIMIT)
        self._uses: dict[str, tuple[float, str, str]] = {}
        self._changed: dict[str, float] = {}
        self._backs: dict[str, float] = {}
        """Server → when it was last discovered since it had come back."""
        self._seen: dict[str, tuple[str, str]] = {}
        self._written: dict[str, tuple[str, float]] = {}
        self._answers: dict[object, datetime] = {}
        self._answers_at = 0.0
        self._unwritten: dict[str, int] = {}
        """Recording → messages that found no place to wait."""
        self._running: dict[str, tuple[str, int]] = {}
        self._thread: threading.Thread | None = None
        self._heartbeat_at = 0.0
        self._discoveries = ThreadPoolExecutor(DISCOVERIES_AT_ONCE, thread_name_prefix="discover again")

    # Facts

    def key_used(self, key_id: str, address: str, client: str) -> None:
        """Remember the last use of a key; written once a second."""
        self._uses[key_id] = (time.time(), address, client)

    def endpoint_state(self, endpoint_id: str, state: str, reason: str) -> None:
        """Remember the state that a call found, and when an endpoint last answered; a state is written when it is news, at most
        every 5 s for one endpoint, the times together every 5 s."""
        self._seen[endpoint_id] = (state, reason)
        if state == "healthy":
            self._answers[endpoint_id] = datetime.now(UTC)

    def clients_seen(self, clients: Sequence[ClientSighting]) -> None:
        """Write which clients were seen; the data plane gives them together, every few seconds."""
        for start in range(0, len(clients), CLIENTS_AT_ONCE):  # in pieces, so that others get their turns at the database
            self._put(partial(_note_clients, clients[start : start + CLIENTS_AT_ONCE]))

    def messages_recorded(self, messages: Sequence[RecordedMessage], dropped: Mapping[str, int]) -> None:
        """Write messages of recordings; those that cannot be written are counted with the next."""
        lost = {id: self._unwritten.get(id, 0) + dropped.get(id, 0) for id in self._unwritten.keys() | dropped.keys()}
        if self._put(partial(_note_messages, messages, lost)):
            self._unwritten = {}
        else:
            self._unwritten = lost
            for message in messages:
                for id in message.recordings:
                    self._unwritten[id] = self._unwritten.get(id, 0) + 1

    # Facts and UpstreamEvents

    def list_changed(self, server_id: str, kind: str) -> None:
        """Discover a server again, soon."""
        now = time.monotonic()
        self._changed[server_id] = min(now, self._changed.get(server_id, now))

    def era_found(self, endpoint_id: str, era: str, revisions: tuple[str, ...]) -> None:
        """Remember an endpoint's era; a server that was never discovered is there now, and is asked."""
        self._put(partial(self._note_era, endpoint_id, era, revisions))

    # UpstreamEvents

    def resource_updated(self, server_id: str, uri: str, place: str = "") -> None:
        """Of no interest to the control plane; the data plane tells its clients."""

    def process_started(self, endpoint_id: str, process_id: str, pid: int, restarts: int) -> None:
        """Note that a process runs."""
        self._running[process_id] = (endpoint_id, pid)
        self._put(lambda: _ignore(processes.record_process(endpoint_id, process_id, pid=pid, restarts=restarts)))

    def process_ended(self, endpoint_id: str, process_id: str, code: int | None, reason: str, stderr_tail: str) -> None:
        """Note that a process ended; one that died leaves what it said last as the endpoint's state."""
        self._running.pop(process_id, None)
        self._put(lambda: processes.forget_process(process_id))
        if reason == "died":
            from apps.common.redaction import redact

            said = str(redact(stderr_tail.strip()[-300:]))
            self.endpoint_state(endpoint_id, "unhealthy", f"The process ended with code {code}. {said}".strip())

    def server_of_process(self, process_id: str) -> str | None:
        """Return the server whose process this is, if it runs here."""
        known = self._running.get(process_id)
        if known is None:
            return None
        for server_id, entry in self._store.current.servers.items():
            if any(one.id == known[0] for one in entry.facts.endpoints):
                return server_id
        return None

    # Life

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="learned facts", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 3.0) -> None:
        """Write what is left and end."""
        if self._thread is not None:
            self._put(None)
            self._thread.join(timeout)
            self._discoveries.shutdown(wait=False, cancel_futures=True)

    def _put(self, order: Order | None) -> bool:
        try:
            self._queue.put_nowait(order)
        except queue.Full:
            logger.warning("more was learned than could be written; something was dropped")
            return False
        return True

    def _run(self) -> None:
        with every_tenant(SYSTEM):
            running = True
            while running:
                running = self._turn()
            self._quietly(lambda: _ignore(processes.forget_worker()))
            close_old_connections()

    def _turn(self) -> bool:
        try:
            order = self._queue.get(timeout=FLUSH_SECONDS)
        except queue.Empty:
            pass
        else:
            if order is None:
                self._flush()
                if self._answers:
                    self._note_answers(time.monotonic())
                return False
            self._quietly(order)
            if not self._queue.empty():
                return True
        self._flush()
        return True

    def _flush(self) -> None:
        if self._uses:
            used, self._uses = self._uses, {}
            rows = [(key, datetime.fromtimestamp(at, UTC), address, client) for key, (at, address, client) in used.items()]
            self._quietly(lambda: record_key_use(rows))
        if self.limits is not None and (uses := self.limits.take_changed()):
            self._quietly(partial(keep_uses, uses))
        now = time.monotonic()
        for server_id, since in list(self._changed.items()):
            if now - since >= DISCOVER_AGAIN_SECONDS / 2:
                del self._changed[server_id]
                # Here and not in a worker: only this process has the connection that announced the change.
                self._discoveries.submit(self._quietly, partial(_discover_again, server_id))
        for endpoint_id, (state, reason) in list(self._seen.items()):
            before, at = self._written.get(endpoint_id, ("", 0.0))
            if state != before and now - at >= STATE_SECONDS:
                self._written[endpoint_id] = (state, now)
                self._quietly(partial(self._note_state, endpoint_id, state, reason))
        if self._answers and now - self._answers_at >= STATE_SECONDS:
            self._note_answers(now)
        if now - self._heartbeat_at >= HEARTBEAT_SECONDS:
            self._heartbeat_at = now
            self._quietly(self._heartbeat)
        close_old_connections()

    def _note_state(self, endpoint_id: str, state: str, reason: str) -> None:
        if endpoints.set_endpoint_state(endpoint_id, state, reason) and state == "healthy":
            self._back(server_of_endpoint(endpoint_id))

    def _note_era(self, endpoint_id: str, era: str, revisions: tuple[str, ...]) -> None:
        endpoints.remember_era(endpoint_id, era, revisions)
        self._back(wants_discovery(endpoint_id))

    def _back(self, server_id: str) -> None:
        """Discover a server that answers again, and may offer something else now; one that comes and goes, every 30 s."""
        if not server_id:
            return
        now = time.monotonic()
        if len(self._backs) >= BACKS:
            self._backs = {id: at for id, at in self._backs.items() if at > now - BACK_SECONDS}
        at = max(now, self._backs.get(server_id, now - BACK_SECONDS) + BACK_SECONDS)
        if self._changed.setdefault(server_id, at) == at:
            self._backs[server_id] = at

    def _note_answers(self, now: float) -> None:
        self._answers_at = now
        answers, self._answers = self._answers, {}
        self._quietly(partial(endpoints.record_answers, dict(answers)))

    def _heartbeat(self) -> None:
        by_pid = {one.get("pid"): one for one in (self.stats() if self.stats else {}).values()}
        uses = []
        for process_id, (_, pid) in list(self._running.items()):
            figures = by_pid.get(pid, {})
            uses.append(processes.ProcessUse(process_id, figures.get("in_flight", 0), figures.get("calls", 0), _memory(pid)))
        processes.touch_processes(uses)

    def _quietly(self, order: Order) -> None:
        try:
            order()
        except Exception as error:  # noqa: BLE001 - what was learned is a help, not a promise: the next time it is learned again
            logger.warning("something learned could not be written: %s", type(error).__name__)


def _discover_again(server_id: str) -> None:
    """Discover a server; one that is gone, paused or being discovered is left alone (then it is discovered once more)."""
    try:
        with every_tenant(SYSTEM):
            discover_server(server_id)
    except SwitchyardError:
        return
    finally:
        close_old_connections()


def _memory(pid: int) -> int:
    try:
        main = psutil.Process(pid)
        return int(sum(one.memory_info().rss for one in (main, *main.children(recursive=True))))
    except psutil.Error:
        return 0


def _note_clients(clients: Sequence[ClientSighting]) -> None:
    record_clients(clients)


def _note_messages(messages: Sequence[RecordedMessage], dropped: Mapping[str, int]) -> None:
    record_messages(messages, dropped)


def _ignore(_: object) -> None:
    return None
