"""Agreeing on the era over a channel that has only messages: stdio and the old HTTP+SSE."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apps.common.errors import UpstreamProtocolError
from apps.servers.domain import LEGACY_REVISIONS
from apps.servers.transports.base import Json, UpstreamAnswer, UpstreamRequest
from apps.servers.transports.channel import Channel, Pending
from apps.servers.transports.era import LEGACY, era_of_discover, supported_versions
from apps.servers.transports.wire import (
    CLIENT_INFO,
    LATEST_LEGACY,
    LATEST_MODERN,
    UNSUPPORTED_VERSION,
    modern_params,
    notification_body,
    request_body,
)

SILENCE_SECONDS = 5.0
"""A process that says nothing to `server/discover` for so long is offered the handshake as well."""
Send = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both sides will speak; `result` is the server's answer to discover or initialize."""

    era: str
    revision: str
    revisions: tuple[str, ...]
    result: Json


async def agree(channel: Channel, send: Send, capabilities: Json, *, legacy_first: bool, patient: bool = False) -> Agreed:
    """Ask for the era and do the handshake where there is one. The caller bounds the time.

    A refusal of `server/discover` means legacy; silence for 5 s does too, but a slow modern server may still answer
    it first, unless the server is known to be modern (`patient`). With `legacy_first` the question is put only if the
    handshake is refused for its version. Raises the UpstreamError family.
    """
    if legacy_first:
        answer = await _handshake(channel, send, capabilities)
        if answer.error is None or answer.error["code"] != UNSUPPORTED_VERSION:
            return _finish(answer, send)
        answer = await _discover(channel, send)
        agreed = _modern(answer)
        if agreed is None:
            raise UpstreamProtocolError("The server refuses both the handshake and requests without one.")
        return agreed
    loop = asyncio.get_running_loop()
    asked = loop.create_task(_discover(channel, send))
    offered: asyncio.Task[UpstreamAnswer] | None = None
    try:
        await asyncio.wait({asked}, timeout=None if patient else SILENCE_SECONDS)
        if asked.done():
            agreed = _modern(asked.result())
            return agreed if agreed is not None else _finish(await _handshake(channel, send, capabilities), send)
        offered = loop.create_task(_handshake(channel, send, capabilities))
        await asyncio.wait({asked, offered}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            agreed = _modern(asked.result())
            if agreed is not None:
                return agreed
        answer = await offered
        if answer.error is not None and answer.error["code"] == UNSUPPORTED_VERSION:
            agreed = _modern(await asked)
            if agreed is not None:
                return agreed
        return _finish(answer, send)
    finally:
        tasks = [task for task in (asked, offered) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _discover(channel: Channel, send: Send) -> UpstreamAnswer:
    """Ask `server/discover`."""
    request = UpstreamRequest("server/discover", {})
    id = channel.next_id()
    return await _ask(channel, send, channel.open(id, request, LATEST_MODERN), modern_params(request, id))


async def _handshake(channel: Channel, send: Send, capabilities: Json) -> UpstreamAnswer:
    """Offer the newest legacy revision."""
    params: Json = {"protocolVersion": LATEST_LEGACY, "capabilities": capabilities, "clientInfo": CLIENT_INFO}
    request = UpstreamRequest("initialize", params)
    return await _ask(channel, send, channel.open(channel.next_id(), request, LATEST_LEGACY), params)


async def _ask(channel: Channel, send: Send, pending: Pending, params: Json) -> UpstreamAnswer:
    """Send one request and wait for its answer."""
    try:
        send(request_body(pending.id, pending.request.method, params))
        return await channel.wait(pending)
    finally:
        channel.close(pending)


def _modern(answer: UpstreamAnswer) -> Agreed | None:
    """Return the agreement that a discover answer makes; None when it shows the legacy era."""
    message: Any = {"result": answer.result} if answer.error is None else {"error": answer.error}
    era = era_of_discover(message)
    if era == LEGACY:
        return None
    result = answer.result or {}
    return Agreed(era, LATEST_MODERN, supported_versions(result) or (LATEST_MODERN,), result)


def _finish(answer: UpstreamAnswer, send: Send) -> Agreed:
    """Complete the handshake; UpstreamProtocolError when it was refused or its revision is unknown here."""
    if answer.result is None:
        raise UpstreamProtocolError(f"The server refused the handshake: {(answer.error or {}).get('message', '')[:200]}")
    spoken = answer.result.get("protocolVersion")
    if type(spoken) is not str or spoken not in LEGACY_REVISIONS:
        raise UpstreamProtocolError(f"The server speaks MCP revision {str(spoken)[:20]}, which Switchyard does not.")
    send(notification_body("notifications/initialized"))
    return Agreed(LEGACY, spoken, (spoken,), answer.result)
