"""Modern servers that ask before they answer (`input_required`), for clients of the initialize era: asked by requests on the call's
stream, after which the call is made again with the answers, as a modern client would (MCP 2026-07-28, multi round-trip requests).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from apps.common.errors import SwitchyardError, UpstreamProtocolError
from apps.common.ids import short_id
from apps.gateway.plane.call import Call, Json
from apps.gateway.plane.mcp.asking import AT_ONCE, FORWARDED
from apps.gateway.plane.mcp.bridge import NotExpressible
from apps.servers.transports.base import UpstreamAnswer, UpstreamRequest

ROUNDS = 10
"""How often one call may ask."""
Send = Callable[[Call, UpstreamRequest], Awaitable[UpstreamAnswer]]


class InputRefused(SwitchyardError):
    """The client did not give what the server asked for, and the server cannot be told so."""

    slug, title, status, jsonrpc_code = "input-refused", "The client did not give what the server asked for", 502, -32603


def asks(answer: UpstreamAnswer) -> bool:
    """Tell whether a server wants something before it answers."""
    return answer.result is not None and answer.result.get("resultType") == "input_required"


async def carry_rounds(call: Call, request: UpstreamRequest, answer: UpstreamAnswer, send: Send) -> UpstreamAnswer:
    """Ask the client, make the call again with its answers, and so on; return the server's last word.

    Raises NotExpressible when the client takes no requests, InputRefused when it answers one with an error, UpstreamProtocolError
    for a server that asks wrongly or without end, and whatever `send` raises.
    """
    params = {key: value for key, value in request.params.items() if key not in ("inputResponses", "requestState")}
    for _ in range(ROUNDS):
        result = answer.result or {}
        asked = _requests(result)
        if asked and call.on_request is None:
            raise NotExpressible(
                "The server asks for more input before it answers, and this client takes no requests: it has not declared sampling, "
                "elicitation or roots, or reads no event stream."
            )
        call.rounds = True
        answers = await _answers(call, list(asked.values()))
        following: Json = {**params}
        if asked:
            following["inputResponses"] = dict(zip(asked, answers, strict=True))
        if "requestState" in result:
            following["requestState"] = result["requestState"]
        answer = await send(call, replace(request, params=following, on_request=call.on_request, sent=False))
        if not asks(answer):
            return answer
    raise UpstreamProtocolError(f"The server asked the client {ROUNDS} times in one call and has still not answered.")


async def _answers(call: Call, asked: list[Json]) -> list[Json]:
    """Ask the client everything at once; where one question fails, the others are taken back."""
    tasks = [asyncio.create_task(_ask(call, message)) for message in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _end(tasks)
        tasks.clear()  # an error in one of them has this frame in its traceback


async def _end(tasks: list[asyncio.Task[Json]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _requests(result: Json) -> dict[str, Json]:
    asked = result.get("inputRequests", {})
    if not isinstance(asked, dict) or len(asked) > AT_ONCE or not all(_proper(message) for message in asked.values()):
        raise UpstreamProtocolError(f"The server's inputRequests are not an object of at most {AT_ONCE} requests that MCP has.")
    if not asked and "requestState" not in result:
        raise UpstreamProtocolError("The server wants input and does not say which.")
    return asked


def _proper(message: Any) -> bool:
    return isinstance(message, dict) and message.get("method") in FORWARDED and isinstance(message.get("params", {}), dict)


async def _ask(call: Call, message: Json) -> Json:
    assert call.on_request is not None
    params = message.get("params")
    if isinstance(params, dict) and params.get("mode") == "url" and "elicitationId" not in params:
        # the initialize era wants a name for it, which 2026-07-28 has no use for
        message = {**message, "params": {**params, "elicitationId": f"sy-{short_id()}"}}
    outcome = await call.on_request({"jsonrpc": "2.0", **message})
    if "result" in outcome:
        answered: Json = outcome["result"]
        return answered
    if message["method"] == "elicitation/create":
        return {"action": "cancel"}  # a client that cannot ask its user is one whose user gave no answer
    said = str(outcome.get("error", {}).get("message", ""))[:300]
    raise InputRefused(f"The client answered the server's {message['method']} with an error: {said}")
