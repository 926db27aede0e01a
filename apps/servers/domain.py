"""Facts about servers that cross floors and planes: plain values, no models, no secrets."""

from dataclasses import dataclass, field
from typing import Any

LEGACY_REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Revisions with the initialize handshake, newest first."""
MODERN_REVISIONS = ("2026-07-28",)
"""Stateless revisions, metadata on each request, newest first."""


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
    trust_annotations: bool = False
    timeout_seconds: float = 60.0
    max_concurrency: int = 256
    idle_seconds: float = 600.0
    server_info: dict[str, Any] = field(default_factory=dict)
    capabilities: dict[str, Any] = field(default_factory=dict)
    instructions: str = ""
    revisions: tuple[str, ...] = ()
    endpoints: tuple[EndpointFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a server's credentials decrypt to. Kept by transports, never logged; repr shows names only."""

    headers: dict[str, str] = field(default_factory=dict, repr=False)
    env: dict[str, str] = field(default_factory=dict, repr=False)


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
