"""What a transport gives to the data plane and to discovery; every transport and both eras look the same from here."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from apps.servers.domain import EndpointFacts, Secrets, ServerFacts

if TYPE_CHECKING:
    from apps.servers.transports.everything import Seen, Way

Json = dict[str, Any]
OnMessage = Callable[[Json], Awaitable[None]]
OnRequest = Callable[[Json], Awaitable[Json]]

LISTEN = "subscriptions/listen"
TASKS = "io.modelcontextprotocol/tasks"
"""The extension that the revisions before 2026-07-28 have no words for."""


ASKED = frozenset(("sampling", "elicitation", "roots"))
"""Capabilities of a client that let a server ask something of it."""


def takes_requests(capabilities: Json) -> bool:
    """Tell whether a client declares anything that a server may ask of it."""
    return not ASKED.isdisjoint(capabilities)


def without_tasks(capabilities: Json) -> Json:
    """Return a client's capabilities less the tasks extension."""
    extensions = capabilities.get("extensions")
    if not isinstance(extensions, dict) or TASKS not in extensions:
        return capabilities
    kept = {name: value for name, value in extensions.items() if name != TASKS}
    return {
        **{name: value for name, value in capabilities.items() if name != "extensions"},
        **({"extensions": kept} if kept else {}),
    }


@dataclass(slots=True)
class UpstreamRequest:
    """One request to a server, as the gateway means it; the transport puts it into the server's era."""

    method: str
    params: Json
    """Owned by the transport from here on. `_meta` holds what the caller sent less `progressToken` and the
    `io.modelcontextprotocol/*` members; the transport adds what the server's era needs."""
    timeout: float = 60.0
    """Seconds until UpstreamTimeout; progress does not extend it."""
    max_bytes: int = 16 * 1024 * 1024
    """Largest answer, in bytes, over all of its messages."""
    client_info: Json | None = None
    client_capabilities: Json = field(default_factory=dict)
    """As the caller declared them; they go upstream as they are (modern)."""
    log_level: str | None = None
    param_headers: Mapping[str, str] = field(default_factory=dict)
    """`Mcp-Param-*`, already encoded (modern HTTP only)."""
    on_message: OnMessage | None = None
    """Gets each notification that belongs to this request (progress, message), in order, before the answer.
    With it set the transport asks for progress under a token of its own and gives it as `progressToken: null`."""
    on_request: OnRequest | None = None
    """Answers a request of the server's made while this one runs: gets the JSON-RPC request, returns result or error
    member. Without it such requests are answered -32601 (ping with {})."""
    unasked: str = ""
    """Set by the transport where the caller takes requests and the server's cannot be brought to it: why, for the server to read."""
    refused: list[str] = field(default_factory=list)
    """Set by the transport: the methods of the server's requests that were refused for that reason."""
    caller: str = ""
    """Whose session it is made in, where the protocol has sessions; empty for what Switchyard asks for itself."""
    user: str = ""
    """The user whose own account with the server is used, where each has one; the gateway's business, not the transport's."""
    session: str = ""
    """The caller's own session, where it has one: calls of one session may be mistaken for each other, others may not."""
    era: str | None = None
    """`modern` or `legacy`: which era to use where the endpoint speaks both; None leaves it to the transport."""

    @property
    def declared(self) -> Json:
        """Return the capabilities that an `initialize` for this caller declares: the caller's, where somebody answers for it;
        else its extensions alone, which ask for no answers.
        """
        capabilities = without_tasks(self.client_capabilities)
        if self.on_request is not None or not capabilities:
            return capabilities
        extensions = capabilities.get("extensions")
        return {"extensions": extensions} if extensions else {}

    waits: bool = False
    """Set by the transport while the call waits for others that must end before it may be sent."""
    sent: bool = False
    """Set by the transport the moment bytes may have left; a failure before that certainly had no effect."""


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """The server's own words: exactly one of `result` and `error` (a JSON-RPC error object) is set."""

    result: Json | None
    error: Json | None
    revision: str
    """The revision that was spoken."""
    size: int
    """Bytes of the answer as it came."""
    raw: bytes = field(default=b"", repr=False)
    """The whole JSON-RPC message as it came; empty where it came among others."""
    hold: object = field(default=None, repr=False, compare=False)
    """Of a large answer: its part of the memory that all large answers share, given back when this object goes."""
    place: str = ""
    """Of a subscription: where its updates are announced; empty where all callers share one."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a server says of itself before any list is read."""

    era: str
    """`modern`, `legacy` or `dual`."""
    revisions: tuple[str, ...]
    """Newest first, as far as they were found out."""
    server_info: Json
    capabilities: Json
    instructions: str
    surveyed: bool = True
    """Every revision was asked for that the way to the server knows."""


class UpstreamEvents(Protocol):
    """What a transport reports, on its own loop; implementations must return at once."""

    def list_changed(self, server_id: str, kind: str) -> None:
        """The server announced a change of `tools`, `resources` or `prompts`; or it was restarted (`all`)."""

    def resource_updated(self, server_id: str, uri: str, place: str = "") -> None:
        """The server announced that a subscribed resource changed; `place` as in `UpstreamAnswer`."""

    def era_found(self, endpoint_id: str, era: str, revisions: tuple[str, ...]) -> None:
        """Which era the endpoint speaks was found out."""

    def process_started(self, endpoint_id: str, process_id: str, pid: int, restarts: int) -> None:
        """A stdio process runs."""

    def process_ended(self, endpoint_id: str, process_id: str, code: int | None, reason: str, stderr_tail: str) -> None:
        """A stdio process ended: `reason` is `idle`, `stopped`, `killed` or `died`."""


class Upstream(Protocol):
    """A live way to one endpoint, used by many callers at once where the protocol allows it.

    Raises only the UpstreamError family, AddressRefused and asyncio.CancelledError. Cancelling a `call` tells the server
    (closes the stream, or sends notifications/cancelled) and frees everything that belongs to it.
    """

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Send a request and return the answer. Connects, handshakes, finds the era and reconnects by itself."""
        ...

    async def describe(self, *, survey: bool = False) -> Description:
        """Ask the server anew who it is, what it can do and which revisions it speaks; for discovery, not per call.

        It is offered the newest revision of each era; with `survey` every older one as well, which takes a session each. The caller
        bounds the time (`discover` does).
        """
        ...

    @property
    def seen(self) -> "Seen":
        """What discovery has read over this way so far."""
        ...

    def everything(self, events: UpstreamEvents) -> AbstractAsyncContextManager["tuple[Way, Json]"]:
        """Give a session (or process) of its own of a legacy server, in which every capability of a client is declared, and the
        capabilities that the server names there; it ends with the block. `events` gets what it reports.

        The way itself where it was opened with `EVERYTHING` declared and is one channel.
        """
        ...

    async def watch(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Ask for updates of a resource (`resources/subscribe`) or no more of them (`resources/unsubscribe`); in the modern era
        the filter of the stream that `listen` follows says the same.

        Where callers have sessions of their own it is done in the caller's, which is listened to as long as it watches something;
        otherwise updates come to `listen` alone. It holds over reconnects, after which an update is reported, as one may have been
        missed.
        """
        ...

    async def notify(self, method: str, params: Json | None = None, request: UpstreamRequest | None = None) -> None:
        """Send a notification, where the server's era has it; otherwise nothing.

        With a `request`, in the session that this would be made in, if the caller has one at the server.
        """
        ...

    async def listen(self) -> None:
        """Follow the server's own announcements (standalone stream, `subscriptions/listen`, stdio) until closed.

        Reconnects by itself. Returns early when the server has no such stream.
        """
        ...

    async def aclose(self, reason: str = "stopped") -> None:
        """End sessions, streams and processes; in flight calls get UpstreamDied."""
        ...

    def stats(self) -> Json:
        """Return `in_flight`, `calls`, and for stdio `pid`, `started_at` (epoch s), `restarts`, `memory_bytes`."""
        ...


class UpstreamFactory(Protocol):
    """Makes upstreams; `open_upstream` in `apps.servers.transports` is the one implementation."""

    def __call__(self, server: ServerFacts, endpoint: EndpointFacts, secrets: Secrets, events: UpstreamEvents) -> Upstream:
        """Return an upstream; nothing is connected or started yet."""
        ...
