"""Notices from a lower floor to a higher one that are part of the same commit.

A service below emits, an app above subscribes in its `AppConfig.ready`. A subscriber that raises undoes the whole unit of work:
that is how `tools` refuses a slug which one of its toolsets has. What may happen later goes through the outbox instead.

Emitted so far, all with `server` (the row of the registry):

* `server.registered`: it has been written, with endpoint and credentials;
* `server.updated`: with `fields`, the names of what changed;
* `server.connection_changed`: address, command or credentials changed, so what it offers may have changed as well;
* `server.paused`, `server.resumed`;
* `server.deleting`: it is about to be deleted; its rows still stand.
"""

import threading
from collections.abc import Callable
from typing import Any

from django.db import connections

Handler = Callable[..., None]

_handlers: dict[str, list[Handler]] = {}
_lock = threading.Lock()


def on(event: str, handler: Handler) -> None:
    """Call `handler(**facts)` inside the transaction that emits `event`; subscribing twice counts once."""
    with _lock:
        handlers = _handlers.setdefault(event, [])
        if handler not in handlers:
            handlers.append(handler)


def off(event: str, handler: Handler) -> None:
    """Undo `on`."""
    with _lock:
        if handler in _handlers.get(event, ()):
            _handlers[event].remove(handler)


def emit(event: str, **facts: Any) -> None:
    """Call every subscriber, in order of subscription. Raises RuntimeError outside a transaction, else what a subscriber raises."""
    if not connections["default"].in_atomic_block:
        raise RuntimeError(f"{event} was emitted outside a transaction: open a unit_of_work() first.")
    for handler in tuple(_handlers.get(event, ())):
        handler(**facts)
