"""One ordered two-way channel (stdio, the old HTTP+SSE) shared by many callers: ids, answers, notifications.

A message of the server's can be tied to a call by its progress token or not at all: log messages go to the one call
in flight or nowhere, and requests of the server are refused (ping is answered) unless exactly one call could have
caused them and it takes them.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from apps.common.errors import UpstreamDied, UpstreamError, UpstreamProtocolError, UpstreamTooLarge
from apps.servers.transports.announcements import Announcements
from apps.servers.transports.base import Json, UpstreamAnswer, UpstreamRequest
from apps.servers.transports.wire import answer_of, own_progress, parse, refuse_request, reply_body


class Pending:
    """A request whose answer is awaited."""

    __slots__ = ("asked", "done", "id", "news", "request", "revision", "size", "wake")

    def __init__(self, id: int, request: UpstreamRequest, revision: str, done: asyncio.Future[UpstreamAnswer]) -> None:
        self.id = id
        self.request = request
        self.revision = revision
        self.done = done
        self.size = 0
        self.news: deque[Json] = deque()
        self.wake: asyncio.Future[None] | None = None
        self.asked: set[asyncio.Task[None]] = set()

    @property
    def settled(self) -> bool:
        """Return whether an answer or an error has come (a cancelled caller is neither)."""
        return self.done.done() and not self.done.cancelled()

    def fail(self, error: UpstreamError) -> None:
        """Let the caller have `error`."""
        if not self.done.done():
            self.done.set_exception(error)
            self.rouse()

    def rouse(self) -> None:
        """Wake the caller: there is news, or the end."""
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)


class Channel:
    """The requests in flight on one channel. `send` writes a message without waiting; it may raise UpstreamError."""

    def __init__(self, send: Callable[[bytes], None], announcements: Announcements) -> None:
        self._send = send
        self._announcements = announcements
        self._pending: dict[int, Pending] = {}
        self._id = 0
        self.ended: UpstreamError | None = None

    def next_id(self) -> int:
        """Return an id that this channel has not used yet."""
        self._id += 1
        return self._id

    @property
    def in_flight(self) -> int:
        """Return the number of requests without an answer."""
        return len(self._pending)

    @property
    def largest(self) -> int:
        """Return the largest answer, in bytes, that anybody waits for."""
        return max((pending.request.max_bytes for pending in self._pending.values()), default=0)

    def open(self, id: int, request: UpstreamRequest, revision: str) -> Pending:
        """Take note of a request that is about to be sent; `close` must follow."""
        if self.ended is not None:
            raise type(self.ended)(self.ended.detail)
        pending = Pending(id, request, revision, asyncio.get_running_loop().create_future())
        self._pending[id] = pending
        return pending

    def close(self, pending: Pending) -> None:
        """Forget a request; what still comes for it is dropped."""
        self._pending.pop(pending.id, None)
        if pending.done.done() and not pending.done.cancelled():
            pending.done.exception()
        for task in pending.asked:
            task.cancel()

    async def wait(self, pending: Pending) -> UpstreamAnswer:
        """Return the answer, after handing on every notification that came before it."""
        on_message = pending.request.on_message
        if on_message is None:
            return await pending.done
        while True:
            while pending.news:
                await on_message(pending.news.popleft())
            if pending.done.done():
                return pending.done.result()
            pending.wake = asyncio.get_running_loop().create_future()
            await pending.wake

    def feed(self, raw: bytes) -> None:
        """Take one message as it came; raise UpstreamProtocolError for what is no JSON-RPC message."""
        value = parse(raw)
        size = len(raw)
        if type(value) is list:
            for part in value:
                self._take(part, size)
        else:
            self._take(value, size)

    def _take(self, message: Any, size: int) -> None:
        """Give one message to whom it belongs."""
        if type(message) is not dict:
            raise UpstreamProtocolError("The server's message is not a JSON object.")
        if "method" not in message:
            self._answer(message, size)
        elif "id" in message:
            self._ask(message)
        else:
            self._notify(message, size)

    def _answer(self, message: Json, size: int) -> None:
        """Settle the request that this answers; an unknown id is the late answer to a cancelled one, or rubbish."""
        id = message.get("id")
        pending = self._pending.get(id) if type(id) is int else None
        if pending is None and type(id) is str and id.isascii() and id.isdigit() and len(id) < 16:
            pending = self._pending.get(int(id))
            message["id"] = int(id)
        if pending is None:
            if id is None and "error" in message and len(self._pending) == 1:
                pending = next(iter(self._pending.values()))
            else:
                return
        if pending.done.done():
            return
        pending.size += size
        if pending.size > pending.request.max_bytes:
            pending.fail(UpstreamTooLarge(f"The answer has more than {pending.request.max_bytes} bytes."))
            return
        try:
            pending.done.set_result(answer_of(message, pending.id, pending.revision, pending.size))
        except UpstreamProtocolError as error:
            pending.done.set_exception(error)
        pending.rouse()

    def _notify(self, message: Json, size: int) -> None:
        """Hand a notification to its call, or to the announcements."""
        method = message["method"]
        pending: Pending | None = None
        if method == "notifications/progress":
            params = message.get("params")
            token = params.get("progressToken") if type(params) is dict else None
            pending = self._pending.get(token) if type(token) is int else None
        elif method == "notifications/message":
            pending = next(iter(self._pending.values())) if len(self._pending) == 1 else None
        elif method == "notifications/cancelled":
            return
        else:
            self._announcements.take(message)
            return
        if pending is None or pending.request.on_message is None or pending.done.done():
            return
        pending.size += size
        if pending.size > pending.request.max_bytes:
            pending.fail(UpstreamTooLarge(f"The answer has more than {pending.request.max_bytes} bytes."))
            return
        pending.news.append(own_progress(message))
        pending.rouse()

    def _ask(self, message: Json) -> None:
        """Answer a request of the server's."""
        pending = next(iter(self._pending.values())) if len(self._pending) == 1 else None
        ask = pending.request.on_request if pending is not None else None
        if pending is None or ask is None or message["method"] == "ping" or len(pending.asked) >= 100:
            self._reply(message, refuse_request(message))
            return

        async def work() -> None:
            self._reply(message, await ask(message))

        task = asyncio.get_running_loop().create_task(work())
        pending.asked.add(task)
        task.add_done_callback(pending.asked.discard)

    def _reply(self, message: Json, outcome: Json) -> None:
        """Send the outcome of a server's request; a channel that has ended takes none."""
        try:
            self._send(reply_body(message.get("id"), outcome))
        except UpstreamError:
            return

    def end(self, error: UpstreamError) -> None:
        """Fail everything in flight, and refuse what comes."""
        self.ended = error
        for pending in list(self._pending.values()):
            failure = UpstreamDied(error.detail) if not isinstance(error, UpstreamDied) else type(error)(error.detail)
            failure.stderr_tail = error.stderr_tail
            pending.fail(failure)

    def fail(self, ids: list[int], error: UpstreamError) -> None:
        """Fail the requests with these ids; all of them when there is none."""
        for pending in [self._pending[id] for id in ids if id in self._pending] or list(self._pending.values()):
            pending.fail(type(error)(error.detail))
