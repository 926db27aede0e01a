"""The event stream of one request in the initialize era: notifications, the server's own requests, the answer; resumed when it breaks."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from apps.common.errors import UpstreamDied
from apps.common.http import HttpResponse
from apps.servers.transports.base import Json, UpstreamAnswer, UpstreamRequest
from apps.servers.transports.floods import Flooded
from apps.servers.transports.http_wire import FINISH_SECONDS, HttpWire, MessageStream
from apps.servers.transports.memory import Hold
from apps.servers.transports.wire import answer_of, of_a_call, own_progress, refuse_request

if TYPE_CHECKING:
    from apps.servers.transports.http_legacy import LegacyHttp, LegacySession

RESUMES = 100
"""How often one answer's broken stream is taken up again."""


class CallStream:
    """The event stream of one request: notifications, the server's own requests, the answer; resumed when it breaks."""

    def __init__(self, http: "LegacyHttp", wire: HttpWire, session: "LegacySession", request: UpstreamRequest, id: int) -> None:
        self._http = http
        self._session = session
        self._request = request
        self._id = id
        self._stream = MessageStream(request.max_bytes, wire)
        self._asked: dict[Any, asyncio.Task[None]] = {}

    async def read(self, response: HttpResponse) -> UpstreamAnswer:
        """Return the answer. Raises UpstreamDied when the stream breaks and cannot be resumed."""
        stream = self._stream
        try:
            for _ in range(RESUMES):
                try:
                    while (messages := await stream.messages(response)) is not None:
                        for message, raw, hold in messages:
                            answer = await self._take(message, raw, hold)
                            if answer is not None:
                                response.finish_soon(FINISH_SECONDS)
                                return answer
                except UpstreamDied:
                    if stream.last_id is None:
                        raise
                if stream.last_id is None:
                    break
                await asyncio.sleep(min(stream.retry if stream.retry is not None else 500, 30_000) / 1000)
                response = await self._http.resume(self._session, stream.last_id)
            raise UpstreamDied("The server ended the stream before its answer.")
        except BaseException as error:
            response.close()
            if isinstance(error, Flooded):
                raise error.plain() from None
            raise
        finally:
            for task in self._asked.values():
                task.cancel()

    async def _take(self, message: Any, raw: bytes, hold: Hold | None) -> UpstreamAnswer | None:
        """Deal with one message; return the answer when it is that."""
        if type(message) is not dict or "method" not in message:
            return answer_of(message, self._id, self._session.revision, self._stream.size, raw, hold)
        if "id" in message:
            self._ask(message)
        elif message["method"] == "notifications/cancelled":
            params = message.get("params")
            key = params.get("requestId") if type(params) is dict else None
            asked = self._asked.pop(key, None) if isinstance(key, str | int) else None
            if asked is not None:
                asked.cancel()
        elif self._request.on_message is not None and of_a_call(message):
            await self._request.on_message(own_progress(message))
        else:
            self._http.take(self._session, message)
        return None

    def _ask(self, message: Json) -> None:
        """Answer a server's request beside the stream, so that a slow answer does not hold up what comes after it."""
        ask = self._request.on_request
        if ask is None or message["method"] == "ping" or len(self._asked) >= 100:
            self._http.answer_request(self._session, message, refuse_request(message))
            return

        async def work() -> None:
            with suppress(Flooded):
                self._http.answer_request(self._session, message, await ask(message))

        key = message["id"] if isinstance(message["id"], str | int) else str(message["id"])
        task = asyncio.get_running_loop().create_task(work())
        self._asked[key] = task
        task.add_done_callback(lambda _: self._asked.pop(key, None))
