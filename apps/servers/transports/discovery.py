"""Reading everything a server offers: who it is, what it can do, and all pages of all its lists, raw."""

import asyncio
from typing import Any

from apps.common.clock import monotonic
from apps.common.errors import AddressRefused, UpstreamError, UpstreamProtocolError, UpstreamTimeout, UpstreamTooLarge
from apps.servers.domain import Discovered
from apps.servers.transports.base import Json, Upstream
from apps.servers.transports.era import LEGACY
from apps.servers.transports.everything import EVERYTHING, EVERYTHING_MODERN, Heard, Way, listing
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
KEYS = {target: key for _, _, _, target, key in _LISTS}
WHOLE_SHARE = 0.5
"""Of the time that is left, for the session with every capability: a server that hangs in it can still be read without."""
READINGS = 3
"""Of the lists, where one changes meanwhile: some servers add definitions once a session has begun."""

Lists = dict[str, list[Json]]


async def discover(upstream: Upstream, *, timeout: float, survey: bool = False, alone: Heard | None = None) -> Discovered:
    """Return all that the server behind `upstream` says of itself, within `timeout` seconds.

    Everything that a client may have is declared, in a session of its own where capabilities are a session's; what only that one
    lists is added to what the shared one does. An upstream that was opened for this discovery with `EVERYTHING` declared is read once
    (`alone`: what takes its events).

    With `survey` it is also asked for every older revision of the protocol. Only lists that its capabilities announce are read; a list it announces and does not have counts as empty. Unknown
    fields stay. Raises the UpstreamError family, among them UpstreamTooLarge for over 1,000 pages, 20,000 definitions
    or 64 MB in one list, and UpstreamProtocolError for a repeated cursor or a definition without a name.
    """
    started = monotonic()
    until = started + timeout
    try:
        async with asyncio.timeout(timeout):
            said = await upstream.describe(survey=survey)
            found = Discovered(said.era, said.revisions, said.server_info, said.capabilities, said.instructions)
            found.surveyed = said.surveyed
            legacy = said.era == LEGACY
            whole = await _whole(upstream, found, until, alone) if legacy and alone is not None else None
            if whole is None:
                declared = None if legacy else EVERYTHING_MODERN
                lists = await _lists(upstream, said.capabilities, until, declared)
                if legacy and alone is None:
                    upstream.seen.join(lists, await _whole(upstream, found, until, None), KEYS)
            for target, items in (lists if whole is None else whole).items():
                getattr(found, target).extend(items)
    except TimeoutError:
        raise UpstreamTimeout(f"The server did not tell what it offers within {timeout:g} s.") from None
    found.duration_ms = (monotonic() - started) * 1000
    return found


async def _whole(upstream: Upstream, found: Discovered, until: float, heard: Heard | None) -> Lists | None:
    """Return the lists as a session with every capability shows them; None where the server lets nobody have one."""
    heard = heard or Heard()
    limit = max((until - monotonic()) * WHOLE_SHARE, 0.001)
    try:
        async with asyncio.timeout(limit), upstream.everything(heard) as (way, capabilities):
            announced = {**capabilities, **found.capabilities}
            until = min(until, monotonic() + limit)
            for _ in range(READINGS):
                heard.changed = False
                lists = await _lists(way, announced, until, EVERYTHING, asked=True)
                if not heard.changed:
                    break
            found.capabilities = announced
            return lists
    except (UpstreamError, AddressRefused, TimeoutError):
        return None


async def _lists(way: Way, announced: Json, until: float, declared: Json | None, *, asked: bool = False) -> Lists:
    """Return every list that the server announces."""
    return {
        target: await _pages(way, method, member, key, until, declared, asked=asked)
        for capability, method, member, target, key in _LISTS
        if isinstance(announced.get(capability), dict)
    }


async def _pages(
    way: Way, method: str, member: str, key: str, until: float, declared: Json | None, *, asked: bool
) -> list[Json]:
    """Return the definitions of one list, from all its pages."""
    items: list[Json] = []
    cursors: set[str] = set()
    cursor: Any = None
    size = 0
    for _ in range(MOST_PAGES):
        params: Json = {} if cursor is None else {"cursor": cursor}
        limit = max(until - monotonic(), 0.001)
        answer = await way.call(
            listing(method, params, timeout=limit, max_bytes=MOST_BYTES, capabilities=declared, asked=asked)
        )
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
