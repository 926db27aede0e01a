"""The audit log in a running process: the sink, the relay of the outbox, and the sweep of writers that died."""

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from psycopg.conninfo import make_conninfo

from apps.audit.checkpointing import CheckpointThread
from apps.audit.services.relay import RelayThread
from apps.audit.sink.config import SinkConfig
from apps.audit.sink.sink import DurableSink, open_sink
from apps.audit.sink.store import StoreFailed
from apps.audit.sink.sweep import sweep_dead_writers
from apps.common.errors import AuditUnavailable

_log = logging.getLogger(__name__)
_SWEEP_SECONDS = 30.0
_NOT_LIBPQ = ("pool", "isolation_level", "assume_role", "server_side_binding", "prepare_threshold", "context")
"""Options of Django's backend that are not libpq's."""


def sink_config_from_settings() -> SinkConfig:
    """Return where the log of this installation stands. Raises ImproperlyConfigured for a database that cannot hold it."""
    database: dict[str, Any] = connections[settings.AUDIT_DATABASE].settings_dict
    if database["ENGINE"].endswith("postgresql"):
        options = {name: value for name, value in database.get("OPTIONS", {}).items() if name not in _NOT_LIBPQ}
        named = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
        given = {option: str(database[name]) for option, name in named.items() if database.get(name)}
        return SinkConfig(postgres=make_conninfo("", **{**options, **given}))
    path = Path(str(database["NAME"]))
    if not path.is_absolute():
        raise ImproperlyConfigured("The audit log needs a file of its own, named by an absolute path.")
    return SinkConfig(sqlite=path, locks=path.with_suffix(".locks"))


class _SweepThread(threading.Thread):
    """Closes what dead writers left open, every 30 s."""

    def __init__(self, config: SinkConfig) -> None:
        super().__init__(name="audit-sweep", daemon=True)
        self._config = config
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End within a second, or with the sweep under way."""
        self._stopping.set()
        self.join(1.0)

    def run(self) -> None:
        """Sweep until stopped."""
        while not self._stopping.wait(_SWEEP_SECONDS):
            try:
                closed = sweep_dead_writers(self._config)
            except StoreFailed as failure:
                _log.warning("the sweep of dead writers has to wait: %s", failure)
                continue
            if closed:
                _log.warning("closed %d open calls of dead writers as unknown", closed)


class AuditRuntime:
    """What `start_audit` started."""

    def __init__(self, config: SinkConfig, *, background: bool = True) -> None:
        """Prepare it; without `background` the sink alone, for a command that relays by itself."""
        self.config = config
        self.sink: DurableSink = open_sink(config)
        self._relay = RelayThread(self.sink) if background else None
        self._sweep = _SweepThread(config) if background else None
        self._checkpoints = CheckpointThread() if background else None

    async def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start everything; a log that cannot be written now is tried again until it can."""
        self.sink.start(loop)
        if not await self.sink.ready():
            _log.error("the audit log cannot be written yet, so calls are refused: %s", self.sink.failure)
        for thread in (self._relay, self._sweep, self._checkpoints):
            if thread is not None:
                thread.start()

    @property
    def degraded(self) -> str:
        """Return what is wrong with the checkpoints, or an empty text; calls go on all the same."""
        return self._checkpoints.degraded if self._checkpoints is not None else ""

    async def stop(self, timeout: float = 5.0) -> None:
        """Chain what waits in the outbox, write what waits in the sink, sign the heads, and end.

        At most about 2 x `timeout` seconds, and 5 for the last checkpoint.
        """
        if self._relay is not None and self._sweep is not None:
            await asyncio.to_thread(self._relay.stop, timeout)
            await asyncio.to_thread(self._sweep.stop)
        await self.sink.aclose(timeout)
        if self._checkpoints is not None:
            await asyncio.to_thread(self._checkpoints.stop)


async def start_audit(loop: asyncio.AbstractEventLoop, *, background: bool = True) -> AuditRuntime:
    """Start the audit log in this process, for callers on `loop`."""
    runtime = AuditRuntime(sink_config_from_settings(), background=background)
    await runtime.start(loop)
    return runtime


class AuditThread:
    """The same for a process without an event loop (a worker, a command): a thread with a loop of its own."""

    def __init__(self, *, background: bool = True) -> None:
        self._background = background
        self.loop = asyncio.new_event_loop()
        self.runtime: AuditRuntime | None = None
        self._thread = threading.Thread(target=self._run, name="audit-loop", daemon=True)

    def start(self, timeout: float = 15.0) -> AuditRuntime:
        """Start it and return the runtime. Raises AuditUnavailable when it is not there in time."""
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(start_audit(self.loop, background=self._background), self.loop)
        try:
            self.runtime = started.result(timeout)
        except TimeoutError as error:
            raise AuditUnavailable("The audit log did not start in time.") from error
        return self.runtime

    def stop(self, timeout: float = 5.0) -> None:
        """Stop it, and the loop."""
        if self.runtime is not None:
            asyncio.run_coroutine_threadsafe(self.runtime.stop(timeout), self.loop).result(4 * timeout)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()
