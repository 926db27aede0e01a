"""Parts of an object's page."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of an object page: a title with an anchor, a template and what it needs."""

    anchor: str
    title: str
    template: str
    context: dict[str, Any] = field(default_factory=dict)
    place: int = 50
    """Order on the page; the object's own configuration is at 60, its history at 90."""
    badge: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A link in the header of an object page; it only reads."""

    title: str
    href: str
    icon: str = ""
    primary: bool = False
