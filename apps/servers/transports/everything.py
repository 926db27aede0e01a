"""What discovery declares: all that a client may have, since servers keep definitions from clients that have less.

Nobody's session is made with it but one of discovery's own, whose questions are answered here and which ends with it.
"""

from collections.abc import Mapping
from typing import Protocol

from apps.servers.transports.base import Json, UpstreamAnswer, UpstreamRequest
from apps.servers.transports.wire import refuse_request

EVERYTHING: Json = {
    "roots": {"listChanged": True},
    "sampling": {"context": {}, "tools": {}},
    "elicitation": {"form": {}, "url": {}},
}
"""As 2025-11-25 spells it; older servers leave what they do not know."""
EVERYTHING_MODERN: Json = {**EVERYTHING, "roots": {}}
"""As 2026-07-28 does, in which clients announce no changes."""
REFUSED = -1
"""JSON-RPC code with which clients refuse to sample (2025-11-25, client/sampling)."""
MOST_SEEN = 20_000
"""Names of one list that are remembered."""


class Way(Protocol):
    """What the lists are read over."""

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """See Upstream."""
        ...


class Heard:
    """Takes what discovery's own session reports: nothing that the gateway should act on."""

    def __init__(self) -> None:
        self.changed = False
        """A list changed, perhaps while it was read."""

    def list_changed(self, server_id: str, kind: str) -> None:
        """Have the lists read again. A gateway's own connection hears of it as well, and asks for another discovery."""
        self.changed = True

    def resource_updated(self, server_id: str, uri: str, place: str = "") -> None:
        """Nobody subscribed."""

    def era_found(self, endpoint_id: str, era: str, revisions: tuple[str, ...]) -> None:
        """It stands in what was discovered."""

    def process_started(self, endpoint_id: str, process_id: str, pid: int, restarts: int) -> None:
        """The process ends with the discovery, so it is not listed."""

    def process_ended(self, endpoint_id: str, process_id: str, code: int | None, reason: str, stderr_tail: str) -> None:
        """The error of the discovery tells of it."""


class Seen:
    """What the session that callers without capabilities share has listed, and what only discovery's own got beside it."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._beside: Mapping[str, list[Json]] = {}

    def join(self, common: dict[str, list[Json]], whole: Mapping[str, list[Json]] | None, keys: Mapping[str, str]) -> None:
        """Add to the lists in `common` what only `whole` has (None: it could not be read; then what it had the last time).

        What the shared session has listed once is its own to take away: a program may do that in its memory, of which another
        process knows nothing. `keys` says what names a definition of each list.
        """
        for target, items in common.items():
            names = self._names.setdefault(target, set())
            if len(names) > MOST_SEEN:
                names.clear()
            names.update(item[keys[target]] for item in items)
        if whole is not None:
            self._beside = {
                target: [item for item in items if item[keys[target]] not in self._names.get(target, ())]
                for target, items in whole.items()
            }
        for target, beside in self._beside.items():
            items = common.setdefault(target, [])
            now = {item[keys[target]] for item in items}
            items.extend(item for item in beside if item[keys[target]] not in now)


async def answer(message: Json) -> Json:
    """Answer what a server asks of discovery: there are no roots, nobody to be asked, and no model."""
    method = message.get("method")
    if method == "roots/list":
        return {"result": {"roots": []}}
    if method == "elicitation/create":
        return {"result": {"action": "cancel"}}
    if method == "sampling/createMessage":
        return {"error": {"code": REFUSED, "message": "Switchyard only asks what the server offers; it samples nothing."}}
    return refuse_request(message)


def listing(
    method: str, params: Json, *, timeout: float, max_bytes: int, capabilities: Json | None, asked: bool
) -> UpstreamRequest:
    """Return a request for a page; with `asked` the server may ask something meanwhile."""
    request = UpstreamRequest(
        method, params, timeout=timeout, max_bytes=max_bytes, client_capabilities=dict(capabilities or {})
    )
    if asked:
        request.on_request, request.session = answer, "discovery"
    return request
