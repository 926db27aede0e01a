"""Facts of the catalogue that cross floors and planes: plain values, no models."""

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["tool", "resource", "template", "prompt"]

KINDS: tuple[Kind, ...] = ("tool", "resource", "template", "prompt")
"""What a server offers, in the order in which lists show it."""

NAME_MEMBER: dict[str, str] = {"tool": "name", "resource": "uri", "template": "uriTemplate", "prompt": "name"}
"""The member of a definition that names it, unique within one server and kind."""


@dataclass(frozen=True, slots=True)
class DefinitionFacts:
    """A definition that is in force: what callers may be shown, less their grants."""

    kind: str
    """`tool`, `resource`, `template` or `prompt`."""
    server_id: str
    name: str
    """The server's own name; for resources and templates the URI."""
    definition: dict[str, Any]
    """The server's own JSON object, unknown members and the order of members kept."""
    digest: str
    """SHA-256 of its canonical form, in hexadecimal."""
    effects: str = "unknown"
    """In force for tools (see `effective_effects`); empty for everything else."""
    position: int = 0
    """Its place in the server's own list."""


@dataclass(frozen=True, slots=True)
class EntryFacts:
    """One choice of a composed toolset."""

    server_id: str
    kind: str
    """One of KINDS, or `all` for everything of the server."""
    pattern: str = "*"
    """The server's own name, or a pattern in which `*` matches any run of characters."""
    rename: str = ""
    """The full name that callers see instead of `server__name`; tools and prompts."""
    description: str = ""
    """The description that callers see instead of the server's."""


@dataclass(frozen=True, slots=True)
class ToolsetFacts:
    """A virtual server at `/mcp/<slug>`."""

    id: str
    tenant_id: str
    slug: str
    name: str
    description: str = ""
    instructions: str = ""
    server_id: str | None = None
    """Set on the toolset that came with a server: everything of it, under its own names, and no entries."""
    paused: bool = False
    entries: tuple[EntryFacts, ...] = ()
