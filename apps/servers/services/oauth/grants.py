"""Requests to token endpoints, and what comes back (RFC 6749, section 5; RFC 8707; RFC 7009; RFC 7523)."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from apps.common.clock import now_us
from apps.common.errors import AuthorizationFailed, SwitchyardError, UpstreamUnavailable
from apps.servers.services.oauth.fetching import Fetcher, error_words, printable
from apps.servers.services.oauth.identity import PRIVATE_KEY, Identity

if TYPE_CHECKING:
    import httpx2

MOST_TOKEN = 16_384
"""Characters of a token: what a request's headers hold with most servers."""
LONGEST_SECONDS = 10 * 365 * 86_400
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_TOKEN = re.compile(r"[\x21-\x7e]+")


class GrantRefused(AuthorizationFailed):
    """The authorization server said no; asking again with the same would be answered the same."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """An answer of a token endpoint. Never logged."""

    access: str = field(repr=False)
    refresh: str = field(default="", repr=False)
    seconds: int | None = None
    """How long the access token lives; None: the server did not say."""
    scope: str | None = None


async def by_code(
    fetcher: Fetcher,
    client: Identity,
    metadata: Mapping[str, Any],
    *,
    code: str,
    verifier: str,
    redirect_uri: str,
    resource: str,
) -> Tokens:
    """Redeem an authorization code."""
    data = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier}
    return await _request(fetcher, client, metadata, data, resource)


async def by_refresh(fetcher: Fetcher, client: Identity, metadata: Mapping[str, Any], *, refresh: str, resource: str) -> Tokens:
    """Get a fresh access token for a refresh token."""
    return await _request(fetcher, client, metadata, {"grant_type": "refresh_token", "refresh_token": refresh}, resource)


async def by_credentials(
    fetcher: Fetcher, client: Identity, metadata: Mapping[str, Any], *, scope: str, resource: str
) -> Tokens:
    """Get an access token for the client itself."""
    data = {"grant_type": "client_credentials", **({"scope": scope} if scope else {})}
    return await _request(fetcher, client, metadata, data, resource)


async def revoke(fetcher: Fetcher, client: Identity, metadata: Mapping[str, Any], token: str, hint: str) -> bool:
    """Tell the authorization server that a token is not needed any more; False where it cannot be told or did not take it."""
    url = metadata.get("revocation_endpoint")
    if not isinstance(url, str):
        return False
    data, headers = _signed(client, metadata, {"token": token, "token_type_hint": hint})
    try:
        answer = await fetcher.post_form(url, data, headers)
    except SwitchyardError:
        return False
    return answer.status_code == 200


async def _request(
    fetcher: Fetcher, client: Identity, metadata: Mapping[str, Any], data: dict[str, str], resource: str
) -> Tokens:
    """Raises GrantRefused, UpstreamUnavailable and others of the UpstreamError family (nothing certain), AddressRefused."""
    if resource:
        data["resource"] = resource
    form, headers = _signed(client, metadata, data)
    answer = await fetcher.post_form(str(metadata["token_endpoint"]), form, headers)
    if answer.status_code not in (200, 201):
        said = f"HTTP {answer.status_code} {error_words(answer)}".strip()
        host = printable(str(answer.request.url.host), 100)
        if answer.status_code >= 500 or answer.status_code in (408, 425, 429):
            raise UpstreamUnavailable(f"{host} gave no token for now ({said}).")
        raise GrantRefused(f"{host} gave no token ({said}).", rule="grant")
    return _read(answer)


def _signed(client: Identity, metadata: Mapping[str, Any], data: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Add what shows who the client is."""
    from mcp.client.auth.oauth2 import OAuthContext
    from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata

    method = client.method or _method(client, metadata)
    data = {**data, "client_id": client.client_id}
    if method == PRIVATE_KEY:
        return {**data, "client_assertion": _assertion(client, metadata), "client_assertion_type": ASSERTION_TYPE}, {}
    info = OAuthClientInformationFull(
        client_id=client.client_id, client_secret=client.secret or None, token_endpoint_auth_method=method
    )
    context = OAuthContext(client.issuer, OAuthClientMetadata(redirect_uris=None), _NoStorage(), None, None)
    context.client_info = info
    return context.prepare_token_auth(data, {})


def _method(client: Identity, metadata: Mapping[str, Any]) -> str:
    """Choose for a client whose registration does not say: what the server takes, `client_secret_basic` where it does not say either."""
    if not client.secret:
        return "none"
    taken = metadata.get("token_endpoint_auth_methods_supported")
    if isinstance(taken, list) and "client_secret_basic" not in taken and "client_secret_post" in taken:
        return "client_secret_post"
    return "client_secret_basic"


def _assertion(client: Identity, metadata: Mapping[str, Any]) -> str:
    """Sign who the client is, for this issuer alone and for a minute (RFC 7523, section 2.2)."""
    import jwt

    moment = now_us() // 1_000_000
    claims = {
        "iss": client.client_id,
        "sub": client.client_id,
        "aud": str(metadata["issuer"]),
        "iat": moment,
        "exp": moment + 60,
        "jti": secrets.token_urlsafe(16),
    }
    try:
        return jwt.encode(claims, client.secret, algorithm=client.algorithm or "RS256")
    except (ValueError, TypeError, jwt.PyJWTError, NotImplementedError):
        raise AuthorizationFailed("The private key of this client cannot sign: enter it again.", rule="private-key") from None


def _read(answer: "httpx2.Response") -> Tokens:
    from mcp.shared.auth import OAuthToken
    from pydantic import ValidationError

    wrong = AuthorizationFailed("The authorization server's answer is not a token (RFC 6749, section 5.1).", rule="token")
    try:
        token = OAuthToken.model_validate_json(answer.content)
    except ValidationError:
        raise wrong from None
    for text in (token.access_token, token.refresh_token or "-"):
        if len(text) > MOST_TOKEN or not _TOKEN.fullmatch(text):
            raise wrong
    seconds = token.expires_in
    if seconds is not None:
        seconds = min(max(seconds, 0), LONGEST_SECONDS)
    scope = None if token.scope is None else printable(" ".join(token.scope.split()), 4000)
    return Tokens(token.access_token, token.refresh_token or "", seconds, scope)


class _NoStorage:
    """The SDK's context wants a storage; ours is the database, and it is not asked."""

    async def get_tokens(self) -> None:
        """Nothing is kept here."""

    async def set_tokens(self, tokens: Any) -> None:
        """Nothing is kept here."""

    async def get_client_info(self) -> None:
        """Nothing is kept here."""

    async def set_client_info(self, client_info: Any) -> None:
        """Nothing is kept here."""
