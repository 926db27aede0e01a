"""What servers announce beside their answers, handed to the gateway's events; and the pause between two attempts."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from apps.servers.transports.base import UpstreamEvents
from apps.servers.transports.wire import LIST_KINDS


class Announcements:
    """Passes on list changes and resource updates of one server."""

    def __init__(self, server_id: str, events: UpstreamEvents, place: str = "") -> None:
        self._server_id = server_id
        self._place = place
        self._events = events
        self.on_acknowledged: Callable[[dict[str, Any]], None] | None = None
        """Takes the server's word on what it honours of a `subscriptions/listen`."""

    def take(self, message: dict[str, Any]) -> bool:
        """Return whether `message` was an announcement, which has then been passed on."""
        method = message.get("method")
        if type(method) is not str:
            return False
        kind = LIST_KINDS.get(method)
        if kind is not None:
            self._events.list_changed(self._server_id, kind)
            return True
        if method == "notifications/resources/updated":
            params = message.get("params")
            uri = params.get("uri") if type(params) is dict else None
            if type(uri) is str:
                self.updated(uri)
            return True
        if method == "notifications/subscriptions/acknowledged" and self.on_acknowledged is not None:
            self.on_acknowledged(message)
            return True
        return False

    def updated(self, uri: str) -> None:
        """Announce that a resource has changed, or may have."""
        self._events.resource_updated(self._server_id, uri, self._place)

    def everything(self) -> None:
        """Announce that every list may have changed: the server was restarted, or changes may have been missed."""
        self._events.list_changed(self._server_id, "all")


class Backoff:
    """Exponential pauses with jitter: `first` s, doubled each time up to `most` s, times 0.5 to 1.5."""

    def __init__(self, first: float = 1.0, most: float = 60.0) -> None:
        self._first = first
        self._most = most
        self.failures = 0

    def pause(self) -> float:
        """Note one more failure and return how many seconds to wait after it."""
        self.failures += 1
        seconds = min(self._most, self._first * 2.0 ** min(self.failures - 1, 20))
        return seconds * random.uniform(0.5, 1.5)  # noqa: S311 - spreads reconnects, keeps no secret

    def reset(self) -> None:
        """Forget the failures."""
        self.failures = 0


async def reconnect(attempt: Callable[[], Awaitable[bool]]) -> None:
    """Make a standing connection again and again, with growing pauses; return when `attempt` says that there is none to be had.

    One that stood for 30 s is a fresh start for the pauses.
    """
    backoff, loop = Backoff(), asyncio.get_running_loop()
    started = loop.time()
    while await attempt():
        if loop.time() - started > 30.0:
            backoff.reset()
        await asyncio.sleep(backoff.pause())
        started = loop.time()
