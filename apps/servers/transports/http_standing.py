"""The standalone stream of a caller's own session (Streamable HTTP of the initialize era, GET).

Servers say and ask there what they do not tie to a request, many of them everything: a log message, an elicitation in the middle of a
call. In a session that is one caller's it belongs to the call that runs; where several run, `LooseQuestions` says whose a request is,
and nobody can tell whose a log message is, which is dropped.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from apps.common.errors import AddressRefused, UpstreamError
from apps.servers.transports.asking_turns import AskingTurns
from apps.servers.transports.base import Json, OnRequest, UpstreamRequest
from apps.servers.transports.channel import NO_CALLS
from apps.servers.transports.floods import Flooded
from apps.servers.transports.loose_questions import LooseQuestions
from apps.servers.transports.wire import of_a_call, own_progress, refuse_request

if TYPE_CHECKING:
    from apps.servers.transports.http_legacy import LegacyHttp, LegacySession

OPEN_SECONDS = 1.0
"""For the stream to stand before the first call that needs it is sent without."""
AGAIN_SECONDS = 30.0
"""After a stream that broke or could not be opened."""
TELL_SECONDS = 5.0
"""For a caller to take a notification; then it is dropped."""
AT_ONCE = 100
"""Requests of the server's that wait for an answer."""


class _Running:
    """A call that runs in the session."""

    __slots__ = ("id", "request")

    def __init__(self, id: int, request: UpstreamRequest) -> None:
        self.id = id
        self.request = request


class OwnStream:
    """The stream of one caller's session, which servers allow one of, and the calls that run in it."""

    def __init__(self, http: "LegacyHttp") -> None:
        self._http = http
        self._session: LegacySession | None = None
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        """The stream stands, or will not."""
        self._open = False
        self._refused = False
        self._called = False
        """A call has wanted it in this session, and the next one will."""
        self._not_before = 0.0
        self._running: dict[int, _Running] = {}
        self._asked: dict[Any, tuple[int, asyncio.Task[None]]] = {}
        self.turns = AskingTurns()
        self._loose = self._questions()

    def takes_turns(self, request: UpstreamRequest) -> bool:
        """Tell whether a call has to wait for its turn (`AskingTurns`): what the server asks on the stream could be another's."""
        return self._open and request.on_request is not None and not request.session and request.method not in NO_CALLS

    @contextmanager
    def running(self, id: int, request: UpstreamRequest) -> Iterator[None]:
        """A call runs under this id, which is its progress token too."""
        self._running[id] = _Running(id, request)
        answered = False
        try:
            yield
            answered = True
        finally:
            del self._running[id]
            if request.method not in NO_CALLS:
                with suppress(Flooded):
                    self._loose.ended(id, request, answered=answered)
            for call, task in tuple(self._asked.values()):
                if call == id:
                    task.cancel()

    async def have(self, session: "LegacySession", request: UpstreamRequest) -> None:
        """Have the stream for a call that takes requests, or log messages; waits a moment for it, and does without it."""
        logs = request.on_message is not None and "logging" in (session.result.get("capabilities") or {})
        if request.on_request is None and not logs:
            return
        self._turn_to(session)
        self._called = True
        if self._task is None and not self._refused and asyncio.get_running_loop().time() >= self._not_before:
            self._begin(session, judge=False)
        if self._task is not None and not self._settled.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(OPEN_SECONDS):
                    await self._settled.wait()

    async def read(self, session: "LegacySession", opened: Callable[[], None]) -> bool:
        """Have the stream until it ends, False when the server has none; see `LegacyHttp.listen`."""
        self._turn_to(session)
        task = self._task or self._begin(session, judge=True)
        try:
            await self._settled.wait()
            if self._open:
                opened()
            await asyncio.wait({task})
        except asyncio.CancelledError:
            if not self._called:
                self.close()
            raise
        return not self._refused

    def close(self) -> None:
        """Leave the stream."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _turn_to(self, session: "LegacySession") -> None:
        if self._session is not session:
            self.close()
            self._session, self._refused, self._called, self._not_before = session, False, False, 0.0
            self._loose = self._questions()

    def _begin(self, session: "LegacySession", *, judge: bool) -> asyncio.Task[None]:
        self._settled.clear()
        self._open = self._refused = False
        self._task = asyncio.get_running_loop().create_task(self._listen(session, judge=judge))
        return self._task

    def _stands(self) -> None:
        self._open = True
        self._settled.set()

    async def _listen(self, session: "LegacySession", *, judge: bool) -> None:
        try:
            self._refused = not await self._http.read_stream(session, self._stands, self._take, judge=judge)
        except (UpstreamError, AddressRefused):
            pass
        finally:
            if self._session is session:
                self._task, self._open = None, False
                self._not_before = asyncio.get_running_loop().time() + AGAIN_SECONDS
                self._settled.set()

    async def _take(self, session: "LegacySession", message: Any) -> None:
        if type(message) is not dict or "method" not in message:
            return
        method = message["method"]
        if "id" in message:
            self._ask(session, message)
        elif method == "notifications/cancelled":
            params = message.get("params")
            key = params.get("requestId") if type(params) is dict else None
            self._loose.take_back(key)
            asked = self._asked.get(key) if isinstance(key, str | int) else None
            if asked is not None:
                asked[1].cancel()
        elif of_a_call(message):
            await self._tell(message)
        else:
            self._http.take(session, message)

    async def _tell(self, message: Json) -> None:
        params = message.get("params")
        token = params.get("progressToken") if type(params) is dict else None
        if message["method"] == "notifications/progress":
            one = self._running.get(token) if type(token) is int else None
            request = one.request if one is not None else None
        else:
            request = self._only()
        if request is not None and request.on_message is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(TELL_SECONDS):
                    await request.on_message(own_progress(message))

    def _questions(self) -> LooseQuestions[_Running]:
        return LooseQuestions(self._calls, self._hand, self.turns.asked)

    def _calls(self) -> list[_Running]:
        return [one for one in self._running.values() if one.request.method not in NO_CALLS]

    def _ask(self, session: "LegacySession", message: Json) -> None:
        if message["method"] == "ping" or session is not self._session:
            self._http.answer_request(session, message, refuse_request(message))
        else:
            self._loose.take(message)

    def _hand(self, message: Json, one: _Running | None) -> None:
        """Have a request answered by the caller of its call; without one it is refused."""
        session, ask = self._session, one.request.on_request if one is not None else None
        assert session is not None
        if one is None or ask is None or len(self._asked) >= AT_ONCE:
            self._http.answer_request(session, message, refuse_request(message))
            return
        key = message["id"] if isinstance(message["id"], str | int) else str(message["id"])
        task = asyncio.get_running_loop().create_task(self._answer(session, message, ask))
        self._asked[key] = (one.id, task)
        task.add_done_callback(lambda _: self._asked.pop(key, None))

    async def _answer(self, session: "LegacySession", message: Json, ask: OnRequest) -> None:
        with suppress(Flooded):
            self._http.answer_request(session, message, await ask(message))

    def _only(self) -> UpstreamRequest | None:
        """Return the one call that takes messages; None where there is none, or more than one."""
        fitting = [one.request for one in self._running.values() if one.request.on_message is not None]
        return fitting[0] if len(fitting) == 1 else None
