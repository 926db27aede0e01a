"""Whose turn it is at a server of the initialize era that may ask its caller something.

On the one channel of a program, and on the standalone stream of a session, nothing says which call a question belongs to. Calls of one
session may get each other's, since their client is the same; calls without a session (a modern client's) may not: others may use the
same key. So those that may ask run one after the other, each until its answer, however long its client takes. What has answered without
a question before is not held up; where such a call asks after all, the question is kept until it is certain whose it is
(`LooseQuestions`).
"""

import asyncio
from types import TracebackType

from apps.servers.transports.base import UpstreamAnswer, UpstreamRequest
from apps.servers.transports.loose_questions import LEFT_SECONDS

KNOWN = 1000
"""Tools and prompts of which is remembered whether they ask."""
PATIENCE = 1.0
"""Seconds that a call of which nothing is known yet waits for its turn; then it runs beside the others."""


class AskingTurns:
    """The turns of one caller. Belongs to one event loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._asks: dict[str, bool] = {}
        """Tools and prompts, and other methods as a whole: whether they have ever asked."""

    def turn(self, request: UpstreamRequest) -> "Turn":
        """Return the turn for a call without a session; entered before the call is sent, left when it is over."""
        return Turn(self, request)

    def asked(self, requests: list[UpstreamRequest]) -> None:
        """One of these has asked something."""
        for request in requests:
            self.note(_name(request), True)

    def asks(self, name: str) -> bool | None:
        """Tell whether something has ever asked; None where nothing is known of it."""
        return self._asks.get(name)

    def note(self, name: str, asked: bool) -> None:
        """Remember that something has asked, or has answered without; what was learned first is forgotten first."""
        if asked or name not in self._asks:
            if name not in self._asks and len(self._asks) >= KNOWN:
                del self._asks[next(iter(self._asks))]
            self._asks[name] = asked

    async def take(self, name: str) -> bool:
        """Wait for the turn; False for what does not need one, or does not wait for it any longer."""
        if self.asks(name) is False:
            return False
        if not self.asks(name):
            try:
                async with asyncio.timeout(PATIENCE):
                    return await self._lock.acquire()
            except TimeoutError:
                if not self.asks(name):
                    return False
        return await self._lock.acquire()

    def give(self) -> None:
        """It is the next one's turn."""
        self._lock.release()


class Turn:
    """One call's."""

    __slots__ = ("_answered", "_held", "_name", "_request", "_turns")

    def __init__(self, turns: AskingTurns, request: UpstreamRequest) -> None:
        self._turns = turns
        self._request = request
        self._name = _name(request)
        self._held = False
        self._answered = False

    async def __aenter__(self) -> "Turn":
        self._request.waits = True
        self._held = await self._turns.take(self._name)
        self._request.waits = False
        return self

    def over(self, answer: UpstreamAnswer) -> UpstreamAnswer:
        """The server has answered: the call asks nothing more."""
        self._answered = True
        self._turns.note(self._name, False)
        return answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held and (self._answered or not self._request.sent):
            self._turns.give()
        elif self._held:  # the server may still be at it, and ask
            asyncio.get_running_loop().call_later(LEFT_SECONDS, self._turns.give)


def _name(request: UpstreamRequest) -> str:
    named = request.params.get("name") if request.method in ("tools/call", "prompts/get") else ""
    return f"{request.method} {named}"
