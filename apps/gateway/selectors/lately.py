"""What really happened between clients and servers in the last 24 hours, from the newest rows of the log."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from apps.audit.selectors import counted_lately
from apps.gateway.models import ClientSeen

LATELY = timedelta(hours=24)
ASKED = "call.asked"
"""A server asked a client something in the middle of a call."""
ENDED = ("call.outcome", "call.refused")
PROTOCOL = (
    "not-expressible", "input-refused", "missing-capability", "unsupported-protocol-version", "header-mismatch", "method-not-found",
    "session-gone", "stream-gone",
)  # fmt: skip
"""Types of problems that come from what the two sides speak."""


@dataclass(slots=True)
class Happened:
    """What the log says of the last 24 hours."""

    asked: dict[str, int] = field(default_factory=dict)
    """Method → how often a server asked a client that."""
    problems: dict[str, int] = field(default_factory=dict)
    """Type of a problem that comes from the protocol → how often."""
    last: datetime | None = None
    whole: bool = True
    """The whole time was looked at; else its newest 20,000 rows."""

    @property
    def anything(self) -> bool:
        """Tell whether there is something to say."""
        return bool(self.asked or self.problems)


def happened(*, server: str = "", tenant: object = None, client: ClientSeen | None = None) -> Happened:
    """Return what happened: in everything in view, with one server (slug), with one client."""
    about: dict[str, Any] = {}
    if tenant is not None:
        about["tenant"] = str(tenant)
    if server:
        about["server"] = server
    if client is not None:
        about |= {"tenant": str(client.tenant_id), "actor_id": str(client.api_key_id)}
        if called := log_name(client):
            about["agent"] = called
    asked, whole = counted_lately("action", event_types=(ASKED,), since=LATELY, **about)
    ended, _ = counted_lately("error_type", event_types=ENDED, since=LATELY, error_type=PROTOCOL, **about)
    return Happened(
        asked={str(action or "?"): number for (action,), number, _ in asked},
        problems={str(kind): number for (kind,), number, _ in ended},
        last=max((last for _, _, last in (*asked, *ended)), default=None),
        whole=whole,
    )


def happened_by_server(tenant: object = None) -> tuple[dict[tuple[str, str], Happened], bool]:
    """Return (tenant id, slug of the server) → what happened with it, and whether the whole time was looked at."""
    about: dict[str, Any] = {} if tenant is None else {"tenant": str(tenant)}
    found: dict[tuple[str, str], Happened] = {}
    asked, whole = counted_lately("tenant", "server", "action", event_types=(ASKED,), since=LATELY, **about)
    ended, _ = counted_lately("tenant", "server", "error_type", event_types=ENDED, since=LATELY, error_type=PROTOCOL, **about)
    for rows, member in ((asked, "asked"), (ended, "problems")):
        for (tenant_id, server, what), number, last in rows:
            one = found.setdefault((str(tenant_id), str(server or "")), Happened(whole=whole))
            getattr(one, member)[str(what or "?")] = number
            one.last = max(last, one.last) if one.last is not None else last
    return found, whole


def log_name(client: ClientSeen) -> str:
    """Return what the log calls a client (see `envelope.client_label`)."""
    return f"{client.name} {client.version}".strip()[:120]
