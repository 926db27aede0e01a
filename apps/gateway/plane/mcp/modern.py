"""The modern front (2026-07-28): one self-contained request per POST."""

from typing import Any

from apps.common.errors import InvalidRequest, MethodNotFound, ValidationFailed
from apps.common.jsontext import dumps
from apps.gateway.plane.call import Answer, Json
from apps.gateway.plane.http import Headers, Receive
from apps.gateway.plane.jsonrpc import MAX_ID, error_bytes, result_bytes, valid_id
from apps.gateway.plane.mcp.envelope import EnvelopeError, client_label, read_envelope
from apps.gateway.plane.mcp.lists import LISTS
from apps.gateway.plane.mcp.revisions import META_SUBSCRIPTION, STATUS_OF_CODE
from apps.gateway.plane.mcp.streams import CHANGES, Stream
from apps.gateway.plane.mcp.visit import CALLS, Visit

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
    if method in LISTS:
        await visit.list(id, method, params, modern=True)
    elif method == "server/discover":
        visit.note("session.discovered")
        await reply.finish(200, result_bytes(id, visit.plane.lists.discover(visit.snapshot, visit.caller, visit.target)))
    elif method in CALLS:
        call = visit.call(method, params, modern=True)
        call.client_info = envelope.client_info
        call.capabilities = envelope.capabilities
        call.log_level = envelope.log_level
        call.param_headers = envelope.param_headers
        answer = await visit.run(call, receive, leaving_cancels=True)
        if answer is not None:
            await reply.finish(*modern_answer(id, answer))
    elif method == "subscriptions/listen":
        await _listen(visit, id, params, receive)
    else:
        raise MethodNotFound(f"Method not found: {method[:100]}")


def modern_answer(id: Any, answer: Answer) -> tuple[int, bytes]:
    """Return status and body of a call's answer."""
    if answer.result is not None:
        return 200, result_bytes(id, answer.raw)
    status = answer.status if answer.status != 200 else STATUS_OF_CODE.get(answer.code, 200)
    return status, error_bytes(id, answer.code, answer.message, answer.data)


async def _listen(visit: Visit, id: Any, params: Json, receive: Receive) -> None:
    """Serve `subscriptions/listen`: acknowledge the part that is honoured, then tell of changes until the client leaves."""
    wanted = params.get("notifications")
    if not isinstance(wanted, dict):
        raise ValidationFailed("params.notifications must be an object that says which changes are wanted.")
    kinds = tuple(kind for kind in CHANGES if wanted.get(_FILTERS[kind]) is True)
    honoured = {_FILTERS[kind]: True for kind in kinds}
    stream = Stream(visit.caller, visit.target.slug, kinds, visit.reply, subscription=id)
    visit.plane.streams.admit(visit.caller)
    await visit.reply.event(
        dumps(
            {
                "jsonrpc": "2.0",
                "method": "notifications/subscriptions/acknowledged",
                "params": {"notifications": honoured, "_meta": {META_SUBSCRIPTION: id}},
            }
        )
    )
    await visit.plane.streams.serve(stream, visit.snapshot, visit.target, receive)
    ended = {"resultType": "complete", "_meta": {META_SUBSCRIPTION: id}}
    await visit.reply.finish_stream(result_bytes(id, dumps(ended)))
