"""Tells whoever holds answers open (event streams, sockets) that this process is about to end."""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

_callbacks: list[Callable[[], None]] = []
_begun = threading.Event()


def on_drain(callback: Callable[[], None]) -> None:
    """Call `callback()` on the event loop when the process starts to drain, before the last requests are waited for.

    The server waits for open answers, so a stream that has no end of its own must end itself now.
    """
    _callbacks.append(callback)


def draining() -> bool:
    """Tell whether the process is ending."""
    return _begun.is_set()


def begin() -> None:
    """Start to drain; a callback that fails is logged and does not hold up the others."""
    if _begun.is_set():
        return
    _begun.set()
    for callback in tuple(_callbacks):
        try:
            callback()
        except Exception:
            log.exception("A stream could not be told that the process ends.")
