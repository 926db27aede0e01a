"""Reading everything a server offers: who it is, what it can do, and all pages of all its lists, raw."""

import asyncio
from typing import Any

from apps.common.clock import monotonic
from apps.common.errors import UpstreamProtocolError, UpstreamTimeout, UpstreamTooLarge
from apps.servers.domain import Discovered
from apps.servers.transports.base import Json, Upstream, UpstreamRequest
from apps.servers.transports.wire import METHOD_NOT_FOUND

MOST_PAGES, MOST_ITEMS, MOST_BYTES = 1_000, 20_000, 64 * 1024 * 1024
"""For one list: pages, definitions, and bytes over all pages."""
_LISTS = (
    ("tools", "tools/list", "tools", "tools", "name"),
    ("resources", "resources/list", "resources", "resources", "uri"),
    ("resources", "resources/templates/list", "resourceTemplates", "templates", "uriTemplate"),
    ("prompts", "prompts/list", "prompts", "prompts", "name"),
)
"""Capability, method, member of the result, member of Discovered, what names a definition."""


async def discover(upstream: Upstream, *, timeout: float) -> Discovered:
    """Return all that the server behind `upstream` says of itself, within `timeout` seconds.

    Only lists that its capabilities announce are read; a list it announces and does not have counts as empty. Unknown
    fields stay. Raises the UpstreamError family, among them UpstreamTooLarge for over 1,000 pages, 20,000 definitions
    or 64 MB in one list, and UpstreamProtocolError for a repeated cursor or a definition without a name.
    """
    started = monotonic()
    try:
        async with asyncio.timeout(timeout):
            said = await upstream.describe()
            found = Discovered(said.era, said.revisions, said.server_info, said.capabilities, said.instructions)
            for capability, method, member, target, key in _LISTS:
                if isinstance(said.capabilities.get(capability), dict):
                    getattr(found, target).extend(await _pages(upstream, method, member, key, started + timeout))
    except TimeoutError:
        raise UpstreamTimeout(f"The server did not tell what it offers within {timeout:g} s.") from None
    found.duration_ms = (monotonic() - started) * 1000
    return found


async def _pages(upstream: Upstream, method: str, member: str, key: str, until: float) -> list[Json]:
    """Return the definitions of one list, from all its pages."""
    items: list[Json] = []
    cursors: set[str] = set()
    cursor: Any = None
    size = 0
    for _ in range(MOST_PAGES):
        params: Json = {} if cursor is None else {"cursor": cursor}
        limit = max(until - monotonic(), 0.001)
        answer = await upstream.call(UpstreamRequest(method, params, timeout=limit, max_bytes=MOST_BYTES))
        if answer.result is None:
            if answer.error is not None and answer.error["code"] == METHOD_NOT_FOUND and cursor is None:
                return []
            raise UpstreamProtocolError(f"The server refused {method}: {(answer.error or {}).get('message', '')[:200]}")
        page = answer.result.get(member)
        if type(page) is not list or any(type(item) is not dict or type(item.get(key)) is not str for item in page):
            raise UpstreamProtocolError(f"The server's answer to {method} is not a list of definitions.")
        items.extend(page)
        size += answer.size
        if len(items) > MOST_ITEMS or size > MOST_BYTES:
            raise UpstreamTooLarge(f"The server's {member} are more than {MOST_ITEMS} or {MOST_BYTES} bytes.")
        cursor = answer.result.get("nextCursor")
        if cursor is None:
            return items
        if type(cursor) is not str or cursor in cursors:
            raise UpstreamProtocolError(f"The server's pages of {method} go round in circles.")
        cursors.add(cursor)
    raise UpstreamTooLarge(f"The server's {member} have more than {MOST_PAGES} pages.")
