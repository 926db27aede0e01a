"""Requests of a server of the initialize era that do not say which call they belong to, where several calls share a way to it.

One belongs to the only call in flight, or to the newest where all are of one client's session. Of several others' it waits until all but
one have their answers: a server answers no call before its question is answered or taken back. Where one has ended without an answer,
nobody knows any more.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from apps.servers.transports.base import Json, UpstreamRequest

HELD = 100
"""Requests of the server's that wait until it is certain whose they are."""
LEFT_SECONDS = 1.0
"""A call that its caller has left may still ask for so long; what a call without a session is asked meanwhile could be that one's."""


class InFlight(Protocol):
    """A call in flight."""

    request: UpstreamRequest


C = TypeVar("C", bound=InFlight)


class LooseQuestions(Generic[C]):
    """Those of one way to a server. `calls` gives the calls in flight that may ask, oldest first; `give` hands a request to one of
    them, or refuses it (None); `asked` is told of the calls without a session of which one has asked.
    """

    def __init__(
        self,
        calls: Callable[[], list[C]],
        give: Callable[[Json, C | None], None],
        asked: Callable[[list[UpstreamRequest]], None],
    ) -> None:
        self._calls = calls
        self._give = give
        self._asked = asked
        self._held: list[Json] = []
        self._left: dict[int, float] = {}
        """Calls that were given up, with the time until which they count as going on."""

    def take(self, message: Json) -> None:
        """Give a request to its call, keep it until that is known, or refuse it."""
        calls = self._calls()
        if not calls:
            self._give(message, None)
            return
        session = calls[0].request.session
        if session and all(one.request.session == session for one in calls):
            self._give(message, calls[-1])
            return
        self._asked([one.request for one in calls])
        certain = not self._doubtful()
        if certain and len(calls) == 1:
            self._give(message, calls[0])
        elif certain and len(self._held) < HELD and any(one.request.on_request is not None for one in calls):
            self._held.append(message)
        else:
            self._give(message, None)

    def ended(self, id: int, request: UpstreamRequest, *, answered: bool) -> None:
        """A call is no longer in flight."""
        if not answered and request.sent:
            now = asyncio.get_running_loop().time()
            self._left = {one: until for one, until in self._left.items() if until > now}
            self._left[id] = now + LEFT_SECONDS
        if not self._held:
            return
        calls = self._calls()
        if answered and len(calls) > 1:
            return
        held, self._held = self._held, []
        for message in held:
            self._give(message, calls[0] if answered and calls else None)

    def take_back(self, id: object) -> None:
        """The server wants no answer any more to a request that was kept."""
        self._held = [message for message in self._held if message["id"] != id]

    def answered_late(self, id: int) -> None:
        """A call that was given up has its answer now."""
        self._left.pop(id, None)

    def _doubtful(self) -> bool:
        """Tell whether a call that was given up may still ask something."""
        if not self._left:
            return False
        now = asyncio.get_running_loop().time()
        return any(until > now for until in self._left.values())
