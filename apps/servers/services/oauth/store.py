"""Rows of connections: tokens in and out, what became of them, and the notices of it. The verbs stand beside this module."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q

from apps.common.clock import now
from apps.common.crypto.keyring import DecryptionFailed
from apps.common.errors import NotReady
from apps.common.events import ControlEvent
from apps.common.outbox import audit, order
from apps.servers.models import Endpoint, OAuthConnection, Server
from apps.servers.services.endpoints import set_endpoint_state
from apps.servers.services.oauth.grants import Tokens
from apps.servers.services.secrets import keyring

CONNECTION_CHANGED = "connection-changed"
"""Name of the order to every data plane; its payload is `server_id`, `user_id` and `ended`."""
LEAD_SECONDS, LEAD_SHARE = 300.0, 0.2
"""A token is refreshed so long before its end, or this part of its life where that is shorter."""


@dataclass(frozen=True, slots=True)
class Held:
    """The token of a connection, for whoever sends it. Never logged."""

    connection_id: str
    generation: int
    access: str = field(repr=False)
    expires_at: datetime | None
    refreshed_at: datetime | None


def held(row: OAuthConnection) -> Held:
    """Return a connection's token. Raises NotReady when it cannot be decrypted."""
    return Held(str(row.pk), row.generation, open_token(row, "access"), row.expires_at, row.refreshed_at)


def open_token(row: OAuthConnection, name: str) -> str:
    """Return the sealed token `access` or `refresh`, or nothing. Raises NotReady."""
    sealed = getattr(row, name)
    if sealed is None:
        return ""
    try:
        return keyring().open(bytes(sealed), associated=row.associated(name)).decode()
    except DecryptionFailed:
        raise NotReady(
            f"The token of the connection with {row.server.slug} cannot be decrypted with the keys of this installation: connect it again."
        ) from None


def put_tokens(row: OAuthConnection, tokens: Tokens, *, asked: str) -> None:
    """Put fresh tokens into a row, unsaved. What the answer leaves out stays as it was (RFC 6749, sections 5.1 and 6)."""
    moment = now()
    row.access = keyring().seal(tokens.access.encode(), associated=row.associated("access"))
    if tokens.refresh:
        row.refresh = keyring().seal(tokens.refresh.encode(), associated=row.associated("refresh"))
    row.scope = asked if tokens.scope is None else tokens.scope
    if set(row.wanted_scope.split()) <= set(row.scope.split()):
        row.wanted_scope = ""
    row.generation += 1
    row.refreshed_at = moment
    row.expires_at = None if tokens.seconds is None else moment + timedelta(seconds=tokens.seconds)
    row.refresh_due_at = due(moment, row.expires_at)
    row.state, row.reason, row.failures = OAuthConnection.State.CONNECTED, "", 0
    row.claim, row.claim_until = "", None


def due(moment: datetime, expires_at: datetime | None) -> datetime | None:
    """Return when a token given at `moment` is to be refreshed."""
    if expires_at is None:
        return None
    life = (expires_at - moment).total_seconds()
    return expires_at - timedelta(seconds=min(LEAD_SECONDS, life * LEAD_SHARE))


def find(server: Server, user_id: UUID | str | None = None) -> OAuthConnection | None:
    """Return the connection of a server, or a user's own with it."""
    rows = OAuthConnection.unscoped.select_related("server", "user")
    whose = Q(user_id=user_id) if user_id else Q(user__isnull=True)
    return rows.filter(whose, server_id=server.pk).first()


def fail(row: OAuthConnection, reason: str) -> None:
    """Note that a connection cannot be used any more; saved. Needs a unit of work."""
    row.state, row.reason, row.refresh_due_at = OAuthConnection.State.FAILED, reason[:500], None
    row.claim, row.claim_until = "", None
    row.save()
    tell(row, ended=True)
    if row.user_id is None:
        for endpoint_id in Endpoint.unscoped.filter(server_id=row.server_id).values_list("pk", flat=True):
            set_endpoint_state(endpoint_id, Endpoint.State.UNAUTHENTICATED, reason)


def tell(row: OAuthConnection, *, ended: bool = False) -> None:
    """Tell every data plane that a connection has another token, or none any more."""
    order(CONNECTION_CHANGED, server_id=str(row.server_id), user_id=str(row.user_id or ""), ended=ended)


def record(
    server: Server, event_type: str, *, connection_id: object = "", user: Any = None, outcome: str = "ok", **details: Any
) -> None:
    """Write into the audit log what became of a connection; no token is ever among the details. Needs a unit of work."""
    audit(event(server, event_type, connection_id=connection_id, user=user, outcome=outcome, **details))


def event(
    server: Server, event_type: str, *, connection_id: object = "", user: Any = None, outcome: str = "ok", **details: Any
) -> ControlEvent:
    """Return the event of a connection."""
    whose = user.get_username() if user is not None else ""
    return ControlEvent(
        event_type=event_type,
        action="server.call" if user is not None else "server.write",
        object_kind="connection",
        object_id=str(connection_id),
        object_label=f"{server.slug} for {whose}" if whose else server.slug,
        outcome=outcome,
        tenant_id=str(server.tenant_id),
        server=server.slug,
        details={**({"user": whose} if whose else {}), **details},
    )
