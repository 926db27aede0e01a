"""What runs beside the requests, from start to stop."""

import asyncio
import logging

from apps.gateway.adapters.runtime import GatewayRuntime
from apps.gateway.plane.http import Receive, Send
from config.processes import draining, embedded

logger = logging.getLogger(__name__)


async def serve_lifespan(runtime: GatewayRuntime, receive: Receive, send: Send) -> None:
    """Start the data plane (and, on one machine, worker and clock) before the first request; stop them after the last."""
    await receive()
    try:
        await runtime.start()
        embedded.start_embedded()
    except Exception as error:
        logger.exception("Switchyard could not start")
        await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
        return
    draining.on_drain(runtime.drain)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    try:
        await asyncio.to_thread(embedded.stop_embedded)
        await runtime.stop()
    except Exception:
        logger.exception("Switchyard did not stop cleanly")
    await send({"type": "lifespan.shutdown.complete"})
