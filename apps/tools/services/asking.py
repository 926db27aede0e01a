"""Asks a server what it is: through the connection that calls use, where this process has one, else through one of its own."""

from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

from apps.common.clock import monotonic, now
from apps.common.errors import SwitchyardError, UpstreamProtocolError, UpstreamTimeout
from apps.common.http import NetworkPolicy
from apps.servers.domain import Discovered, EndpointFacts, Secrets, ServerFacts
from apps.servers.selectors import facts_of
from apps.servers.services.access import access_of
from apps.servers.services.addresses import network_policy
from apps.servers.services.private_loop import run_apart

SURVEY_AFTER_SECONDS = 60.0
"""After the first discovery; the next one then also asks for every older revision."""
CLOSING_SECONDS = 10.0
"""What closing the connection may take after the time limit; then the thread is left to itself."""


@dataclass(slots=True)
class Asked:
    """The answer of the first endpoint that gave one, and the failures of those before it."""

    version: int = 0
    """Of the server when it was asked: it grows when the server's address or credentials change."""
    discovered: Discovered | None = None
    endpoint_id: str = ""
    failures: list[tuple[str, SwitchyardError]] = field(default_factory=list)


class LiveAsker(Protocol):
    """Asks through the connection that this process's data plane has open to a server."""

    def __call__(self, server_id: str, version: int, limit: float, survey: bool) -> tuple[str, Discovered] | None:
        """Return the endpoint's id and what the server said, None when no connection to this version of it is open; `survey`: see `discover`.

        Raises the UpstreamError family; takes at most `limit` seconds.
        """
        ...


_live: LiveAsker | None = None


def use_live_connections(asker: LiveAsker | None) -> None:
    """Have discoveries of this process ask through open connections; None ends that.

    A list may differ between two processes or sessions of one server, and calls go to the one that is open.
    """
    global _live
    _live = asker


def ask(row: Any, *, limit: float) -> Asked:
    """Ask the endpoints of a server in turn until one answers, `limit` seconds for all of them together.

    What goes wrong on the way to the server, or with its stored credentials, stands in `failures` and is not raised.
    """
    server = facts_of(row.pk)
    asked = Asked(server.version)
    until = monotonic() + limit
    survey = _survey_due(row, server)
    if _ask_live(asked, server, limit / 2, survey):
        return asked
    policy = network_policy(builtin=server.builtin)
    for endpoint in server.endpoints:
        left = until - monotonic()
        try:
            if left <= 0:
                raise UpstreamTimeout(f"No time was left for this endpoint; {limit:g} s are allowed for all.")
            probe = partial(_discover, server, endpoint, access_of(row.pk), policy, left, survey)
            asked.discovered = run_apart(probe, limit=left + CLOSING_SECONDS)
            asked.endpoint_id = endpoint.id
            return asked
        except SwitchyardError as error:
            asked.failures.append((endpoint.id, error))
    return asked


def _survey_due(row: Any, server: ServerFacts) -> bool:
    """Tell whether it is time to ask for older revisions: once for each version of a server, and not while it has just been registered."""
    if row.surveyed_version == row.version or row.discovered_at is None or not any(one.era for one in server.endpoints):
        return False
    return bool(row.discovered_at < now() - timedelta(seconds=SURVEY_AFTER_SECONDS))


def _ask_live(asked: Asked, server: ServerFacts, limit: float, survey: bool) -> bool:
    """Try the open connection; where there is none, or it fails, False: a new one may do better."""
    try:
        found = _live(server.id, server.version, limit, survey) if _live is not None else None
    except SwitchyardError:
        return False
    if found is None:
        return False
    asked.endpoint_id, asked.discovered = found
    return True


async def _discover(
    server: ServerFacts, endpoint: EndpointFacts, secrets: Secrets, policy: NetworkPolicy, limit: float, survey: bool
) -> Discovered:
    from apps.servers.transports import discover, open_upstream
    from apps.servers.transports.everything import EVERYTHING, Heard

    heard = Heard()
    upstream = open_upstream(server, endpoint, secrets, heard, policy=policy, capabilities=EVERYTHING, startup_seconds=limit)
    try:
        return await discover(upstream, timeout=limit, survey=survey, alone=heard)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # What it said broke our reading of it; its words are not repeated.
        raise UpstreamProtocolError(f"{server.slug} answered discovery with something that is not MCP.") from error
    finally:
        await upstream.aclose()
