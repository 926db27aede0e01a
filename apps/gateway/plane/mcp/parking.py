"""Calls of modern clients that wait for their client: a server of the initialize era asked something in the middle of a call.

The call stays open at the server, in this process. The client gets `input_required` with a sealed `requestState`; its next request,
with the same parameters, brings the answers and takes the call up where it stood (MCP 2026-07-28, multi round-trip requests), in
whichever process it arrives. The process that runs a parked call is the one that answered first: it runs on in that request's task.
"""

import asyncio
import base64
import binascii
import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from apps.common.background import Background
from apps.common.crypto.keyring import DecryptionFailed, Keyring
from apps.common.errors import NotReady, Overloaded, SwitchyardError, UpstreamDied, ValidationFailed
from apps.common.jsontext import dumps
from apps.gateway.plane.budget import Budget
from apps.gateway.plane.call import Answer, Call, Json
from apps.gateway.plane.http import Receive
from apps.gateway.plane.jsonrpc import error_of
from apps.gateway.plane.mcp.answers import failure
from apps.gateway.plane.mcp.asking import WORKER
from apps.gateway.plane.mcp.parked import Here, Parked, There, progress_token

if TYPE_CHECKING:
    from apps.gateway.plane.mcp.visit import Visit
    from apps.gateway.plane.plane import Plane

PREFIX = "p."
"""Tells our states from those of servers, which are base64 and have no dot."""
PARKED = 2_000
SHARE = 20
"""One principal may have this part of them: 100."""
ALIVE_SECONDS = 2.0
"""How often a process that runs somebody's call is looked for."""
CALL_BYTES, ALL_BYTES = 4 * 1024 * 1024, 256 * 1024 * 1024
"""What a server may ask and say in one call, and in all parked calls together with what they were asked and answered; a quarter of
these for one principal.
"""
_ENDED = (
    "The call that params.requestState belongs to has ended: it was answered, its time was over, or its process has. If its answer never "
    "reached you, look whether it took effect before you make it again."
)


class Parking:
    """The parked calls of this process."""

    def __init__(self, keyring: Keyring, plane: "Plane") -> None:
        self._keyring = keyring.for_purpose(b"parked-call")
        self._plane = plane
        self._parked: dict[bytes, Parked] = {}
        self._of_owner: Counter[str] = Counter()
        self._bytes = Budget(ALL_BYTES)
        self._background = Background()
        self._closing = False
        self._asked_elsewhere: dict[str, Here] = {}
        """Requests that came here for calls that other processes run."""
        plane.bus.on("parked.resume", self._take_resume)
        plane.bus.on("parked.cancel", self._take_cancel)
        plane.bus.on("parked.said", self._take_said)
        plane.bus.on("parked.answer", self._take_answer)

    def __len__(self) -> int:
        return len(self._parked)

    def __iter__(self) -> Iterator[Parked]:
        return iter(tuple(self._parked.values()))

    async def resume(self, visit: "Visit", id: Any, method: str, params: Json, receive: Receive) -> None:
        """Serve a request that brings the answers for a parked call, wherever that runs.

        Raises ValidationFailed for a state that is not this caller's for this very request, or whose call has ended; Conflict when
        another request does the same; what the policy refuses now ends the call.
        """
        call = visit.call(method, params, modern=True)
        worker, name = self._open(call)
        responses = params.get("inputResponses", {})
        if not isinstance(responses, dict) or not all(isinstance(one, dict) for one in responses.values()):
            raise ValidationFailed("params.inputResponses must be an object with an object for each request that was made.")
        here = Here(visit, id)
        cancel: Callable[[], None]
        refused: SwitchyardError | None = None
        try:
            self._plane.pipeline.authorise(call)
        except SwitchyardError as error:
            refused = error
        if worker == self._plane.bus.worker:
            parked = self._parked.get(name)
            if refused is not None:
                if parked is not None:
                    parked.cancel(refused)
                raise refused.with_traceback(None)
            if parked is None:
                raise ValidationFailed(_ENDED)
            parked.attach(here, responses, progress_token(params))
            if self._plane.tap is not None:
                self._plane.tap.began(visit, parked.call)
            cancel = parked.cancel
            waiting: Coroutine[Any, Any, object] = here.answered.wait()
        else:
            if refused is not None:
                self._plane.bus.tell("parked.cancel", name, worker)
                raise refused.with_traceback(None)
            ticket = secrets.token_hex(12)
            self._asked_elsewhere[ticket] = here
            order = (ticket, name, dumps([responses, progress_token(params)]))
            if not await self._plane.bus.send(worker, "parked.resume", msgspec.msgpack.encode(order)):
                del self._asked_elsewhere[ticket]
                raise ValidationFailed(_ENDED)
            cancel = partial(self._plane.bus.tell, "parked.cancel", name, worker)
            waiting = self._elsewhere(worker, ticket, here, call)
        attendants, task = self._plane.attendants, asyncio.current_task()
        assert task is not None
        attendants.begin(visit, receive, task)
        try:
            await waiting
        except asyncio.CancelledError:
            left = attendants.left(visit)
            cancel()
            if not left:
                raise
            task.uncancel()
        finally:
            attendants.end(visit)

    async def _elsewhere(self, worker: str, ticket: str, here: Here, call: Call) -> None:
        """Wait for another process to answer; when it is gone, say so."""
        try:
            while not here.answered.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(here.answered.wait(), ALIVE_SECONDS)
                if not here.answered.is_set() and not await self._plane.bus.alive(worker):
                    error = UpstreamDied("The process that ran the call has ended. Whether the call took effect is not known.")
                    await here.answer(failure(error, call))
        finally:
            self._asked_elsewhere.pop(ticket, None)

    def _take_resume(self, sender: str, message: bytes) -> None:
        ticket, name, said = msgspec.msgpack.decode(message, type=tuple[str, bytes, bytes])
        asker, parked = There(self._plane.bus, sender, ticket), self._parked.get(name)
        responses, token = msgspec.json.decode(said)
        try:
            if parked is None:
                raise ValidationFailed(_ENDED)
            parked.attach(asker, responses, token)
        except SwitchyardError as error:
            code, text, data = error_of(error)
            self.later(asker.answer(Answer(code=code, message=text, data=data)))

    def _take_cancel(self, sender: str, message: bytes) -> None:
        parked = self._parked.get(message)
        if parked is not None:
            parked.cancel()

    def _take_said(self, sender: str, message: bytes) -> None:
        ticket, said = msgspec.msgpack.decode(message, type=tuple[str, bytes])
        here = self._asked_elsewhere.get(ticket)
        if here is not None:
            self.later(here.forward(orjson.loads(said)))

    def _take_answer(self, sender: str, message: bytes) -> None:
        ticket, raw, body = msgspec.msgpack.decode(message, type=tuple[str, bytes, bytes])
        here = self._asked_elsewhere.pop(ticket, None)
        if here is None:
            return
        if body:
            (code, text, data), status = orjson.loads(body)
            answer = Answer(code=code, message=text, data=data, status=status)
        else:
            answer = Answer(result={}, raw=raw)  # what goes on is the raw text
        here.let_go()
        self.later(here.answer(answer))

    def admit(self, parked: Parked, size: int) -> None:
        """Take a request of a server's into account; the call becomes known with its first. Raises Overloaded."""
        held = 0 if parked.name else parked.request_bytes
        if parked.size + size > CALL_BYTES or not self._bytes.fits(parked.owner, size + held):
            raise Overloaded("The server asks for more than can be kept for the client.", rule="parked-bytes")
        if not parked.name:
            if self._closing or len(self._parked) >= PARKED:
                raise Overloaded("Too many calls wait for their clients here.", rule="parked-calls")
            if self._of_owner[parked.owner] >= PARKED // SHARE:
                raise Overloaded(
                    "This key has as many calls that wait for their client as one may have.", rule="parked-calls-per-key"
                )
            parked.name = secrets.token_bytes(16)
            self._parked[parked.name] = parked
            self._of_owner[parked.owner] += 1
        parked.size += size
        self._bytes.add(parked.owner, size + held)

    def give_back(self, parked: Parked, size: int) -> None:
        """So much is kept of the call no more: a request has its answer, its client has what was said."""
        parked.size -= size
        self._bytes.give_back(parked.owner, size)

    @staticmethod
    def may_hold(parked: Parked, size: int) -> bool:
        """Tell whether something that was said would fit, were all gone that was said before it."""
        return parked.size - parked.kept + size <= CALL_BYTES

    def fits(self, parked: Parked, size: int, *, answer: bool = False) -> bool:
        """Tell whether so much more of a call may be kept now."""
        return (answer or parked.size + size <= CALL_BYTES) and self._bytes.fits(parked.owner, size)

    def hold(self, parked: Parked, size: int, *, answer: bool = False) -> bool:
        """Keep so much more of a call, if it fits."""
        if not self.fits(parked, size, answer=answer):
            return False
        parked.size += size
        self._bytes.add(parked.owner, size)
        return True

    def forget(self, parked: Parked) -> None:
        """The call has ended and its client has its answer, or nobody waits for one."""
        parked.free()
        if self._parked.pop(parked.name, None) is not None:
            self._bytes.give_back(parked.owner, parked.request_bytes)
            self._of_owner[parked.owner] -= 1
            if not self._of_owner[parked.owner]:
                del self._of_owner[parked.owner]

    def rests(self, call: Call) -> None:
        """A call waits for its client: it is none of the calls in flight meanwhile."""
        self._plane.pipeline.rest(call)

    def resumed(self, call: Call) -> None:
        """A call goes on."""
        self._plane.pipeline.go_on(call)

    def note(self, call: Call, method: str, answered: str) -> None:
        """Record that a server asked a client something."""
        self._plane.recorder.asked(call, method, answered)

    def seal(self, parked: Parked) -> str:
        """Return the state that brings the client back to the call."""
        name = self._plane.bus.worker.encode() + parked.name
        sealed = self._keyring.seal(name, associated=_associated(parked.call))
        return PREFIX + base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside, to its end."""
        self._background.start(work)

    def close(self) -> None:
        """End every parked call, and park none any more."""
        self._closing = True
        for parked in tuple(self._parked.values()):
            parked.cancel(NotReady("Switchyard is stopping; call again.", retry_after=1))

    def _open(self, call: Call) -> tuple[str, bytes]:
        """Return the process and the name in it that a call's state speaks of. Raises ValidationFailed."""
        state = str(call.params.get("requestState"))[len(PREFIX) :]
        call.name = str(call.params.get("uri" if call.method == "resources/read" else "name"))
        try:
            opened = self._keyring.open(
                base64.urlsafe_b64decode(state[:4096] + "=" * (-len(state) % 4)), associated=_associated(call)
            )
        except (DecryptionFailed, binascii.Error, ValueError):
            raise ValidationFailed("params.requestState is not one that you were given for this request.") from None
        return opened[:WORKER].decode(), opened[WORKER:]


def _associated(call: Call) -> bytes:
    """Bind a state to its caller and to the request, which must be the same each time."""
    asked = hashlib.sha256(dumps(call.params.get("arguments"))).hexdigest()
    principal = call.caller.principal
    parts = (principal.kind, principal.id, call.target.tenant_id, call.target.slug, call.method, call.name, asked)
    return "\x00".join(parts).encode()
