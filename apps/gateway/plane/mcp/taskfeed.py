"""The tasks that one client's stream tells of (`subscriptions/listen` with `taskIds`, SEP-2663).

Each server among them is asked once, on a stream of its own that lives as long as the client's: so what a server tells, or refuses,
is that client's affair alone, and a client that reads slowly slows its own servers' streams and nobody else's. What is told goes
the way of an answer to `tasks/get`, since it may hold a result: asked of the policy, shown to the hooks, recorded before it leaves.
"""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from apps.common.errors import SwitchyardError, UpstreamTimeout, ValidationFailed
from apps.common.jsontext import dumps
from apps.gateway.plane.call import Call, Json
from apps.gateway.plane.jsonrpc import INVALID_PARAMS
from apps.gateway.plane.mcp.envelope import Envelope
from apps.gateway.plane.mcp.revisions import META_SUBSCRIPTION, MODERN
from apps.gateway.plane.mcp.streams import Stream
from apps.gateway.plane.mcp.tasks import LISTEN, NEWS, require_declared
from apps.gateway.plane.views import current_caller, find_target
from apps.servers.domain import ServerFacts
from apps.servers.transports.base import LISTEN as SUBSCRIBE
from apps.servers.transports.base import UpstreamAnswer, UpstreamRequest

if TYPE_CHECKING:
    from apps.gateway.plane.mcp.visit import Visit

EACH = 256
"""Tasks that one stream may tell of."""
ACKNOWLEDGE_SECONDS = 20.0
"""For a server to say which tasks it tells of."""
LISTEN_SECONDS = 24 * 3600.0
EVENT_BYTES = 4 * 1024 * 1024
"""Largest notification: it may hold a task's result."""
PAUSE = 0.05
"""Seconds after each notification of a server's: a flood of them waits at the server."""
_AT_ONCE = 8
_ACKNOWLEDGED = "notifications/subscriptions/acknowledged"


def wanted_tasks(wanted: Json, envelope: Envelope) -> list[str]:
    """Return the handles in a filter, each once. Raises ValidationFailed, and MissingCapability for a client without the extension."""
    handles = wanted.get("taskIds")
    if handles is None:
        return []
    require_declared(envelope.capabilities)
    if not isinstance(handles, list) or not all(isinstance(one, str) for one in handles) or len(handles) > EACH:
        raise ValidationFailed(f"params.notifications.taskIds must be a list of at most {EACH} task ids.")
    return list(dict.fromkeys(handles))


class _Source:
    """One server's part of the stream."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        """The server's id of a task → the client's handle of it."""
        self.stands: asyncio.Task[frozenset[str]] | None = None
        self.listening: asyncio.Task[UpstreamAnswer] | None = None


class TaskFeed:
    """Tells one client of its tasks."""

    def __init__(self, visit: "Visit", stream: Stream, envelope: Envelope, handles: list[str]) -> None:
        self._visit = visit
        self._stream = stream
        self._envelope = envelope
        self._handles = handles
        self._honoured: set[str] = set()
        self._sources: dict[str, _Source] = {}
        self._may_tell = asyncio.Event()

    async def begin(self) -> list[str]:
        """Ask the servers, each task being asked of the policy and recorded; return the handles of the tasks that are told of."""
        calls = [self._wish(handle) for handle in self._handles]
        pipeline = self._visit.plane.pipeline
        for call, handle in zip(calls, self._handles, strict=True):
            try:
                pipeline.authorise(call)
            except SwitchyardError:
                continue  # running it refuses it in the same words, and records that
            assert call.server is not None
            self._sources.setdefault(call.server.facts.id, _Source()).ids[call.task] = handle
        for start in range(0, len(calls), _AT_ONCE):
            await asyncio.gather(*(pipeline.run(call) for call in calls[start : start + _AT_ONCE]))
        return [handle for handle in self._handles if handle in self._honoured]

    def tell(self) -> None:
        """The client has our word on what is honoured: it may be told now."""
        self._may_tell.set()

    async def end(self) -> None:
        """Leave the servers alone again."""
        tasks = [task for source in self._sources.values() for task in (source.stands, source.listening) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _call(self, handle: str, method: str) -> Call:
        call = self._visit.call(method, {"taskId": handle}, modern=True)
        call.capabilities, call.client_info = self._envelope.capabilities, self._envelope.client_info
        return call

    def _wish(self, handle: str) -> Call:
        """Return the call that asks a server, together with those for its other tasks, to tell of this one."""
        call = self._call(handle, LISTEN)

        async def send(facts: ServerFacts, request: UpstreamRequest) -> UpstreamAnswer:
            source = self._sources[facts.id]
            if source.stands is None:
                source.stands = asyncio.create_task(self._open(source, facts, request))
            if call.task not in await asyncio.shield(source.stands):
                error = {"code": INVALID_PARAMS, "message": "The server does not tell of this task."}
                return UpstreamAnswer(None, error, MODERN, 0)
            self._honoured.add(handle)
            return UpstreamAnswer({}, None, MODERN, 0)

        call.send = send
        return call

    async def _open(self, source: _Source, facts: ServerFacts, request: UpstreamRequest) -> frozenset[str]:
        """Open one server's stream; return the ids of the tasks that it tells of."""
        acknowledged: asyncio.Future[frozenset[str]] = asyncio.get_running_loop().create_future()

        async def on_message(message: Json) -> None:
            params = message.get("params")
            if not isinstance(params, dict):
                return
            if message.get("method") == _ACKNOWLEDGED:
                if not acknowledged.done():
                    acknowledged.set_result(_task_ids(params))
            elif message.get("method") == NEWS:
                await self._pass_on(source, params)

        upstream = await self._visit.plane.upstreams.get(facts, request.user)
        params: Json = {**request.params, "notifications": {"taskIds": list(source.ids)}}
        del params["taskId"]
        listening = source.listening = asyncio.create_task(
            upstream.call(
                replace(
                    request,
                    method=SUBSCRIBE,
                    params=params,
                    timeout=LISTEN_SECONDS,
                    max_bytes=EVENT_BYTES,
                    on_message=on_message,
                )
            )
        )
        waiting: set[asyncio.Future[Any]] = {acknowledged, listening}
        done, _ = await asyncio.wait(waiting, timeout=ACKNOWLEDGE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            listening.cancel()
            raise UpstreamTimeout(f"The server did not say within {ACKNOWLEDGE_SECONDS:g} s which tasks it tells of.")
        if acknowledged.done():
            told = acknowledged.result() & source.ids.keys()
            if told:
                listening.add_done_callback(self._ended)
            else:
                listening.cancel()
            return told
        listening.result()  # raises what went wrong
        return frozenset()

    def _ended(self, listening: "asyncio.Task[UpstreamAnswer]") -> None:
        """A server's stream has ended: end the client's, so that it looks after its tasks and asks again."""
        if not listening.cancelled():
            listening.exception()
        self._stream.closed.set()

    async def _pass_on(self, source: _Source, params: Json) -> None:
        """Tell the client of a task, under its handle; where it may no longer be told, or cannot be, its stream ends."""
        id = params.get("taskId")
        handle = source.ids.get(id) if isinstance(id, str) else None
        await self._may_tell.wait()
        if handle is None or handle not in self._honoured or self._stream.closed.is_set():
            return
        told = await self._told(handle, params)
        if told is None:
            self._stream.closed.set()
            return
        meta = told.get("_meta")
        told["_meta"] = {**(meta if isinstance(meta, dict) else {}), META_SUBSCRIPTION: self._stream.subscription}
        await self._visit.reply.event(dumps({"jsonrpc": "2.0", "method": NEWS, "params": told}))
        await asyncio.sleep(PAUSE)

    async def _told(self, handle: str, params: Json) -> Json | None:
        """Return what the client is told, by the rights of now; None when it may not be told."""
        visit = self._visit
        snapshot = visit.plane.store.current
        caller = current_caller(snapshot, self._stream.caller)
        if caller is None:
            return None
        try:
            visit.renew(snapshot, caller, find_target(snapshot, caller, self._stream.slug))
        except SwitchyardError:
            return None
        call = self._call(handle, NEWS)

        async def send(facts: ServerFacts, request: UpstreamRequest) -> UpstreamAnswer:
            return UpstreamAnswer(params, None, MODERN, 0)

        call.send = send
        answer = await visit.plane.pipeline.run(call)
        if answer.result is None:
            return None
        return {name: value for name, value in answer.result.items() if name != "resultType" or name in params}


def _task_ids(params: Json) -> frozenset[str]:
    said = params.get("notifications")
    ids = said.get("taskIds") if isinstance(said, dict) else None
    return frozenset(id for id in ids if isinstance(id, str)) if isinstance(ids, list) else frozenset()
