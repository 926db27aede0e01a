"""Names as callers see them.

`/mcp` and every composed toolset prefix with the server's slug (`server__tool`); the toolset that comes with a server keeps its own
names. Slugs have no underscore, so the first `__` of a full name is the border, whatever the tool's own name contains.
"""

import re

from apps.common.errors import Conflict, ValidationFailed
from apps.common.policy import matches

SEPARATOR = "__"
MAX_FULL_NAME = 64
"""Characters of a full name: what the narrowest of the widespread clients accept."""
MAX_OWN_NAME = 128
"""Characters of a tool's own name (MCP 2025-11-25, server/tools, Tool Names)."""
ALLOWED = re.compile(r"[A-Za-z0-9_.-]+")
"""Characters of a tool's name (MCP 2025-11-25, server/tools, Tool Names)."""


class NameTooLong(ValidationFailed):
    """A full name has more than 64 characters."""

    slug, title = "name-too-long", "The name is too long"


class NameCollision(Conflict):
    """Two things would have one name."""

    slug, title = "name-collision", "Two things would have one name"


def full_name(server_slug: str, name: str) -> str:
    """Return `<server>__<name>`, of any length: what grants speak of, for tools, prompts and URIs alike."""
    return f"{server_slug}{SEPARATOR}{name}"


def callable_name(server_slug: str, name: str) -> str:
    """Return the full name under which a tool or prompt is offered. Raises NameTooLong over 64 characters."""
    joined = full_name(server_slug, name)
    if len(joined) > MAX_FULL_NAME:
        raise NameTooLong(
            f"{name} of {server_slug} would be named {joined} ({len(joined)} characters; {MAX_FULL_NAME} are allowed): "
            "rename it in a toolset, or use the server's own toolset."
        )
    return joined


def split_name(full: str) -> tuple[str, str]:
    """Return (server slug, the server's own name) of a full name; the slug is empty where there is no border."""
    slug, border, name = full.partition(SEPARATOR)
    return (slug, name) if border else ("", full)


def is_exact(pattern: str) -> bool:
    """Tell whether a pattern names one thing."""
    return "*" not in pattern


def name_problem(name: str) -> str:
    """Say what MCP has against a tool's or prompt's name that callers are to see; empty = nothing."""
    if not name:
        return "it is empty"
    if len(name) > MAX_FULL_NAME:
        return f"it has {len(name)} characters; {MAX_FULL_NAME} are allowed"
    if not ALLOWED.fullmatch(name):
        return "only letters A-Z and a-z, digits, underscore, hyphen and dot are allowed"
    return ""


__all__ = (
    "ALLOWED",
    "MAX_FULL_NAME",
    "MAX_OWN_NAME",
    "SEPARATOR",
    "NameCollision",
    "NameTooLong",
    "callable_name",
    "full_name",
    "is_exact",
    "matches",
    "name_problem",
    "split_name",
)
