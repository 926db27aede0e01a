"""One parked call: what its server asks, and the request of its client that is open, here or in another process."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import orjson

from apps.common.errors import Conflict, Overloaded, SwitchyardError, UpstreamDied
from apps.common.jsontext import dumps
from apps.gateway.plane.bus import Bus
from apps.gateway.plane.call import Answer, Call, Json
from apps.gateway.plane.jsonrpc import INTERNAL_ERROR, METHOD_NOT_FOUND
from apps.gateway.plane.mcp.answers import failure, modern_answer
from apps.gateway.plane.mcp.asking import AT_ONCE, lacking, refusal

if TYPE_CHECKING:
    from apps.gateway.plane.mcp.parking import Parking
    from apps.gateway.plane.mcp.visit import Visit

PARK_SECONDS = 600.0
"""For the client to come back."""
SETTLE = 0.002
"""Seconds in which several requests of the server's become one answer."""
KEPT_MESSAGES = 64
"""Notifications that come while no request of the client's is open; the oldest give way."""


class Asker(Protocol):
    """The open request of a client that waits for what becomes of its call."""

    async def forward(self, message: Json) -> None:
        """Give the client a notification."""

    async def answer(self, answer: Answer) -> None:
        """Answer the request; nothing follows."""

    def let_go(self) -> None:
        """The answer is about to be given: the client may leave now."""


class Here:
    """A request that came to this process."""

    def __init__(self, visit: "Visit", id: Any) -> None:
        self._visit = visit
        self._id = id
        self.answered = asyncio.Event()

    async def forward(self, message: Json) -> None:
        """See Asker."""
        await self._visit.forward(message)

    async def answer(self, answer: Answer) -> None:
        """See Asker."""
        try:
            await self._visit.reply.finish(*modern_answer(self._id, answer))
        finally:
            self.answered.set()

    def let_go(self) -> None:
        """See Asker."""
        self._visit.plane.attendants.end(self._visit)


class There:
    """A request that came to another process."""

    def __init__(self, bus: Bus, worker: str, ticket: str) -> None:
        self._bus = bus
        self._worker = worker
        self._ticket = ticket

    async def forward(self, message: Json) -> None:
        """See Asker."""
        self._bus.tell("parked.said", msgspec.msgpack.encode((self._ticket, dumps(message))), self._worker)

    async def answer(self, answer: Answer) -> None:
        """See Asker."""
        error = (answer.code, answer.message, answer.data) if answer.result is None else None
        body = dumps([error, answer.status]) if error is not None else b""
        self._bus.tell("parked.answer", msgspec.msgpack.encode((self._ticket, answer.raw, body)), self._worker)

    def let_go(self) -> None:
        """See Asker."""


class Parked:
    """One call that may be parked: not known to anybody before its server asks something."""

    def __init__(self, parking: "Parking", visit: "Visit", id: Any, call: Call) -> None:
        self.name = b""
        """Random, once the call is parked."""
        self.call = call
        self.owner = call.caller.principal.id
        self.request_bytes = call.request_bytes
        self.size = 0
        self._parking = parking
        self._task = asyncio.current_task()
        self._asker: Asker | None = Here(visit, id)
        self._token: Any = progress_token(call.params)
        self._asked: dict[str, tuple[Json, asyncio.Future[Json]]] = {}
        self._count = 0
        self._settling: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._messages: deque[bytes] = deque()
        """Written out, so that they take what they are counted at."""
        self.kept = 0
        """Bytes of them, and of the answer."""
        self._end: Answer | None = None
        self.ended = False
        """Ended by its time limit, by its client or by shutdown."""
        call.on_request = self.ask
        if visit.reply.accepts_stream:
            call.on_message = self.forward

    # The server's side

    async def ask(self, message: Json) -> Json:
        """Take a request of the server's and return what the client answers: `result` or `error`."""
        method = message.get("method")
        lacks = lacking(self.call.capabilities, message)
        if not isinstance(method, str) or lacks:
            return refusal(METHOD_NOT_FOUND, f"The client has not declared {lacks}.")
        if len(self._asked) >= AT_ONCE:
            return refusal(INTERNAL_ERROR, f"The client has {AT_ONCE} requests to answer already.")
        size = len(dumps(message))
        try:
            self._parking.admit(self, size)
        except Overloaded as full:
            return refusal(INTERNAL_ERROR, full.detail)
        self._count += 1
        key = f"input-{self._count}"
        answered: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._asked[key] = ({name: value for name, value in message.items() if name not in ("jsonrpc", "id")}, answered)
        self._plan_turn()
        outcome: Json = {}
        try:
            outcome = await answered
            return outcome
        finally:
            del self._asked[key]
            self._parking.give_back(self, size)
            self._parking.note(self.call, method, "result" if "result" in outcome else "none")

    async def forward(self, message: Json) -> None:
        """Give the client a notification of the call, on the request that is open now."""
        asker = self._asker
        if message.get("method") == "notifications/progress":
            params = message.get("params")
            if asker is None or self._token is None or not isinstance(params, dict):
                return  # progress that nobody waits for is over
            message = {**message, "params": {**params, "progressToken": self._token}}
        if asker is not None:
            await asker.forward(message)
        else:
            self._keep(dumps(message))

    def _keep(self, message: bytes) -> None:
        """Keep a notification for the client; where there is no room the oldest of the call give way, or it is let go itself."""
        size = len(message)
        if self.ended or not self._parking.may_hold(self, size):
            return
        while self._messages and (len(self._messages) >= KEPT_MESSAGES or not self._parking.fits(self, size)):
            self._release(len(self._messages.popleft()))
        if self._hold(size):
            self._messages.append(message)

    def _hold(self, size: int, *, answer: bool = False) -> bool:
        if not self._parking.hold(self, size, answer=answer):
            return False
        self.kept += size
        return True

    def _release(self, size: int) -> None:
        self.kept -= size
        self._parking.give_back(self, size)

    def free(self) -> None:
        """The call is over, and nobody is given anything of it any more."""
        self.ended = True
        self._messages.clear()
        self._end = None
        self._release(self.kept)
        self.call.on_request = self.call.on_message = None  # they hold the call

    async def finish(self, answer: Answer) -> None:
        """The call has ended: answer the client, or keep the answer until it comes."""
        if self.ended:
            return
        if self._asker is not None and self._messages:
            await self._catch_up(self._asker)
        asker = self._leave()
        if asker is None:
            self._end = self._kept_answer(answer)
            return
        self._parking.forget(self)
        await asker.answer(answer)

    def _kept_answer(self, answer: Answer) -> Answer:
        """Return what is kept of an answer: the bytes that its client gets, or that there is no room for them."""
        size = len(answer.raw) if answer.result is not None else len(dumps([answer.message, answer.data]))
        while self._messages and not self._parking.fits(self, size, answer=True):
            self._release(len(self._messages.popleft()))
        if not self._hold(size, answer=True):
            error = Overloaded(
                "The call has run, but its answer is larger than what can be kept for its client.", rule="parked-bytes"
            )
            return failure(error, self.call)
        if answer.result is not None:
            answer.result = {}
        return answer

    # The client's side

    def attach(self, asker: Asker, responses: Json, token: Any) -> None:
        """Take up the call for the client's next request, with the answers it brings and its progress token. Raises Conflict."""
        if self._asker is not None:
            raise Conflict("Another request is taking this call up already.", rule="parked-call")
        if self._deadline is not None:
            self._deadline.cancel()
        self._asker, self._token = asker, token
        self._parking.resumed(self.call)
        for key, (_, waiting) in self._asked.items():
            if key in responses and not waiting.done():
                waiting.set_result({"result": responses[key]})
        if self._end is None and any(not waiting.done() for _, waiting in self._asked.values()):
            self._plan_turn()  # what was not answered is asked again
        if self._messages or self._end is not None:
            self._later(self._catch_up(asker))

    def cancel(self, error: SwitchyardError | None = None) -> None:
        """End the call: its client has left, its time is over, or this process stops. A client that waits gets the error."""
        runs = self._end is None
        asker = self._leave()
        self._parking.forget(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if asker is not None:
            self._later(asker.answer(failure(error or UpstreamDied("The call was ended."), self.call)))
        if self._task is not None and runs:
            self._task.cancel()

    def _plan_turn(self) -> None:
        if self._asker is not None and self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE, self._turn)

    def _turn(self) -> None:
        """Answer the open request with everything that the server waits for now."""
        self._settling = None
        requests = {key: request for key, (request, waiting) in self._asked.items() if not waiting.done()}
        if not requests:
            return
        asker = self._leave()
        if asker is None:
            return
        result = {"resultType": "input_required", "inputRequests": requests, "requestState": self._parking.seal(self)}
        self._deadline = asyncio.get_running_loop().call_later(PARK_SECONDS, self.cancel)
        self._parking.rests(self.call)
        self._later(asker.answer(Answer(result=result, raw=dumps(result))))

    def _leave(self) -> Asker | None:
        """Let go of the open request, whose answer is next; None when there is none."""
        asker, self._asker = self._asker, None
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        if asker is not None:
            asker.let_go()
        return asker

    async def _catch_up(self, asker: Asker) -> None:
        while self._messages and self._asker is asker:
            message = self._messages.popleft()
            self._release(len(message))
            await asker.forward(orjson.loads(message))
        if self._end is not None and self._asker is asker:
            await self.finish(self._end)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        self._parking.later(work)


def progress_token(params: Json) -> Any:
    """Return the token under which a request asks for progress; None without one."""
    meta = params.get("_meta")
    return meta.get("progressToken") if isinstance(meta, dict) else None
