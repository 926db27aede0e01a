"""Calls of clients of the initialize era whose server asked something: while they wait for the client's answer.

They are none of the calls in flight meanwhile, so they have bounds of their own: in number and bytes, for each principal and for the
process, and in time. One ends when its key is revoked or what it calls is no longer granted, when its session ends, when its client has
left and cannot come back for the answer, and when the process stops. Parked calls (see `parking`) are looked at with them.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from apps.common.background import Background
from apps.common.clock import now_us
from apps.common.errors import AuthenticationRequired, NotReady, Overloaded, SwitchyardError
from apps.gateway.plane.budget import Budget
from apps.gateway.plane.call import Call
from apps.gateway.plane.mcp.answers import RESOURCES
from apps.gateway.plane.mcp.parked import PARK_SECONDS
from apps.gateway.plane.mcp.replay import RETAIN_SECONDS
from apps.gateway.plane.mcp.session import SessionGone
from apps.gateway.plane.snapshot import Snapshot
from apps.gateway.plane.views import current_caller, find_named, find_resource, find_target

if TYPE_CHECKING:
    from apps.gateway.plane.mcp.legacy import LegacyLive
    from apps.gateway.plane.mcp.visit import Visit
    from apps.gateway.plane.plane import Plane

WAITING = 2_000
SHARE = 20
"""One principal may have this part of them: 100."""
BYTES = 256 * 1024 * 1024
"""Of the requests that wait and of what their servers ask; a quarter for one principal."""
SECONDS = PARK_SECONDS
"""For the client to answer."""
SETTLE = 0.05
"""Seconds in which several changes are looked at as one."""
_SLICE = 50
"""Calls that are looked at before others have their turn."""


class NotAnswered(SwitchyardError):
    """The client has not answered what the server asked it."""

    slug, title, status, jsonrpc_code = "not-answered", "The client did not answer what the server asked", 504, -32603


class _Waiting:
    __slots__ = ("call", "live", "owner", "questions", "session", "size", "task")

    def __init__(self, live: "LegacyLive", call: Call, session: str, task: "asyncio.Task[Any]") -> None:
        self.live = live
        self.call = call
        self.session = session
        self.task = task
        self.owner = call.caller.principal.id
        self.size = call.request_bytes
        self.questions = 0

    def end(self, error: SwitchyardError) -> None:
        """End the call: its client gets the error."""
        self.live.stop(self.call, self.task, error)


class Waits:
    """The calls of this process that wait for their client. Belongs to one event loop."""

    def __init__(self, plane: "Plane") -> None:
        self._plane = plane
        self._waiting: dict[Visit, _Waiting] = {}
        self._of_owner: Counter[str] = Counter()
        self._bytes = Budget(BYTES)
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._look_soon: asyncio.TimerHandle | None = None
        self._looking = Background()
        self._unsubscribe = plane.store.subscribe(self._changed)

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def question(self, visit: "Visit", session: str, call: Call, task: "asyncio.Task[Any]", size: int) -> Iterator[None]:
        """Have a call, which runs in `task`, wait for its client while this is open. Raises Overloaded, NotReady, NotAnswered."""
        one = self._waiting.get(visit)
        if one is None:
            one = self._admit(visit, _Waiting(self._plane.live, call, session, task))
        owner = one.owner
        if not self._bytes.take(owner, size):
            self._leave(visit, one)
            raise Overloaded("What servers ask of this key's clients is more than can be kept.", rule="waiting-bytes")
        one.questions += 1
        seconds, error = self._limit(call)
        timer = self._loop.call_later(seconds, one.end, error)
        try:
            yield
        finally:
            timer.cancel()
            self._bytes.give_back(owner, size)
            one.questions -= 1
            self._leave(visit, one)

    def _admit(self, visit: "Visit", one: _Waiting) -> _Waiting:
        if self._closing:
            raise NotReady("Switchyard is stopping; call again.", retry_after=1)
        if visit.lost:
            raise NotAnswered("The client has left.")
        if len(self._waiting) >= WAITING:
            raise Overloaded("Too many calls wait for their clients here.", rule="waiting-calls")
        if self._of_owner[one.owner] >= WAITING // SHARE:
            raise Overloaded(
                "This key has as many calls that wait for their client as one may have.", rule="waiting-calls-per-key"
            )
        if not self._bytes.take(one.owner, one.size):
            raise Overloaded("The calls of this key that wait for their client hold as much as they may.", rule="waiting-bytes")
        self._waiting[visit] = one
        self._of_owner[one.owner] += 1
        self._plane.pipeline.rest(one.call)
        return one

    def _leave(self, visit: "Visit", one: _Waiting) -> None:
        if one.questions:
            return
        del self._waiting[visit]
        self._of_owner[one.owner] -= 1
        if not self._of_owner[one.owner]:
            del self._of_owner[one.owner]
        self._bytes.give_back(one.owner, one.size)
        self._plane.pipeline.go_on(one.call)

    @staticmethod
    def _limit(call: Call) -> tuple[float, SwitchyardError]:
        """Return how long the client may take, and what the call ends with then."""
        key = call.caller.key
        left = SECONDS if key is None or key.expires_us is None else (key.expires_us - now_us()) / 1e6
        if left < SECONDS:
            return max(left, 0.0), AuthenticationRequired("The API key has expired meanwhile.")
        return SECONDS, NotAnswered(f"The client did not answer the server's question within {SECONDS:.0f} s.")

    def client_left(self, visit: "Visit") -> None:
        """A client has closed the connection of its call: without an event's id it cannot come back for the answer."""
        keeper = visit.reply.keeper
        if keeper is None or not keeper.name:
            visit.lost = True
            self._end(visit)
        elif visit in self._waiting:
            self._loop.call_later(RETAIN_SECONDS, self._missed, visit)

    def _missed(self, visit: "Visit") -> None:
        """The stream of a call is kept no longer: nobody can take it up now, unless somebody has."""
        if not visit.reply.cut_off:
            visit.lost = True
            self._end(visit)

    def _end(self, visit: "Visit") -> None:
        one = self._waiting.get(visit)
        if one is not None:
            one.end(NotAnswered("The client has left."))

    def end_session(self, sid: str) -> None:
        """End the calls of a session."""
        for one in tuple(self._waiting.values()):
            if one.session == sid:
                one.end(SessionGone("The session was ended."))

    def close(self) -> None:
        """End every call that waits, and have none wait any more."""
        self._closing = True
        for one in tuple(self._waiting.values()):
            one.end(NotReady("Switchyard is stopping; call again.", retry_after=1))

    def aclose(self) -> None:
        """End them, and look at nothing any more."""
        self.close()
        self._unsubscribe()
        self._looking.cancel()

    def _changed(self, snapshot: Snapshot) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._look_later)

    def _look_later(self) -> None:
        if self._look_soon is None and (self._waiting or len(self._plane.parking)):
            self._look_soon = self._loop.call_later(SETTLE, self._begin_look)

    def _begin_look(self) -> None:
        self._look_soon = None
        self._looking.start(self._look())

    async def _look(self) -> None:
        """End the calls that may not be made any more."""
        waiting = [(one.call, one.end) for one in self._waiting.values()]
        parked = [(one.call, one.cancel) for one in self._plane.parking]
        for number, (call, end) in enumerate([*waiting, *parked]):
            error = refusal_now(self._plane.store.current, call)
            if error is not None:
                end(error)
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)


def refusal_now(snapshot: Snapshot, call: Call) -> SwitchyardError | None:
    """Return why a call may not be made any more; None when it may. A pause ends nothing: it is met when the call goes on."""
    caller = current_caller(snapshot, call.caller)
    if caller is None:
        return AuthenticationRequired("The API key was revoked meanwhile.")
    try:
        target = find_target(snapshot, caller, call.target.slug)
        if call.method == "tools/call":
            find_named(snapshot, caller, target, "tool", call.name)
        elif call.method == "prompts/get":
            find_named(snapshot, caller, target, "prompt", call.name)
        elif call.method in RESOURCES:
            find_resource(snapshot, caller, target, call.name)
    except SwitchyardError as error:
        return error.with_traceback(None)
    return None
