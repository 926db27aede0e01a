"""Runs a coroutine to its end on an event loop of its own, in a thread of its own, whatever runs in the caller's."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from apps.common.errors import UpstreamTimeout

T = TypeVar("T")


def run_apart(make: Callable[[], Coroutine[Any, Any, T]], *, limit: float) -> T:
    """Return the coroutine's result, or raise what it raises; UpstreamTimeout when its thread has not ended after `limit` seconds."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(asyncio.run(make()))
        except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=run, name="private-loop", daemon=True)
    thread.start()
    thread.join(limit)
    if thread.is_alive():
        raise UpstreamTimeout(f"The server did not let go of the connection within {limit:g} s.")
    if failure:
        raise failure[0]
    return result[0]
