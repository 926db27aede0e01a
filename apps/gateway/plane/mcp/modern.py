"""The modern front (2026-07-28): one self-contained request per POST."""

import asyncio
from typing import Any

from apps.common.errors import InvalidRequest, MethodNotFound, ValidationFailed
from apps.common.jsontext import dumps
from apps.gateway.plane.call import Call, Json
from apps.gateway.plane.http import Headers, Receive
from apps.gateway.plane.jsonrpc import MAX_ID, result_bytes, valid_id
from apps.gateway.plane.mcp.answers import cut_short, modern_answer
from apps.gateway.plane.mcp.envelope import Envelope, EnvelopeError, client_label, read_envelope
from apps.gateway.plane.mcp.lists import LISTS
from apps.gateway.plane.mcp.parked import Parked
from apps.gateway.plane.mcp.parking import PREFIX
from apps.gateway.plane.mcp.revisions import META_SUBSCRIPTION
from apps.gateway.plane.mcp.streams import CHANGES, Stream
from apps.gateway.plane.mcp.taskfeed import TaskFeed, wanted_tasks
from apps.gateway.plane.mcp.tasks import METHODS as TASK_METHODS
from apps.gateway.plane.mcp.visit import CALLS, Visit
from apps.gateway.plane.mcp.watching import EACH
from apps.servers.domain import ServerFacts
from apps.servers.transports.base import UpstreamAnswer, UpstreamRequest, takes_requests

_AT_ONCE = 8
"""Subscriptions of one stream that are made at the same time."""
_FILTERS = {"tools": "toolsListChanged", "prompts": "promptsListChanged", "resources": "resourcesListChanged"}


async def serve_modern(visit: Visit, message: Json, headers: Headers, receive: Receive) -> None:
    """Answer one modern message. Raises a typed error for one that is refused before it is a call."""
    reply, id = visit.reply, message.get("id")
    method, params = message.get("method"), message.get("params")
    if not isinstance(method, str):
        raise InvalidRequest("A modern POST carries one request or notification, with a method.")
    if "id" not in message:
        await reply.accept()
        return
    if not valid_id(id):
        raise InvalidRequest(f"id must be an integer or a string of at most {MAX_ID} characters.")
    try:
        envelope = read_envelope(headers, method, params)
    except EnvelopeError as error:
        raise error.typed() from None
    assert isinstance(params, dict)
    visit.revision = envelope.revision
    visit.client = client_label(envelope.client_info)
    visit.client_info, visit.capabilities = envelope.client_info, envelope.capabilities
    if method in LISTS:
        await visit.list(id, method, params, modern=True)
    elif method == "server/discover":
        visit.note("session.discovered")
        await reply.finish(200, result_bytes(id, visit.plane.lists.discover(visit.snapshot, visit.caller, visit.target)))
    elif method in CALLS or method in TASK_METHODS:
        call = visit.call(method, params, modern=True)
        call.client_info = envelope.client_info
        call.capabilities = envelope.capabilities
        call.log_level = envelope.log_level
        call.param_headers = envelope.param_headers
        await _call(visit, id, call, receive)
    elif method == "subscriptions/listen":
        await _listen(visit, id, params, envelope, receive)
    else:
        raise MethodNotFound(f"Method not found: {method[:100]}")


async def _call(visit: Visit, id: Any, call: Call, receive: Receive) -> None:
    """Run a call to its answer; one whose server asks something in the middle may be parked (see `parking`)."""
    state = call.params.get("requestState")
    if isinstance(state, str) and state.startswith(PREFIX):
        await visit.plane.parking.resume(visit, id, call.method, call.params, receive)
        return
    parked = None
    if takes_requests(call.capabilities):
        parked = Parked(visit.plane.parking, visit, id, call)
    try:
        answer = await visit.run(call, receive, leaving_cancels=True)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if parked is None or not parked.ended or task is None:
            if parked is not None:
                visit.plane.parking.forget(parked)
            if not visit.plane.stopping or task is None:
                raise
            await visit.reply.finish(*modern_answer(id, cut_short(call)))
        task.uncancel()
        return
    if parked is not None and parked.name:
        if answer is not None:
            await parked.finish(answer)
        else:  # its client left before it was told that the call waits
            visit.plane.parking.forget(parked)
    elif answer is not None:
        await visit.reply.finish(*modern_answer(id, answer))


async def _listen(visit: Visit, id: Any, params: Json, envelope: Envelope, receive: Receive) -> None:
    """Serve `subscriptions/listen`: acknowledge the part that is honoured, then tell of changes until the client leaves."""
    wanted = params.get("notifications")
    if not isinstance(wanted, dict):
        raise ValidationFailed("params.notifications must be an object that says which changes are wanted.")
    uris = wanted.get("resourceSubscriptions", [])
    if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris) or len(uris) > EACH:
        raise ValidationFailed(f"params.notifications.resourceSubscriptions must be a list of at most {EACH} URIs.")
    handles = wanted_tasks(wanted, envelope)
    kinds = tuple(kind for kind in CHANGES if wanted.get(_FILTERS[kind]) is True)
    with visit.plane.streams.place(visit.caller):
        await _tell_changes(visit, id, kinds, list(dict.fromkeys(uris)), handles, envelope, receive)
    ended = {"resultType": "complete", "_meta": {META_SUBSCRIPTION: id}}
    await visit.reply.finish_stream(result_bytes(id, dumps(ended)))


async def _tell_changes(
    visit: Visit, id: Any, kinds: tuple[str, ...], uris: list[str], handles: Any, envelope: Envelope, receive: Receive
) -> None:
    honoured: Json = {_FILTERS[kind]: True for kind in kinds}
    stream = Stream(visit.caller, visit.target.slug, kinds, visit.reply, subscription=id)
    watched: dict[str, str] = {}
    feed = TaskFeed(visit, stream, envelope, handles) if handles else None
    try:
        if feed is not None:
            honoured["taskIds"] = await feed.begin()
        if uris:
            await _watch(visit, stream, uris, watched, envelope.capabilities)
            honoured["resourceSubscriptions"] = list(watched)
        await visit.reply.event(
            dumps(
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/subscriptions/acknowledged",
                    "params": {"notifications": honoured, "_meta": {META_SUBSCRIPTION: id}},
                }
            )
        )
        if feed is not None:
            feed.tell()
        await visit.plane.streams.serve(stream, visit.snapshot, visit.target, receive)
    finally:
        if feed is not None:
            await feed.end()
        for uri, server_id in watched.items():
            visit.plane.watches.drop(server_id, uri, stream)


async def _watch(visit: Visit, stream: Stream, uris: list[str], watched: dict[str, str], capabilities: Json) -> None:
    """Subscribe to resources, each asked of the policy and recorded as a call; put those that are watched into `watched`."""

    async def one(uri: str) -> None:
        async def send(facts: ServerFacts, request: UpstreamRequest) -> UpstreamAnswer:
            answer = await visit.plane.watches.add(facts, request, stream)
            if answer.error is None:
                watched[uri] = facts.id
            return answer

        call = visit.call("resources/subscribe", {"uri": uri}, modern=True)
        call.send, call.capabilities = send, capabilities
        await visit.plane.pipeline.run(call)

    for start in range(0, len(uris), _AT_ONCE):
        await asyncio.gather(*(one(uri) for uri in uris[start : start + _AT_ONCE]))
