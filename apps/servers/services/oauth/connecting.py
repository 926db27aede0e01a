"""Connecting: a person is led to the authorization server and comes back, or Switchyard gets a token as a client by itself."""

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from django.db.models import Q

from apps.common.clock import now
from apps.common.context import current_actor, every_tenant, tenant_scope
from apps.common.errors import AddressRefused, AuthorizationFailed, Conflict, NotFound, PermissionDenied, SwitchyardError
from apps.common.events import ControlEvent
from apps.common.hooks_in_transaction import emit
from apps.common.outbox import audit_apart, changed, unit_of_work
from apps.servers import domain
from apps.servers.models import Endpoint, OAuthConnection, PendingAuthorization, Server
from apps.servers.services import addresses, admission
from apps.servers.services.oauth import discovery, grants, identity, store
from apps.servers.services.oauth.discovery import Found
from apps.servers.services.oauth.fetching import Fetcher, apart, printable
from apps.servers.services.oauth.grants import Tokens
from apps.servers.services.oauth.identity import Identity
from apps.servers.services.oauth.refreshing import STEP_UPS
from apps.servers.services.secrets import keyring, stored_headers

if TYPE_CHECKING:
    from apps.accounts.models import User

PENDING_SECONDS = 600
"""For a person to come back from the authorization server."""
PENDING_AT_ONCE = 20
"""Authorizations that one user may have begun; the oldest gives way."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a connect leads to."""

    server: Server
    authorization_url: str = ""
    """Where the person goes on; empty where none is needed."""
    issuer: str = ""
    scope: str = ""
    expires_at: datetime | None = None
    connection: OAuthConnection | None = None
    """What stands already, where no person is needed."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is known before anything is asked."""

    row: Server
    endpoint: Endpoint
    user: Any
    """Whose own connection it will be; None: the server's."""
    already: str
    """Scopes that the connection is to have in any case."""
    entered: Identity | None


def begin(server: Server, *, person: "User | None", personal: bool = False) -> Begun:
    """Begin to connect a server; returns where `person` has to go, or what stands already where the server is reached without one.

    `personal`: the connection will be that person's own, else the server's. Raises NotFound, PermissionDenied, Conflict where the server
    is not reached so, AuthorizationFailed (its `rule` names what is wrong with the authorization server), AddressRefused (recorded), and
    the UpstreamError family.
    """
    plan = _plan(server, person, personal)
    row = plan.row
    by_itself = row.auth == domain.CLIENT_CREDENTIALS
    known = [] if plan.entered is not None else identity.registered(row.tenant_id)
    headers, url = stored_headers(row), plan.endpoint.url
    document_at, redirect_uri, kind = identity.document_url(), identity.callback_url(), identity.application_type()

    async def work(fetcher: Fetcher) -> tuple[Found, Identity, Tokens | None]:
        challenge = await discovery.challenge_of(fetcher, url, headers)
        found = await discovery.find(
            fetcher,
            url,
            challenge,
            issuers=(plan.entered.issuer,) if plan.entered is not None else (),
            scope=row.oauth_scope,
            already=plan.already,
            code=not by_itself,
        )
        client = await identity.choose(
            fetcher, found, entered=plan.entered, known=known, document_at=document_at, redirect_uri=redirect_uri, kind=kind
        )
        tokens = None
        if by_itself:
            tokens = await grants.by_credentials(fetcher, client, found.kept(), scope=found.scope, resource=found.resource)
        return found, client, tokens

    with _recorded(row, plan.user):
        found, client, tokens = apart(work, policy=addresses.network_policy(), server_url=url)
    if tokens is not None:
        with unit_of_work():
            connection = _keep(plan, found.kept(), found.issuer, found.resource, found.scope, client, tokens)
        return Begun(row, issuer=found.issuer, scope=connection.scope, connection=connection)
    assert person is not None
    return _lead(plan, found, client, person)


def _plan(server: Server, person: "User | None", personal: bool) -> _Plan:
    row, endpoint = _find(server, personal=personal)
    if not row.by_oauth:
        raise Conflict(f"{row.slug} is reached with stored headers; set its authentication to OAuth first.")
    if personal and row.auth != domain.OAUTH_USER:
        raise Conflict(f"{row.slug} has one connection for everybody, which an operator makes.")
    if row.auth != domain.CLIENT_CREDENTIALS and person is None:
        raise PermissionDenied(
            "A person has to agree at the authorization server: connect with a user, or with a key of a user."
        )
    entered = identity.entered_for(row)
    if row.auth == domain.CLIENT_CREDENTIALS and entered is None:
        raise Conflict(f"{row.slug} is reached as a client by itself: enter client id and secret, or private key, first.")
    user = person if personal else None
    before = store.find(row, user.pk if user is not None else None)
    if before is not None and before.wanted_scope and before.step_ups >= STEP_UPS:
        raise Conflict(
            f"{row.slug} has refused {STEP_UPS} wider authorizations in a row that it asked for itself. Disconnect it to start over."
        )
    already = before.wanted_scope if before is not None else ""
    return _Plan(row, endpoint, user, already, entered)


def _find(server: Server, *, personal: bool) -> tuple[Server, Endpoint]:
    if not personal:
        return admission.find(server)
    return admission.find(server, action="server.call")


def _lead(plan: _Plan, found: Found, client: Identity, person: "User") -> Begun:
    """Write down that the person is on the way, and return where to."""
    from mcp.client.auth import PKCEParameters

    row = plan.row
    target = str(found.metadata.authorization_endpoint)
    if urlsplit(target).scheme != "https" and not plan.endpoint.url.startswith("http://"):
        raise AuthorizationFailed("The authorization endpoint is not reached by https.", rule="https")
    pkce, state = PKCEParameters.generate(), secrets.token_urlsafe(32)
    expires_at = now() + timedelta(seconds=PENDING_SECONDS)
    with unit_of_work():
        _make_room(person)
        client_row = identity.store(client, tenant_id=row.tenant_id)
        pending = PendingAuthorization(
            tenant_id=row.tenant_id,
            state_digest=digest(state),
            server=row,
            user=person,
            personal=plan.user is not None,
            client=client_row,
            metadata=found.kept(),
            resource=found.resource,
            scope=found.scope,
            redirect_uri=identity.callback_url(),
            server_url=plan.endpoint.url,
            expires_at=expires_at,
        )
        pending.verifier = keyring().seal(pkce.code_verifier.encode(), associated=pending.associated)
        pending.save(force_insert=True)
        store.record(
            row, "connection.started", user=plan.user, issuer=found.issuer, scope=found.scope, client=client_row.client_id
        )
    parameters = {
        "response_type": "code",
        "client_id": client_row.client_id,
        "redirect_uri": pending.redirect_uri,
        "state": state,
        "code_challenge": pkce.code_challenge,
        "code_challenge_method": "S256",
        **({"resource": found.resource} if found.resource else {}),
        **({"scope": found.scope} if found.scope else {}),
        **({"prompt": "consent"} if "offline_access" in found.scope.split() else {}),
    }
    joint = "&" if urlsplit(target).query else "?"
    return Begun(row, f"{target}{joint}{urlencode(parameters)}", found.issuer, found.scope, expires_at)


def _make_room(person: "User") -> None:
    open_ones = (
        PendingAuthorization.unscoped.filter(user=person, used_at=None).order_by("-created_at").values_list("pk", flat=True)
    )
    PendingAuthorization.unscoped.filter(pk__in=list(open_ones[PENDING_AT_ONCE - 1 :])).delete()


def finish(*, person: "User", state: str, code: str = "", error: str = "", issuer: str | None = None) -> OAuthConnection:
    """End what `begin` began, when the person comes back with the authorization server's answer; returns the connection that stands now.

    A state is good once, for whoever began it, for ten minutes. `issuer` is the answer's `iss` (RFC 9207), compared byte for byte before
    the code is redeemed. Raises NotFound for a state that is nobody's or another's, Conflict for one that was used or is too old,
    AuthorizationFailed, AddressRefused and the UpstreamError family; all of them are recorded.
    """
    with every_tenant():
        pending = (
            PendingAuthorization.unscoped.select_related("server", "client", "user", "tenant")
            .filter(state_digest=digest(state))
            .first()
        )
        if pending is None or pending.user_id != person.pk:
            _refuse(pending, "state")
            raise NotFound("This answer belongs to no authorization that you began. Begin again on the server's page.")
    with tenant_scope(pending.tenant_id):
        row, endpoint = _find(pending.server, personal=pending.personal)
        _burn(pending)
        user = person if pending.personal else None
        with _recorded(row, user):
            return _redeem(pending, row, endpoint, user, code=code, error=error, issuer=issuer)


def _burn(pending: PendingAuthorization) -> None:
    """Use the state up, before anything is done with it."""
    moment = now()
    rows = PendingAuthorization.unscoped.filter(pk=pending.pk, used_at=None)
    if pending.expires_at <= moment:
        rows.update(used_at=moment)
        _refuse(pending, "expired")
        raise Conflict("You came back too late: the authorization was begun more than ten minutes ago. Begin again.")
    if not rows.update(used_at=moment):
        _refuse(pending, "replay")
        raise Conflict("This answer has been used already. Look whether the server is connected, else begin again.")


def _redeem(
    pending: PendingAuthorization, row: Server, endpoint: Endpoint, user: Any, *, code: str, error: str, issuer: str | None
) -> OAuthConnection:
    from mcp.client.auth import OAuthFlowError
    from mcp.client.auth.utils import validate_authorization_response_iss
    from mcp.shared.auth import OAuthMetadata

    if endpoint.url != pending.server_url or not row.by_oauth or pending.personal != (user is not None):
        raise Conflict(f"The address or authentication of {row.slug} has changed since. Begin again.")
    try:
        validate_authorization_response_iss(issuer, OAuthMetadata.model_validate(pending.metadata))
    except OAuthFlowError:
        raise AuthorizationFailed(
            "The answer does not come from the authorization server that you were led to (iss): it is not used.", rule="iss"
        ) from None
    if error or not code:
        said = printable(error, 60) or "no code"
        raise AuthorizationFailed(f"The authorization server did not agree ({said}).", rule="declined")
    client = identity.of_row(pending.client)
    verifier = keyring().open(bytes(pending.verifier), associated=pending.associated).decode()
    metadata = dict(pending.metadata)

    async def work(fetcher: Fetcher) -> Tokens:
        return await grants.by_code(
            fetcher,
            client,
            metadata,
            code=code,
            verifier=verifier,
            redirect_uri=pending.redirect_uri,
            resource=pending.resource,
        )

    tokens = apart(work, policy=addresses.network_policy(), server_url=endpoint.url)
    plan = _Plan(row, endpoint, user, "", None)
    with unit_of_work():
        return _keep(plan, metadata, str(metadata["issuer"]), pending.resource, pending.scope, client, tokens)


def _keep(
    plan: _Plan, metadata: Mapping[str, Any], issuer: str, resource: str, asked: str, client: Identity, tokens: Tokens
) -> OAuthConnection:
    """Write the connection down, in the place of the one before it, and have the server asked again. Needs a unit of work."""
    row, endpoint = admission.find(plan.row, action="server.call" if plan.user is not None else "server.write", lock=True)
    connection = store.find(row, plan.user.pk if plan.user is not None else None)
    if connection is None:
        connection = OAuthConnection(tenant_id=row.tenant_id, server=row, user=plan.user)
    elif not connection.wanted_scope:
        connection.step_ups = 0
    connection.client = identity.store(client, tenant_id=row.tenant_id)
    connection.issuer, connection.resource, connection.metadata = issuer, resource, dict(metadata)
    connection.refresh, connection.wanted_scope = None, ""
    connection.connected_at, connection.connected_by = now(), current_actor().label[:200]
    store.put_tokens(connection, tokens, asked=asked)
    connection.save()
    expires = connection.expires_at.isoformat() if connection.expires_at is not None else None
    store.record(
        row, "connection.connected", connection_id=connection.pk, user=plan.user, issuer=issuer, scope=connection.scope, expires_at=expires,
        refreshes=connection.refresh is not None, client=client.client_id,
    )  # fmt: skip
    store.tell(connection, ended=True)
    if plan.user is None or row.discovered_at is None:
        renew_server(row, endpoint)
    return connection


def renew_server(row: Server, endpoint: Endpoint) -> None:
    """Have open connections to a server closed and what it offers looked at. Needs a unit of work and the server's row, locked."""
    admission.forget_observations(row, endpoint)
    row.discovery_error = ""
    row.save(update_fields=["version", "discovery_error", "updated_at"])
    endpoint.save()
    emit("server.connection_changed", server=row)
    changed("server", row.pk, tenant_id=row.tenant_id)


@contextmanager
def _recorded(row: Server, user: Any) -> Iterator[None]:
    """Write into the log what keeps a connection from being made."""
    try:
        yield
    except SwitchyardError as error:
        rule = "network" if isinstance(error, AddressRefused) else str(error.extra.get("rule", error.slug))
        audit_apart(store.event(row, "connection.refused", user=user, outcome="refused", rule=rule, reason=error.detail))
        raise


def _refuse(pending: PendingAuthorization | None, rule: str) -> None:
    """Record an answer that is not taken."""
    if pending is None:
        audit_apart(ControlEvent("connection.refused", "server.write", "connection", outcome="refused", details={"rule": rule}))
        return
    audit_apart(
        store.event(
            pending.server, "connection.refused", user=pending.user if pending.personal else None, outcome="refused", rule=rule
        )
    )


def digest(state: str) -> bytes:
    """Return what a state is known by."""
    return hashlib.sha256(state.encode("utf-8", "replace")).digest()


def forget_pending() -> int:
    """Delete authorizations that nobody comes back to; those used or expired a day ago. Returns how many."""
    old = now() - timedelta(days=1)
    return PendingAuthorization.unscoped.filter(Q(expires_at__lt=old)).delete()[0]
