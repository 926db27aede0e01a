"""An application for the tests of the processes: slow answers, endless streams, children of its own."""

import asyncio
import os
import subprocess
from urllib.parse import parse_qs

from config.processes import draining, embedded

_drained = asyncio.Event()


async def application(scope, receive, send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        if os.environ.get("TRIAL_FAILS"):
            await send({"type": "lifespan.startup.failed", "message": "the trial was told to fail"})
            return
        draining.on_drain(_drained.set)
        embedded.start_embedded()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.to_thread(embedded.stop_embedded)
        await send({"type": "lifespan.shutdown.complete"})
        return
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    match scope["path"]:
        case "/pid":
            body = str(os.getpid())
        case "/slow":
            await send({"type": "http.response.body", "body": b"began ", "more_body": True})
            await asyncio.sleep(float(query["seconds"]))
            body = "ended"
        case "/stream":
            await send({"type": "http.response.body", "body": b"began ", "more_body": True})
            await _drained.wait()
            body = "drained"
        case "/spawn":
            child = subprocess.Popen(["sleep", "300"], start_new_session=True)
            body = str(child.pid)
        case _:
            body = "ok"
    await send({"type": "http.response.body", "body": body.encode()})
