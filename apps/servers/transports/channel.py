"""One ordered two-way channel (stdio, the old HTTP+SSE) shared by many callers: ids, answers, notifications.

A message of the server's can be tied to a call by its progress token or not at all: log messages, and notifications that
MCP does not know, go to the one call in flight or nowhere. Whose a request of the server's is, `LooseQuestions` says; ping is answered.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from apps.common.errors import UpstreamDied, UpstreamError, UpstreamProtocolError, UpstreamTooLarge
from apps.servers.transports.announcements import Announcements
from apps.servers.transports.base import LISTEN, Json, UpstreamAnswer, UpstreamRequest
from apps.servers.transports.floods import Flooded, Pace
from apps.servers.transports.loose_questions import LooseQuestions
from apps.servers.transports.memory import SMALL, Hold, load_large
from apps.servers.transports.wire import (
    ENDS,
    META_SUBSCRIPTION,
    answer_of,
    batch_of,
    ids_at,
    of_a_call,
    own_progress,
    parse,
    refuse_request,
    reply_body,
    unasked,
)

NEWS_BYTES = 1024 * 1024
"""Notifications of one call that its caller has not taken yet; beyond it the oldest are dropped, as progress may be."""
LEAST = 100
"""Bytes that a notification counts for at least, so that their number is bounded too."""
MOST_REFUSED = 100
"""Requests of a server's in one call whose refusal is noted."""
NO_CALLS = frozenset((LISTEN, "resources/subscribe", "resources/unsubscribe", "logging/setLevel", "ping"))
"""Requests during which a server says nothing of its own accord: they do not make it doubtful whose a message is."""
STRAYS = 20_000
"""Messages in 10 s that belong to no call: announcements, and answers to calls that are over."""


class Pending:
    """A request whose answer is awaited."""

    __slots__ = ("asked", "done", "id", "news", "news_size", "request", "revision", "size", "wake")

    def __init__(self, id: int, request: UpstreamRequest, revision: str, done: asyncio.Future[UpstreamAnswer]) -> None:
        self.id = id
        self.request = request
        self.revision = revision
        self.done = done
        self.size = 0
        self.news: deque[tuple[Json, int]] = deque()
        self.news_size = 0
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

    def tell(self, message: Json, size: int) -> None:
        """Keep a notification for the caller; what it has left lying for long gives way."""
        size = max(size, LEAST)
        self.news.append((message, size))
        self.news_size += size
        while self.news_size > NEWS_BYTES and len(self.news) > 1:
            self.news_size -= self.news.popleft()[1]
        self.rouse()

    def next(self) -> Json:
        """Return the oldest notification that was kept."""
        message, size = self.news.popleft()
        self.news_size -= size
        return message

    def rouse(self) -> None:
        """Wake the caller: there is news, or the end."""
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)


class Channel:
    """The requests in flight on one channel. `reply` writes the answer to a request of the server's without waiting; it
    may raise UpstreamError, and Flooded when too many answers wait to be taken. `asked` as in `LooseQuestions`.
    """

    def __init__(
        self,
        reply: Callable[[bytes], None],
        announcements: Announcements,
        asked: Callable[[list[UpstreamRequest]], None] = lambda requests: None,
    ) -> None:
        self._write_reply = reply
        self._strays = Pace(STRAYS, "messages that belong to no call")
        self._announcements = announcements
        self._pending: dict[int, Pending] = {}
        self._id = 0
        self._loose = LooseQuestions(self._calls, self._hand, asked)
        self._asked: dict[str | int, asyncio.Task[None]] = {}
        """Requests of the server's that its clients have to answer."""
        self.standing: dict[int, Callable[[Json], None]] = {}
        """Requests that stay open and are no call, each with what takes the end."""
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
        if pending.request.method not in NO_CALLS:
            answered = pending.settled and pending.done.exception() is None
            with suppress(Flooded):
                self._loose.ended(pending.id, pending.request, answered=answered)
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
                await on_message(pending.next())
            if pending.done.done():
                return pending.done.result()
            pending.wake = asyncio.get_running_loop().create_future()
            await pending.wake

    def feed(self, raw: bytes) -> None:
        """Take one message as it came; raise UpstreamProtocolError for what is no JSON-RPC message, Flooded for one too many.

        One that holds too many values fails the call that it answers.
        """
        try:
            value = parse(raw)
        except UpstreamTooLarge as error:
            self.fail(ids_at(raw[:ENDS], raw[-ENDS:]), error)
        else:
            self._give(value, raw, None)

    async def take(self, raw: bytes) -> None:
        """`feed`, for messages of any size: a large one waits for room in memory; without room it fails the call it answers."""
        if len(raw) <= SMALL:
            self.feed(raw)
            return
        try:
            value, hold = await load_large(raw, self)
        except UpstreamTooLarge as error:
            self.fail(ids_at(raw[:ENDS], raw[-ENDS:]), error)
        else:
            self._give(value, raw, hold)

    def _give(self, value: Any, raw: bytes, hold: Hold | None) -> None:
        """Deal with one message, or a batch of them."""
        size = len(raw)
        if type(value) is not list:
            self._take(value, size, raw, hold)
            return
        for part in batch_of(value):
            self._take(part, size, b"", hold)

    def _take(self, message: Any, size: int, raw: bytes, hold: Hold | None) -> None:
        """Give one message to whom it belongs."""
        if type(message) is not dict:
            raise UpstreamProtocolError("The server's message is not a JSON object.")
        if "method" not in message:
            self._answer(message, size, raw, hold)
        elif "id" in message:
            self._ask(message)
        else:
            self._notify(message, size)

    def _answer(self, message: Json, size: int, raw: bytes, hold: Hold | None) -> None:
        """Settle the request that this answers; an unknown id is the late answer to one that was given up, or rubbish."""
        id = message.get("id")
        pending = self._pending.get(id) if type(id) is int else None
        if pending is None and type(id) is str and id.isascii() and id.isdigit() and len(id) < 16:
            pending = self._pending.get(int(id))
            message["id"] = int(id)
        if pending is None:
            if type(id) is int and id in self.standing:
                self.standing.pop(id)(message)
                return
            if id is None and "error" in message and len(self._pending) == 1:
                pending = next(iter(self._pending.values()))
            else:
                if type(id) is int:
                    self._loose.answered_late(id)
                self._strays.spend(1)
                return
        if pending.done.done():
            return
        pending.size += size
        if pending.size > pending.request.max_bytes:
            pending.fail(UpstreamTooLarge(f"The answer has more than {pending.request.max_bytes} bytes."))
            return
        try:
            pending.done.set_result(answer_of(message, pending.id, pending.revision, pending.size, raw, hold))
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
            pending = self._only()
        elif method == "notifications/cancelled":
            self._take_back(message)
            return
        else:
            pending = self._subscription(message) or (self._only() if of_a_call(message) else None)
        if pending is None or pending.request.on_message is None or pending.done.done():
            self._strays.spend(1 + size // 1000)
            self._announcements.take(message)
            return
        if pending.request.method == LISTEN:
            self._strays.spend(1 + size // 1000)
            if pending.news and pending.news_size + size > NEWS_BYTES:  # dropping one would leave a wrong picture
                pending.fail(UpstreamTooLarge("The server tells of changes faster than they are taken."))
                return
        else:
            pending.size += size
        if pending.size > pending.request.max_bytes:
            pending.fail(UpstreamTooLarge(f"The answer has more than {pending.request.max_bytes} bytes."))
            return
        pending.tell(own_progress(message), size)

    def _only(self) -> Pending | None:
        """Return the call in flight, where there is one alone."""
        found: Pending | None = None
        for pending in self._pending.values():
            if pending.request.method in NO_CALLS:
                continue
            if found is not None:
                return None
            found = pending
        return found

    def _calls(self) -> list[Pending]:
        """Return the calls in flight that a request of the server's may belong to."""
        return [pending for pending in self._pending.values() if pending.request.method not in NO_CALLS]

    def _subscription(self, message: Json) -> Pending | None:
        """Return the `subscriptions/listen` in flight that a notification names."""
        params = message.get("params")
        meta = params.get("_meta") if type(params) is dict else None
        id = meta.get(META_SUBSCRIPTION) if type(meta) is dict else None
        pending = self._pending.get(id) if type(id) is int else None
        return pending if pending is not None and pending.request.method == LISTEN else None

    def _ask(self, message: Json) -> None:
        """Answer a request of the server's, or have it answered."""
        if message["method"] == "ping":
            self._reply(message, refuse_request(message))
        else:
            self._loose.take(message)

    def _take_back(self, message: Json) -> None:
        """The server does not wait for the answer to a request of its own any more."""
        self._strays.spend(1)
        params = message.get("params")
        id = params.get("requestId") if type(params) is dict else None
        if isinstance(id, str | int):
            self._loose.take_back(id)
            asked = self._asked.get(id)
            if asked is not None:
                asked.cancel()

    def _hand(self, message: Json, pending: Pending | None) -> None:
        """Have a request of the server's answered by the caller of its call; without one it is refused."""
        ask = pending.request.on_request if pending is not None else None
        if pending is None or ask is None or len(pending.asked) >= 100:
            refusal = refuse_request(message)
            if pending is not None and pending.request.unasked and len(pending.request.refused) < MOST_REFUSED:
                refusal = unasked(pending.request, message)
            self._reply(message, refusal)
            return

        async def work() -> None:
            with suppress(Flooded):
                self._reply(message, await ask(message))

        task = asyncio.get_running_loop().create_task(work())
        pending.asked.add(task)
        task.add_done_callback(pending.asked.discard)
        id = message["id"]
        if isinstance(id, str | int):
            self._asked[id] = task
            task.add_done_callback(lambda _: self._asked.pop(id, None))

    def _reply(self, message: Json, outcome: Json) -> None:
        """Send the outcome of a server's request; a channel that has ended takes none. Raises Flooded."""
        try:
            self._write_reply(reply_body(message.get("id"), outcome))
        except Flooded:
            raise
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
