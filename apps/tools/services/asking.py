"""Asks a server what it is: through the connection that calls use, where this process has one, else through one of its own."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from apps.common.clock import monotonic
from apps.common.errors import SwitchyardError, UpstreamProtocolError, UpstreamTimeout
from apps.common.http import NetworkPolicy
from apps.servers.domain import Discovered, EndpointFacts, Secrets, ServerFacts
from apps.servers.selectors import facts_of
from apps.servers.services.addresses import network_policy
from apps.servers.services.private_loop import run_apart
from apps.servers.services.secrets import secrets_of

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

    def __call__(self, server_id: str, version: int, limit: float) -> tuple[str, Discovered] | None:
        """Return the endpoint's id and what the server said, None when no connection to this version of it is open.

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


class _Quiet:
    """Takes what the transport reports beside the answer: discovery writes down what it found itself."""

    def list_changed(self, server_id: str, kind: str) -> None:
        """The data plane's own connection hears it as well, and asks for another discovery."""

    def resource_updated(self, server_id: str, uri: str, place: str = "") -> None:
        """Nobody subscribed."""

    def era_found(self, endpoint_id: str, era: str, revisions: tuple[str, ...]) -> None:
        """It stands in what was discovered."""

    def process_started(self, endpoint_id: str, process_id: str, pid: int, restarts: int) -> None:
        """The process ends with the discovery, so it is not listed."""

    def process_ended(self, endpoint_id: str, process_id: str, code: int | None, reason: str, stderr_tail: str) -> None:
        """The error of the discovery tells of it."""


def ask(row: Any, *, limit: float) -> Asked:
    """Ask the endpoints of a server in turn until one answers, `limit` seconds for all of them together.

    What goes wrong on the way to the server, or with its stored credentials, stands in `failures` and is not raised.
    """
    server = facts_of(row.pk)
    asked = Asked(server.version)
    until = monotonic() + limit
    if _ask_live(asked, server, limit / 2):
        return asked
    policy = network_policy(builtin=server.builtin)
    for endpoint in server.endpoints:
        left = until - monotonic()
        try:
            if left <= 0:
                raise UpstreamTimeout(f"No time was left for this endpoint; {limit:g} s are allowed for all.")
            probe = partial(_discover, server, endpoint, secrets_of(row.pk), policy, left)
            asked.discovered = run_apart(probe, limit=left + CLOSING_SECONDS)
            asked.endpoint_id = endpoint.id
            return asked
        except SwitchyardError as error:
            asked.failures.append((endpoint.id, error))
    return asked


def _ask_live(asked: Asked, server: ServerFacts, limit: float) -> bool:
    """Try the open connection; where there is none, or it fails, False: a new one may do better."""
    try:
        found = _live(server.id, server.version, limit) if _live is not None else None
    except SwitchyardError:
        return False
    if found is None:
        return False
    asked.endpoint_id, asked.discovered = found
    return True


async def _discover(
    server: ServerFacts, endpoint: EndpointFacts, secrets: Secrets, policy: NetworkPolicy, limit: float
) -> Discovered:
    from apps.servers.transports import discover, open_upstream

    upstream = open_upstream(server, endpoint, secrets, _Quiet(), policy=policy, startup_seconds=limit)
    try:
        return await discover(upstream, timeout=limit)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # What it said broke our reading of it; its words are not repeated.
        raise UpstreamProtocolError(f"{server.slug} answered discovery with something that is not MCP.") from error
    finally:
        await upstream.aclose()
