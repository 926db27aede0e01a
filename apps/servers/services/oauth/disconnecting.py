"""The other verbs on connections: ended by those whose they are, and the client that an operator enters for a server."""

from typing import Any

from apps.common import authorise
from apps.common.errors import NotFound, SwitchyardError
from apps.common.outbox import unit_of_work
from apps.servers import rules
from apps.servers.domain import CLIENT_CREDENTIALS
from apps.servers.models import Endpoint, OAuthClient, OAuthConnection, Server
from apps.servers.services import addresses, admission
from apps.servers.services.description import record as record_server
from apps.servers.services.oauth import grants, identity, store
from apps.servers.services.oauth.connecting import renew_server
from apps.servers.services.oauth.fetching import Fetcher, apart
from apps.servers.services.oauth.identity import ALGORITHMS, METHODS, PRIVATE_KEY, Identity
from apps.servers.services.validation import Problems

REVOKE_SECONDS = 12.0
ENDED = "It was disconnected. An operator can connect it again."


def disconnect(connection: OAuthConnection) -> bool:
    """End a connection: its tokens are forgotten here at once, and revoked at the authorization server where that can be asked.

    Returns whether they were revoked there. A user may end their own; an operator each. Raises NotFound, PermissionDenied.
    """
    row = _mine(connection)
    tokens = _opened(row)
    with unit_of_work():
        row = _mine(row)
        _drop(row, "connection.disconnected")
        if row.user_id is None:
            server, endpoint = admission.find(row.server, lock=True)
            renew_server(server, endpoint)
            endpoint.state, endpoint.state_reason = Endpoint.State.UNAUTHENTICATED, ENDED
            endpoint.save(update_fields=["state", "state_reason", "updated_at"])
    revoked = _revoke(row, tokens)
    with unit_of_work():
        store.record(
            row.server, "connection.revoked", connection_id=row.pk, user=row.user, issuer=row.issuer, at_the_issuer=revoked
        )
    return revoked


def _mine(connection: OAuthConnection) -> OAuthConnection:
    row: OAuthConnection | None = (
        OAuthConnection.objects.select_related("server", "user", "client").filter(pk=connection.pk).first()
    )
    if row is None:
        raise NotFound("No such connection.")
    principal = authorise.current_principal()
    own = row.user_id is not None and principal.kind == "user" and principal.id == str(row.user_id)
    action = "server.call" if own else "server.write"
    authorise.require(action, tenant_id=row.tenant_id, kind="connection", object_id=row.pk, label=str(row))
    return row


def drop_connections(server: Server, why: str) -> int:
    """End every connection of a server whose address or authentication has become another: its tokens are not for the new one.

    Needs a unit of work; the caller has asked the policy. Returns how many there were.
    """
    rows = list(OAuthConnection.unscoped.select_related("server", "user").filter(server_id=server.pk))
    for row in rows:
        _drop(row, "connection.disconnected", reason=why)
    return len(rows)


def _drop(row: OAuthConnection, event: str, **details: Any) -> None:
    store.tell(row, ended=True)
    store.record(row.server, event, connection_id=row.pk, user=row.user, issuer=row.issuer, **details)
    OAuthConnection.unscoped.filter(pk=row.pk).delete()


def _opened(row: OAuthConnection) -> list[tuple[str, str]]:
    try:
        return [(text, f"{name}_token") for name in ("refresh", "access") if (text := store.open_token(row, name))]
    except SwitchyardError:
        return []


def _revoke(row: OAuthConnection, tokens: list[tuple[str, str]]) -> bool:
    """Ask the authorization server to forget the tokens (RFC 7009); what goes wrong there is of no consequence here."""
    if row.client is None or not tokens or not row.metadata.get("revocation_endpoint"):
        return False
    try:
        client, metadata = identity.of_row(row.client), dict(row.metadata)
        url = Endpoint.unscoped.filter(server_id=row.server_id).values_list("url", flat=True).first() or ""

        async def work(fetcher: Fetcher) -> bool:
            return all([await grants.revoke(fetcher, client, metadata, text, hint) for text, hint in tokens])

        return apart(work, policy=addresses.network_policy(), server_url=url, limit=REVOKE_SECONDS)
    except SwitchyardError:
        return False


def set_client(
    server: Server, *, issuer: str, client_id: str, secret: str | None = None, method: str = "", private_key: str | None = None,
    algorithm: str = "",
) -> OAuthClient:  # fmt: skip
    """Enter the client that Switchyard is registered as with the server's authorization server; it takes the place of the one before.

    Its secret, or its private key (PEM), is stored encrypted and sent to that issuer alone; None keeps the one that is stored. Connections
    made with the client before are ended when it is another one. Raises ValidationFailed, NotFound, PermissionDenied.
    """
    with unit_of_work():
        row, _ = admission.find(server, lock=True)
        problems = Problems()
        if not row.by_oauth:
            problems.add("auth", "The server is reached with stored headers; set its authentication to OAuth first.")
        problems.check("issuer", rules.check_url, issuer)
        if not isinstance(client_id, str) or not 0 < len(client_id) <= 1000 or not client_id.isprintable():
            problems.add("client_id", "A client id has 1 to 1,000 printable characters.")
        before = OAuthClient.unscoped.filter(server=row).first()
        given = private_key if private_key is not None else secret
        if method not in ("", *METHODS):
            problems.add("token_endpoint_auth_method", f"Use one of {', '.join(METHODS)}.")
        if private_key is not None:
            method = method or PRIVATE_KEY
            algorithm = _check_key(private_key, algorithm, problems)
        kept = given is None and before is not None and before.issuer == issuer and before.client_id == client_id
        if method == PRIVATE_KEY and private_key is None and not kept:
            problems.add("private_key", "A private key in PEM is needed.")
        if row.auth == CLIENT_CREDENTIALS and given is None and not kept:
            problems.add("client_secret", "A client that is by itself needs a secret or a private key.")
        if len(given or "") > rules.MAX_VALUE_BYTES:
            problems.add("client_secret", "It is too long.")
        problems.raise_if_any("The client")
        text = (identity.of_row(before).secret if kept and before is not None else given) or ""
        if kept and before is not None and not method:
            method, algorithm = before.method, before.algorithm
        if before is not None:
            if (before.issuer, before.client_id) != (issuer, client_id):
                drop_connections(row, "another client was entered")
            before.delete()
        stored = identity.store(
            Identity(issuer, client_id, method, text, algorithm, OAuthClient.Origin.PREREGISTERED),
            tenant_id=row.tenant_id,
            server=row,
        )
        OAuthConnection.unscoped.filter(server=row, client=None, issuer=issuer).update(client=stored)
        record_server(row, "server.client_set", {"issuer": issuer, "client": client_id, "method": method})
    return stored


def _check_key(text: str, algorithm: str, problems: Problems) -> str:
    """Check that a private key can sign; returns the algorithm that fits it."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError):
        problems.add("private_key", "This is not a private key in PEM without a password.")
        return ""
    fitting = {
        rsa.RSAPrivateKey: ("RS256", "PS256"),
        ec.EllipticCurvePrivateKey: ("ES256",),
        ed25519.Ed25519PrivateKey: ("EdDSA",),
    }
    allowed = next((names for kind, names in fitting.items() if isinstance(key, kind)), ())
    if (
        not allowed
        or (algorithm and algorithm not in allowed)
        or (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name != "secp256r1")
    ):
        problems.add("private_key", f"Use an RSA, P-256 or Ed25519 key, with one of {', '.join(ALGORITHMS)} that fits it.")
        return ""
    return algorithm or allowed[0]


def delete_client(server: Server) -> None:
    """Forget the client that was entered for a server, and the connections made with it. Raises NotFound, PermissionDenied."""
    with unit_of_work():
        row, endpoint = admission.find(server, lock=True)
        stored = OAuthClient.unscoped.filter(server=row).first()
        if stored is None:
            raise NotFound(f"No client was entered for {row.slug}.")
        if OAuthConnection.unscoped.filter(client=stored).exists():
            drop_connections(row, "the client was deleted")
            renew_server(row, endpoint)
        stored.delete()
        record_server(row, "server.client_deleted", {"issuer": stored.issuer, "client": stored.client_id})
