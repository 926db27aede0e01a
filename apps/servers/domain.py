"""Facts about servers that cross floors and planes: plain values, no models, no secrets."""

from dataclasses import dataclass, field
from typing import Any, Protocol

LEGACY_REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Revisions with the initialize handshake, newest first."""
MODERN_REVISIONS = ("2026-07-28",)
"""Stateless revisions, metadata on each request, newest first."""
HEADERS, OAUTH, OAUTH_USER, CLIENT_CREDENTIALS = "headers", "oauth", "oauth-user", "client-credentials"
"""How Switchyard shows a server who it is: stored headers, one OAuth connection for all, one for each user, or as a client by itself."""


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """One place at which a server answers."""

    id: str
    url: str = ""
    command: str = ""
    args: tuple[str, ...] = ()
    cwd: str = ""
    state: str = "unknown"
    era: str = ""
    """`modern`, `legacy`, `dual` or empty."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """A server as the data plane needs it."""

    id: str
    tenant_id: str
    slug: str
    name: str
    transport: str
    version: int
    """Grows with every change; a data plane reopens its connections when it moves."""
    paused: bool = False
    builtin: bool = False
    auth: str = HEADERS
    trust_annotations: bool = False
    timeout_seconds: float = 60.0
    max_concurrency: int = 256
    idle_seconds: float = 600.0
    server_info: dict[str, Any] = field(default_factory=dict)
    capabilities: dict[str, Any] = field(default_factory=dict)
    instructions: str = ""
    revisions: tuple[str, ...] = ()
    endpoints: tuple[EndpointFacts, ...] = ()


class TokenSource(Protocol):
    """Where a transport gets the access token of one OAuth connection; belongs to one event loop."""

    @property
    def line(self) -> bytes:
        """Return the header line with the token that is in force; nothing where `ready` has to be asked first."""
        ...

    async def ready(self) -> bytes:
        """Return the header line, with a fresh token where the one at hand is about to expire. Raises the SwitchyardError family."""
        ...

    async def renew(self, used: bytes, status: int, challenge: str) -> bytes:
        """The server refused the token in `used` (401, or 403 for want of scope); return another one to try.

        Raises UpstreamUnauthenticated, ConnectionRequired or ScopeNeeded where there is none.
        """
        ...

    async def look(self) -> None:
        """Take the token that is stored now."""
        ...


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a server's credentials decrypt to. Kept by transports, never logged; repr shows names only."""

    headers: dict[str, str] = field(default_factory=dict, repr=False)
    env: dict[str, str] = field(default_factory=dict, repr=False)
    tokens: TokenSource | None = field(default=None, repr=False)
    """Of a server that is reached by OAuth."""


@dataclass(slots=True)
class Discovered:
    """What a server said of itself, raw: definitions are the server's own JSON objects, all pages, unknown fields kept."""

    era: str
    revisions: tuple[str, ...]
    server_info: dict[str, Any] = field(default_factory=dict)
    capabilities: dict[str, Any] = field(default_factory=dict)
    instructions: str = ""
    tools: list[dict[str, Any]] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    templates: list[dict[str, Any]] = field(default_factory=list)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    duration_ms: float = 0.0
    surveyed: bool = True
    """`revisions` are all that it speaks; else the newest of each era alone."""
