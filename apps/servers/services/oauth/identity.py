"""Who Switchyard is to authorization servers: its addresses, its metadata document, and the client that it is with each of them."""

import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings

from apps.common.clock import now
from apps.common.crypto.keyring import DecryptionFailed
from apps.common.errors import AuthorizationFailed, NotReady
from apps.servers.models import OAuthClient, Server
from apps.servers.services.oauth.discovery import Found
from apps.servers.services.oauth.fetching import Fetcher, error_words, printable
from apps.servers.services.secrets import keyring

if TYPE_CHECKING:
    from mcp.shared.auth import OAuthClientInformationFull

CALLBACK_PATH, DOCUMENT_PATH, CONNECT_PATH = "/oauth/callback", "/oauth/client-metadata.json", "/oauth/connect"
CLIENT_NAME = "Switchyard"
GRANTS = ["authorization_code", "refresh_token"]
PRIVATE_KEY = "private_key_jwt"
METHODS = ("client_secret_basic", "client_secret_post", "none", PRIVATE_KEY)
"""How a client shows itself at the token endpoint (RFC 7591, section 2; RFC 7523)."""
ALGORITHMS = ("RS256", "ES256", "PS256", "EdDSA")
_MOST = 1000


@dataclass(slots=True)
class Identity:
    """A client as it is used: what an OAuthClient row decrypts to, or one that is about to be stored. Never logged."""

    issuer: str
    client_id: str
    method: str = ""
    secret: str = field(default="", repr=False)
    """The client secret, or the private key in PEM."""
    algorithm: str = ""
    origin: str = OAuthClient.Origin.DYNAMIC
    row_id: Any = None
    """Of the stored row; None: not stored yet."""
    secret_expires_at: datetime | None = None


def callback_url() -> str:
    """Return where authorization servers send people back to."""
    return f"{settings.SWITCHYARD.public_url}{CALLBACK_PATH}"


def connect_url(server_id: object) -> str:
    """Return where a person connects their own account with a server."""
    return f"{settings.SWITCHYARD.public_url}{CONNECT_PATH}/{server_id}"


def document_url() -> str:
    """Return the address of the client metadata document, which is a client id; empty where authorization servers cannot read one."""
    from mcp.client.auth.utils import is_valid_client_metadata_url

    chosen: str = settings.SWITCHYARD.client_metadata_url
    if chosen == "off":
        return ""
    url = chosen or f"{settings.SWITCHYARD.public_url}{DOCUMENT_PATH}"
    return url if is_valid_client_metadata_url(url) else ""


def application_type() -> str:
    """Return `web`, or `native` for an installation that people reach on their own machine alone (SEP-837)."""
    host = urlsplit(settings.SWITCHYARD.public_url).hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost" or host.endswith(".localhost")
    return "native" if loopback else "web"


def document() -> dict[str, Any]:
    """Return the client metadata document (draft-ietf-oauth-client-id-metadata-document)."""
    return {
        "client_id": document_url() or f"{settings.SWITCHYARD.public_url}{DOCUMENT_PATH}",
        "client_name": CLIENT_NAME,
        "client_uri": settings.SWITCHYARD.public_url,
        "redirect_uris": [callback_url()],
        "grant_types": GRANTS,
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": application_type(),
    }


def of_row(row: OAuthClient) -> Identity:
    """Return what a stored client decrypts to. Raises NotReady when its secret cannot be decrypted."""
    secret = ""
    if row.sealed is not None:
        try:
            secret = keyring().open(bytes(row.sealed), associated=row.associated).decode()
        except DecryptionFailed:
            raise NotReady(
                f"The secret of the client {row.client_id} cannot be decrypted with the keys of this installation: enter it again."
            ) from None
    return Identity(row.issuer, row.client_id, row.method, secret, row.algorithm, row.origin, row.pk, row.secret_expires_at)


def entered_for(server: Server) -> Identity | None:
    """Return the client that an operator entered for a server, if any."""
    row = OAuthClient.unscoped.filter(server=server).first()
    return of_row(row) if row is not None else None


def registered(tenant_id: UUID | str) -> list[Identity]:
    """Return the clients that Switchyard registered itself in a tenant, the newest first, as far as they hold for its present address."""
    rows = OAuthClient.unscoped.filter(
        tenant_id=tenant_id, server=None, origin=OAuthClient.Origin.DYNAMIC, redirect_uri=callback_url()
    ).order_by("-created_at")
    return [of_row(row) for row in rows[:200] if row.secret_expires_at is None or row.secret_expires_at > now()]


def store(identity: Identity, *, tenant_id: UUID | str, server: Server | None = None) -> OAuthClient:
    """Write a client down; one that is stored already is returned. Needs a unit of work."""
    if identity.row_id is not None:
        return OAuthClient.unscoped.get(pk=identity.row_id)
    if identity.origin == OAuthClient.Origin.DOCUMENT:
        known = OAuthClient.unscoped.filter(
            tenant_id=tenant_id, server=None, issuer=identity.issuer, origin=identity.origin, client_id=identity.client_id
        ).first()
        if known is not None:
            return known
    row = OAuthClient(
        tenant_id=tenant_id,
        server=server,
        issuer=identity.issuer,
        origin=identity.origin,
        client_id=identity.client_id,
        method=identity.method,
        algorithm=identity.algorithm,
        redirect_uri=callback_url(),
        secret_expires_at=identity.secret_expires_at,
    )
    if identity.secret:
        row.sealed = keyring().seal(identity.secret.encode(), associated=row.associated)
    row.save(force_insert=True)
    return row


async def choose(
    fetcher: Fetcher,
    found: Found,
    *,
    entered: Identity | None,
    known: list[Identity],
    document_at: str,
    redirect_uri: str,
    kind: str,
) -> Identity:
    """Return who to be with the authorization server that was found: the client that an operator entered, else the metadata document where
    the server takes one, else a registration that stands, else a new one.

    Credentials go to the issuer that they are for and to no other. Raises AuthorizationFailed, AddressRefused, UpstreamError.
    """
    from mcp.client.auth.utils import issuers_match, should_use_client_metadata_url

    if entered is not None:
        if not issuers_match(entered.issuer, found.issuer):
            raise AuthorizationFailed(
                f"The client that was entered is for {printable(entered.issuer, 200)}, and the server trusts "
                f"{printable(found.issuer, 200)}: its credentials are not sent there.",
                rule="client-issuer",
            )
        return entered
    if should_use_client_metadata_url(found.metadata, document_at or None):
        return Identity(found.issuer, document_at, "none", origin=OAuthClient.Origin.DOCUMENT)
    for one in known:
        if one.issuer == found.issuer:
            return one
    return await _register(fetcher, found, redirect_uri, kind)


async def _register(fetcher: Fetcher, found: Found, redirect_uri: str, kind: str) -> Identity:
    """Register dynamically (RFC 7591)."""
    from mcp.client.auth import OAuthRegistrationError
    from mcp.client.auth.oauth2 import check_registration_usable
    from mcp.client.auth.utils import create_client_registration_request, handle_registration_response
    from mcp.shared.auth import OAuthClientMetadata
    from pydantic import AnyUrl

    if found.metadata.registration_endpoint is None:
        raise AuthorizationFailed(
            f"{printable(found.issuer, 200)} registers no clients by itself: register Switchyard there, with the redirect address "
            f"{redirect_uri}, and enter the client id here.",
            rule="registration",
        )
    wanted = OAuthClientMetadata(
        client_name=CLIENT_NAME,
        redirect_uris=[AnyUrl(redirect_uri)],
        grant_types=GRANTS,
        application_type="web" if kind == "web" else "native",
        scope=found.scope or None,
    )
    request = create_client_registration_request(found.metadata, wanted, found.issuer)
    answer = await fetcher.post_json(str(request.url), request.content)
    try:
        info: OAuthClientInformationFull = await handle_registration_response(answer)
        check_registration_usable(info)
    except OAuthRegistrationError:
        raise AuthorizationFailed(
            f"{printable(found.issuer, 200)} did not register Switchyard (HTTP {answer.status_code} {error_words(answer)}).".replace(
                " )", ")"
            ),
            rule="registration",
        ) from None
    if not 0 < len(info.client_id) <= _MOST or len(info.client_secret or "") > _MOST:
        raise AuthorizationFailed("The authorization server's registration is longer than any real one.", rule="registration")
    expires = info.client_secret_expires_at
    return Identity(
        issuer=found.issuer,
        client_id=info.client_id,
        method=info.token_endpoint_auth_method or "",
        secret=info.client_secret or "",
        secret_expires_at=datetime.fromtimestamp(expires, UTC) if expires and expires < 32503680000 else None,
    )
