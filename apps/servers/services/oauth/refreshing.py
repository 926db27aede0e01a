"""Fresh tokens: ahead of their end by the clock, and at once where a server refuses one. One request for each token, whoever asks.

Who refreshes claims the row by a conditional UPDATE, asks the authorization server, and writes the answer where the claim still stands.
Others who want the same token wait for that. Between the answer and its commit lies one statement: when the process dies in it, or the
database stays away for longer than the answer is tried to be written, a rotated refresh token is lost and a person has to connect again.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from django.db import DatabaseError, close_old_connections, connection
from django.db.models import Q

from apps.common.clock import monotonic, now
from apps.common.context import SYSTEM, every_tenant
from apps.common.errors import (
    ConnectionRequired,
    NotReady,
    ScopeNeeded,
    SwitchyardError,
    UpstreamUnauthenticated,
    UpstreamUnavailable,
)
from apps.common.ids import short_id
from apps.common.outbox import unit_of_work
from apps.servers.domain import CLIENT_CREDENTIALS
from apps.servers.models import OAuthConnection
from apps.servers.services import addresses
from apps.servers.services.oauth import grants, identity, store
from apps.servers.services.oauth.discovery import MOST_SCOPE, Challenge
from apps.servers.services.oauth.fetching import apart
from apps.servers.services.oauth.grants import GrantRefused, Tokens
from apps.servers.services.oauth.store import Held

log = logging.getLogger(__name__)
T = TypeVar("T")

CLAIM_SECONDS = 40.0
"""For one refresh; a claim that is older belongs to a process that died."""
WAIT_SECONDS = 20.0
"""For a refresh that somebody else has claimed."""
TRUST_SECONDS = 3.0
"""A token that is refused within so long after it was given is not refreshed: the server takes none."""
WRITE_SECONDS = 20.0
"""How long an answer is tried to be written while the database is away."""
REST_SECONDS = 3.0
"""Between two attempts during an outage, however many calls want a token."""
STEP_UPS = 3
"""Wider authorizations in a row that came to nothing, after which no more are asked for."""
AT_ONCE = 4
BATCH = 200
_RETRY = (15.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds until the next attempt after one that an outage ended."""


def refresh_due(*, seconds: float = 50.0) -> int:
    """Refresh what is due; returns how many tokens are fresh now. Called by the clock; `seconds` bounds the whole."""
    until = monotonic() + seconds
    with every_tenant(actor=SYSTEM):
        rows = OAuthConnection.objects.filter(refresh_due_at__lte=now(), state=OAuthConnection.State.CONNECTED)
        waiting = list(rows.order_by("refresh_due_at").values_list("pk", "generation")[:BATCH])
        if not waiting:
            return 0

        def one(pk: UUID, generation: int) -> bool:
            if monotonic() > until:
                return False
            try:
                return refresh(pk, generation) is not None
            except SwitchyardError:
                return False
            finally:
                if not connection.in_atomic_block:
                    close_old_connections()

        if (
            connection.in_atomic_block or len(waiting) == 1
        ):  # threads have connections of their own, which see nothing uncommitted
            return sum(one(*each) for each in waiting)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="refresh") as pool:
            return sum(pool.map(lambda each: copy_context().run(one, *each), waiting))


def refresh(connection_id: UUID | str, generation: int, *, scope: str = "") -> Held:
    """Return a token newer than `generation`: the one that is there already, or a fresh one.

    `scope` widens what a client asks for by itself. Raises UpstreamUnauthenticated (or ConnectionRequired) when there is none to be had
    without a person, and the UpstreamError family, AddressRefused or NotReady after an outage.
    """
    deadline = monotonic() + WAIT_SECONDS
    with every_tenant(actor=SYSTEM):
        while True:
            row = _row(connection_id)
            if row.generation > generation:
                return store.held(row)
            _let_rest(row)
            claim = _claimed(row, generation)
            if claim:
                return _carry_out(row, claim, scope)
            if monotonic() > deadline:
                raise NotReady("The connection's token is being refreshed by another process, which takes too long.")
            time.sleep(0.05)


def _let_rest(row: OAuthConnection) -> None:
    """Raise UpstreamUnavailable shortly after an attempt that came to nothing: calls must not hammer an authorization server that is down."""
    if not row.failures or row.refresh_due_at is None:
        return
    tried = row.refresh_due_at - timedelta(seconds=_pause(row.failures))
    if tried + timedelta(seconds=REST_SECONDS) > now():
        raise UpstreamUnavailable(f"The token of {row.server.slug} cannot be refreshed for now: {row.reason}")


def _pause(failures: int) -> float:
    return _RETRY[min(failures, len(_RETRY)) - 1]


def _row(connection_id: UUID | str) -> OAuthConnection:
    row = OAuthConnection.unscoped.select_related("server", "user", "client").filter(pk=connection_id).first()
    if row is None:
        raise UpstreamUnauthenticated("The connection with this server was ended. An operator can connect it again.")
    if row.state == OAuthConnection.State.FAILED:
        raise missing(row)
    return row


def missing(row: OAuthConnection) -> UpstreamUnauthenticated:
    """Return the error for a connection that cannot be used."""
    if row.user_id is not None:
        return ConnectionRequired(
            f"Your connection with {row.server.slug} cannot be used any more: {row.reason} Connect again at "
            f"{identity.connect_url(row.server_id)}",
            connect_url=identity.connect_url(row.server_id),
            server=row.server.slug,
        )
    return UpstreamUnauthenticated(
        f"The connection with {row.server.slug} cannot be used any more: {row.reason} An operator has to connect it again."
    )


def _claimed(row: OAuthConnection, generation: int) -> str:
    """Try to become the one who refreshes, committed before anything is asked; returns the claim, or nothing."""
    moment, claim = now(), short_id()
    free = Q(claim="") | Q(claim_until__lt=moment)
    rows = OAuthConnection.unscoped.filter(free, pk=row.pk, generation=generation, state=OAuthConnection.State.CONNECTED)
    return claim if rows.update(claim=claim, claim_until=moment + timedelta(seconds=CLAIM_SECONDS)) else ""


def _carry_out(row: OAuthConnection, claim: str, scope: str) -> Held:
    try:
        tokens, asked = _ask(row, scope)
    except GrantRefused as error:
        _written(partial(_refused, row.pk, claim, error.detail))
        raise missing(_reread(row.pk)) from None
    except SwitchyardError as error:
        _written(partial(_put_off, row.pk, claim, error.detail))
        raise
    return _written(lambda: _accept(row.pk, claim, tokens, asked))


def _ask(row: OAuthConnection, scope: str) -> tuple[Tokens, str]:
    """Ask the authorization server. Raises GrantRefused, the UpstreamError family, AddressRefused, NotReady."""
    if row.client is None:
        raise GrantRefused("The client that it was made with is gone.", rule="client")
    client = identity.of_row(row.client)
    by_itself = row.server.auth == CLIENT_CREDENTIALS
    refresh_token = "" if by_itself else store.open_token(row, "refresh")
    if not by_itself and not refresh_token:
        raise GrantRefused("Its token has expired, and the authorization server gave none to refresh it with.", rule="expired")
    asked = scope or row.scope
    metadata, resource = dict(row.metadata), row.resource

    async def work(fetcher: Any) -> Tokens:
        if by_itself:
            return await grants.by_credentials(fetcher, client, metadata, scope=asked, resource=resource)
        return await grants.by_refresh(fetcher, client, metadata, refresh=refresh_token, resource=resource)

    return apart(work, policy=addresses.network_policy(), server_url=_url(row), limit=CLAIM_SECONDS - 10.0), asked


def _url(row: OAuthConnection) -> str:
    endpoint = row.server.endpoints.order_by("created_at").first()
    return endpoint.url if endpoint is not None else ""


def _written(write: Callable[[], T]) -> T:
    """Carry out a write, again and again while the database is away: what it writes exists nowhere else."""
    until = monotonic() + WRITE_SECONDS
    while True:
        try:
            return write()
        except DatabaseError:
            if monotonic() > until or connection.in_atomic_block:
                raise
            log.warning("A refreshed token could not be written yet; it is tried again.")
            connection.close()
            time.sleep(0.2)


def _reread(pk: UUID | str, claim: str = "") -> OAuthConnection:
    rows = OAuthConnection.unscoped.select_related("server", "user").select_for_update(of=("self",))
    with unit_of_work():
        row = (rows.filter(pk=pk, claim=claim) if claim else rows.filter(pk=pk)).first()
    if row is None:
        raise UpstreamUnauthenticated("The connection was made anew or ended while it was refreshed.")
    return row


def _accept(pk: UUID | str, claim: str, tokens: Tokens, asked: str) -> Held:
    with unit_of_work():
        row = _reread(pk, claim)
        store.put_tokens(row, tokens, asked=asked)
        row.save()
        store.tell(row)
        expires = row.expires_at.isoformat() if row.expires_at is not None else None
        store.record(
            row.server, "connection.refreshed", connection_id=row.pk, user=row.user, issuer=row.issuer, expires_at=expires
        )
        return store.held(row)


def _refused(pk: UUID | str, claim: str, reason: str) -> None:
    with unit_of_work():
        row = _reread(pk, claim)
        store.fail(row, reason)
        store.record(
            row.server,
            "connection.refresh_failed",
            connection_id=row.pk,
            user=row.user,
            outcome="failed",
            issuer=row.issuer,
            reason=reason,
            final=True,
        )


def _put_off(pk: UUID | str, claim: str, reason: str) -> None:
    """An outage: it is tried again, the connection stays as good as its token."""
    with unit_of_work():
        row = _reread(pk, claim)
        first = row.failures == 0
        row.failures += 1
        row.reason = reason[:500]
        row.claim, row.claim_until = "", None
        row.refresh_due_at = now() + timedelta(seconds=_pause(row.failures))
        row.save()
        if first:  # of an outage that lasts one event is enough
            store.record(
                row.server,
                "connection.refresh_failed",
                connection_id=row.pk,
                user=row.user,
                outcome="failed",
                issuer=row.issuer,
                reason=reason,
                final=False,
            )


def after_refusal(connection_id: UUID | str, generation: int, status: int, challenge: str) -> Held:
    """A server refused the token of this generation during a request; return another one to try.

    Raises ScopeNeeded for a token that does not reach far enough, UpstreamUnauthenticated or ConnectionRequired where a person has to
    connect again, and the UpstreamError family after an outage.
    """
    said = Challenge.read(challenge)
    with every_tenant(actor=SYSTEM):
        row = _row(connection_id)
        if status == 403:
            return _wider(row, generation, said)
        if row.generation > generation:
            return store.held(row)
        age = (now() - row.refreshed_at).total_seconds() if row.refreshed_at is not None else TRUST_SECONDS
        if age < TRUST_SECONDS:
            reason = "The server refuses the token that was just given for it."
            with unit_of_work():
                fresh = _reread(connection_id)
                if fresh.state == OAuthConnection.State.CONNECTED and fresh.generation == generation:
                    store.fail(fresh, reason)
                    store.record(
                        fresh.server, "connection.refused", connection_id=fresh.pk, user=fresh.user, outcome="failed",
                        issuer=fresh.issuer, reason=reason,
                    )  # fmt: skip
            raise missing(_reread(connection_id))
    return refresh(connection_id, generation)


def _wider(row: OAuthConnection, generation: int, said: Challenge) -> Held:
    """Want more scope: a client by itself asks for it, a person has to be asked."""
    have = row.scope.split()
    lacking = [scope for scope in said.scope.split() if scope not in have]
    if row.generation > generation and not lacking:
        return store.held(row)
    by_itself = row.server.auth == CLIENT_CREDENTIALS
    union = " ".join(dict.fromkeys([*have, *row.wanted_scope.split(), *said.scope.split()]))[:MOST_SCOPE]
    fruitless = _note_wanted(row.pk, union, said.scope, count=by_itself or not lacking)
    if by_itself and lacking and fruitless <= STEP_UPS:
        return refresh(row.pk, row.generation, scope=union)
    wanted = said.scope or "it does not say which"
    url = identity.connect_url(row.server_id)
    if row.user_id is not None:
        raise ConnectionRequired(
            f"{row.server.slug} wants a wider authorization for this ({wanted}). Connect again at {url}",
            connect_url=url,
            server=row.server.slug,
            scope=said.scope,
        )
    raise ScopeNeeded(
        f"{row.server.slug} wants a wider authorization for this ({wanted}). An operator has to connect it again and agree to it.",
        scope=said.scope,
    )


def _note_wanted(pk: UUID | str, union: str, scope: str, *, count: bool) -> int:
    """Keep what a server wants for the next connect, once for each token; return how many wider ones were of no use so far."""
    with unit_of_work():
        row = _reread(pk)
        if set(union.split()) <= set(row.wanted_scope.split()):
            return row.step_ups
        row.wanted_scope = union
        row.step_ups = min(row.step_ups + 1, STEP_UPS + 1) if count else 0
        row.save(update_fields=["wanted_scope", "step_ups", "updated_at"])
        store.record(
            row.server,
            "connection.scope_wanted",
            connection_id=row.pk,
            user=row.user,
            outcome="failed",
            issuer=row.issuer,
            wanted=scope,
            granted=row.scope,
        )
        return row.step_ups
