"""The built-in servers: programs of their own, registered like any other stdio server."""

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class BuiltinServer:
    """How a built-in server is registered."""

    slug: str
    name: str
    description: str
    command: str
    args: tuple[str, ...]
    cwd: str


def _server(slug: str, name: str, description: str) -> BuiltinServer:
    module = f"apps.workbench.servers.{slug.replace('-', '_')}"
    return BuiltinServer(slug, name, description, sys.executable, ("-m", module), str(ROOT))


def builtin_servers() -> list[BuiltinServer]:
    """Return every built-in server."""
    return [
        _server(
            "system",
            "System",
            "Information about this installation, a safe calculator, and a small context store for each tenant.",
        )
    ]
