"""A serving child: uvicorn on the socket that the supervisor bound."""

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
from importlib import import_module
from types import FrameType
from typing import Any

import uvicorn
from django.conf import settings
from django.utils.module_loading import import_string

from config.processes import draining, embedded, lifeline
from config.processes.http_protocol import BoundedHttpProtocol
from config.processes.memory import Collector, keep_blocks_apart
from config.processes.roles import serves_web

log = logging.getLogger(__name__)

GRACE_SECONDS = 6
"""Requests in flight have this long to finish after a signal to stop."""
EMBEDDED_SECONDS = 20.0
KEEP_ALIVE_SECONDS = 75
COLLECT = (20_000, 20, 20)
"""New containers between two collections, and collections between two of the next generation: a call makes few cycles (`memory`
looks after those that are large).
"""
WEBSOCKET_BYTES = 4 * 1024 * 1024


class Server(uvicorn.Server):
    """uvicorn, told to report readiness, to drain streams, and to end with exit code 0 after a signal."""

    report_fd = -1

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, and say so once the embedded tasks run as well."""
        await super().startup(sockets)
        if not self.started:
            return
        if not await asyncio.to_thread(embedded.wait_until_ready, EMBEDDED_SECONDS):
            log.error("The embedded task worker did not start within %.0f s; it is tried again.", EMBEDDED_SECONDS)
        # what was made up to here lives as long as the process: keep the collector from walking it again and again
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT)
        self._collector = Collector()
        self._collector.start()
        lifeline.report_ready(self.report_fd)
        if serves_web():
            threading.Thread(target=_load_pages, name="pages", daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop taking tasks, end open streams, then let requests in flight finish."""
        embedded.request_stop()
        draining.begin()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, leave at the second."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def _load_pages() -> None:
    """Load console and API, which nothing needs before the first request to them: whoever asks meanwhile waits for the rest."""
    try:
        import_module(settings.ROOT_URLCONF)
    except Exception:
        log.exception("The console could not be loaded.")
    gc.freeze()


def run(*, listen_fd: int, report_fd: int) -> int:
    """Serve until a signal; returns the exit code."""
    os.set_inheritable(listen_fd, False)
    keep_blocks_apart()
    listener = socket.socket(fileno=listen_fd)
    application: Any = import_string(settings.ASGI_APPLICATION)
    server = Server(
        uvicorn.Config(
            application,
            loop="uvloop",
            http=BoundedHttpProtocol,
            ws="websockets-sansio",
            ws_max_size=WEBSOCKET_BYTES,
            lifespan="on",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=2048,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    server.report_fd = report_fd
    # until uvicorn takes the signals over, one that comes during the imports is kept for it
    signal.signal(signal.SIGTERM, server.handle_exit)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        server.run(sockets=[listener])
    except SystemExit as end:
        # how uvicorn ends when the lifespan failed; it has been logged
        return int(end.code or 1)
    return 0 if server.started else 1
