"""What every client looks like to a test, whichever SDK it is."""

from dataclasses import dataclass, field
from typing import Any

MODERN, LEGACY = "2026-07-28", "2025-11-25"
TIMEOUT = 20.0


class Refused(Exception):
    """What a client makes of an error; `code`, `data` and `status` are None where the client does not tell."""

    def __init__(self, message: str, *, code: Any = None, data: Any = None, status: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        self.status = status


@dataclass(frozen=True)
class Kind:
    """One client in one mode."""

    name: str
    family: str
    mode: str
    revision: str

    @property
    def modern(self) -> bool:
        """Tell whether it speaks 2026-07-28 with Switchyard."""
        return self.revision == MODERN


KINDS = {
    kind.name: kind
    for kind in (
        Kind("python-auto", "python", "auto", MODERN),
        Kind("python-legacy", "python", "legacy", LEGACY),
        Kind("python-modern", "python", MODERN, MODERN),
        Kind("fastmcp", "fastmcp", "auto", MODERN),
        Kind("fastmcp-legacy", "fastmcp", "legacy", LEGACY),
        Kind("ts2-legacy", "v2", "legacy", LEGACY),
        Kind("ts2-auto", "v2", "auto", MODERN),
        Kind("ts2-modern", "v2", "modern", MODERN),
        Kind("ts1", "v1", "legacy", LEGACY),
        Kind("ts1-sse", "v1", "sse", LEGACY),
    )
}


@dataclass
class Connection:
    """A connected client. Lists and results are JSON, in the protocol's spelling."""

    kind: Kind
    revision: str = ""
    server_info: dict[str, Any] | None = None
    capabilities: dict[str, Any] = field(default_factory=dict)
    instructions: str | None = None
    notices: list[str] = field(default_factory=list)
    """Methods of the notifications that came by themselves."""

    async def items(self, what: str) -> list[dict[str, Any]]:
        """Return all pages of tools, resources, templates or prompts."""
        raise NotImplementedError

    async def call(
        self, name: str, arguments: dict[str, Any] | None = None, *, steps: list[Any] | None = None
    ) -> dict[str, Any]:
        """Call a tool; with `steps`, ask for progress and put (progress, total) there. Raises Refused."""
        raise NotImplementedError

    async def cancelled_call(self, name: str, arguments: dict[str, Any], ready: Any) -> None:
        """Call a tool and cancel the call as this client's users do, once `ready()` is awaited."""
        raise NotImplementedError

    async def read(self, uri: str) -> dict[str, Any]:
        """Read a resource. Raises Refused."""
        raise NotImplementedError

    async def prompt(self, name: str, arguments: dict[str, str] | None = None) -> dict[str, Any]:
        """Get a prompt. Raises Refused."""
        raise NotImplementedError

    async def complete(
        self, ref: dict[str, str], argument: dict[str, str], context: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Complete an argument. Raises Refused."""
        raise NotImplementedError

    async def ping(self) -> None:
        """Ping. Raises Refused."""
        raise NotImplementedError

    async def listen(self) -> None:
        """Be told of changed lists from now on, the way of this client's revision."""
        raise NotImplementedError

    async def text(self, name: str, arguments: dict[str, Any] | None = None) -> str:
        """Return the text of a tool's answer, which must not be an error."""
        result = await self.call(name, arguments)
        assert not result.get("isError"), result
        return result["content"][0]["text"]

    async def names(self, what: str = "tools") -> list[str]:
        """Return what a list names."""
        key = {"resources": "uri", "templates": "uriTemplate"}.get(what, "name")
        return [item[key] for item in await self.items(what)]
