"""Ways to MCP servers: Streamable HTTP, HTTP+SSE and stdio, in both eras, behind one interface."""

from dataclasses import replace

from apps.common.http import HttpClient, NetworkPolicy
from apps.common.http.check import parse_url
from apps.servers.domain import EndpointFacts, Secrets, ServerFacts
from apps.servers.transports.authorized import AuthorizedHttp, Http
from apps.servers.transports.base import Json, Upstream, UpstreamEvents
from apps.servers.transports.callers import UpstreamOfAskers, UpstreamOfEach
from apps.servers.transports.discovery import discover
from apps.servers.transports.era import LEGACY
from apps.servers.transports.everything import EVERYTHING
from apps.servers.transports.http import HttpUpstream
from apps.servers.transports.sse import SseUpstream
from apps.servers.transports.stdio import StdioUpstream

__all__ = ("discover", "open_upstream")


def open_upstream(
    server: ServerFacts,
    endpoint: EndpointFacts,
    secrets: Secrets,
    events: UpstreamEvents,
    *,
    http: HttpClient | None = None,
    policy: NetworkPolicy | None = None,
    capabilities: Json | None = None,
    startup_seconds: float = 30.0,
) -> Upstream:
    """Return an upstream for one endpoint; nothing is connected or started yet. To be called on the loop that uses it.

    `http` is the process's shared client; without it the upstream has one of its own under `policy` (public addresses
    only by default) and closes it. `capabilities` are declared in the initialize handshake (none by default: then
    servers do not ask for sampling, elicitation or roots). `startup_seconds` bounds the start of a stdio process.
    Raises AddressRefused for a URL that is never connected to, ValueError for an unknown transport.
    """
    declared = capabilities or {}
    if server.transport == "stdio":

        def process(place: str, theirs: Json) -> StdioUpstream:
            return StdioUpstream(
                server, endpoint, secrets, events, capabilities=theirs or declared, startup_seconds=startup_seconds, place=place
            )

        def whole_process(heard: UpstreamEvents) -> StdioUpstream:
            known = replace(endpoint, era=LEGACY)  # the common process has told
            return StdioUpstream(server, known, secrets, heard, capabilities=EVERYTHING, startup_seconds=startup_seconds)

        return UpstreamOfAskers(
            process("", {}), process, server.idle_seconds, None if declared == EVERYTHING else whole_process
        )
    if server.transport not in {"http", "sse"}:
        raise ValueError(f"There is no transport {server.transport!r}.")
    plain = http or HttpClient(policy or NetworkPolicy())
    client: Http = plain if secrets.tokens is None else AuthorizedHttp(plain, secrets.tokens, parse_url(endpoint.url))
    if server.transport == "sse":

        def stream(place: str, theirs: Json, *, owns_http: bool = False) -> SseUpstream:
            return SseUpstream(
                server, endpoint, secrets, events, client, owns_http=owns_http, capabilities=theirs or declared, place=place
            )

        def whole_stream(heard: UpstreamEvents) -> SseUpstream:
            return SseUpstream(server, endpoint, secrets, heard, client, owns_http=False, capabilities=EVERYTHING)

        own = stream("", {}, owns_http=http is None)
        return UpstreamOfEach(own, stream, server.idle_seconds, None if declared == EVERYTHING else whole_stream)
    return HttpUpstream(server, endpoint, secrets, events, client, owns_http=http is None, capabilities=declared)
