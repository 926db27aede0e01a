"""Reads of the gateway: the clients that were seen, what works between them and the servers, what happened."""

from apps.gateway.selectors.clients import clients, get_client
from apps.gateway.selectors.compatibility import (
    Pair,
    Reach,
    ServerSide,
    client_side,
    page_of_pairs,
    pairs_of,
    reach,
    reaches,
    server_sides,
)
from apps.gateway.selectors.lately import Happened, happened, happened_by_server
from apps.gateway.selectors.limits import get_limit, limits, plane_limits
from apps.gateway.selectors.recordings import (
    get_recording,
    json_lines,
    messages_of,
    methods_of,
    recordings,
    session_seen,
)

__all__ = (
    "Happened",
    "Pair",
    "Reach",
    "ServerSide",
    "client_side",
    "clients",
    "get_client",
    "get_limit",
    "get_recording",
    "happened",
    "happened_by_server",
    "json_lines",
    "limits",
    "messages_of",
    "methods_of",
    "page_of_pairs",
    "pairs_of",
    "plane_limits",
    "reach",
    "reaches",
    "recordings",
    "server_sides",
    "session_seen",
)
