"""The bridges of the data plane: what it needs from outside, injected by the composition root."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from apps.servers.domain import Secrets


@dataclass(slots=True)
class ClientSighting:
    """A client that spoke to the gateway since the last sighting. Its own words are cut and printable, and nobody vouches for them."""

    key_id: str
    tenant_id: str
    toolset: str
    """Slug of where it spoke; empty = every server."""
    door: str
    """`/mcp` or `/sse`."""
    name: str
    version: str
    revision: str
    declared: tuple[str, ...] | None
    """See `compat.declared`; None where it was not looked at."""
    streams: bool
    """It takes event streams."""
    address: str
    session: str
    """The session it spoke in, as the audit log names it; empty where it has none."""
    calls: int = 0
    last: float = 0.0
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class RecordingFacts:
    """A recording that is on: of whom, until when, and how much it may still hold."""

    id: str
    tenant_id: str
    kind: str
    """`server`, `toolset`, `api_key` or `session`."""
    object_id: str
    label: str
    until_us: int
    """Microseconds since the epoch."""
    messages_left: int
    bytes_left: int


@dataclass(slots=True)
class RecordedMessage:
    """One message that passed, redacted and cut."""

    at_us: int
    side: str
    """`client` or `server`."""
    direction: str
    """`in`: to the gateway; `out`: from it."""
    kind: str
    """`request`, `notification`, `result` or `error`."""
    method: str
    """Of an answer that of its request."""
    rpc_id: str
    size: int
    """Bytes of the whole message."""
    revision: str
    client: str
    text: str
    cut: bool
    call_id: str = ""
    server: str = ""
    recordings: list[str] = field(default_factory=list)
    """Those that hold it."""


class Vault(Protocol):
    """Decrypts a server's credentials, in a thread, when a connection is opened."""

    async def secrets(self, server_id: str, user_id: str = "") -> Secrets:
        """Return the credentials, with `user_id` those of this user's own account.

        Where the server is reached by OAuth they hold the source of its tokens, which asks the control plane by itself. Raises NotReady
        when the database does not answer, UpstreamUnauthenticated where nothing is connected, ConnectionRequired for such a user.
        """
        ...


class Facts(Protocol):
    """Takes what the data plane learned to the control plane; never waits, never raises, drops repeats."""

    def list_changed(self, server_id: str, kind: str) -> None:
        """A server announced a change: discover it again."""

    def era_found(self, endpoint_id: str, era: str, revisions: tuple[str, ...]) -> None:
        """Remember an endpoint's era."""

    def key_used(self, key_id: str, address: str, client: str) -> None:
        """Remember when, from where and by which client a key was last used."""

    def endpoint_state(self, endpoint_id: str, state: str, reason: str) -> None:
        """A call reached the endpoint, or could not."""

    def clients_seen(self, clients: Sequence[ClientSighting]) -> None:
        """Clients spoke to the gateway."""

    def messages_recorded(self, messages: Sequence[RecordedMessage], dropped: Mapping[str, int]) -> None:
        """Messages passed that somebody records; `dropped` counts for each recording those that there was no room for."""


class Catchup(Protocol):
    """Lets a caller wait until this process has applied everything that was committed before the question."""

    async def caught_up(self) -> bool:
        """Apply what is new; False when the database does not answer. At most 1 s."""
        ...


class AssertionSigner(Protocol):
    """Signs the short-lived assertion that built-in servers receive in `_meta`."""

    def sign(self, *, tenant: str, principal: str, toolset: str, call_id: str, audience: str) -> str:
        """Return the compact token; valid for 60 s."""
        ...
