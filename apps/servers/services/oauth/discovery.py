"""Which authorization server a server trusts, and what it says of itself (RFC 9728, RFC 8414; MCP, authorization)."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from apps.common.errors import AuthorizationFailed
from apps.servers.domain import MODERN_REVISIONS
from apps.servers.services.oauth.fetching import Fetcher, printable
from apps.servers.transports.wire import CLIENT_INFO, META_CAPABILITIES, META_CLIENT_INFO, META_VERSION

if TYPE_CHECKING:
    from mcp.shared.auth import OAuthMetadata, ProtectedResourceMetadata

MOST_SCOPE = 2000
"""Characters of scopes that a server may ask for."""
KEPT_METADATA = (
    "issuer", "authorization_endpoint", "token_endpoint", "revocation_endpoint", "token_endpoint_auth_methods_supported",
    "authorization_response_iss_parameter_supported", "grant_types_supported",
)  # fmt: skip
"""What is kept of an authorization server's metadata once it has been judged."""
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a `WWW-Authenticate: Bearer` says (RFC 6750, section 3; RFC 9728, section 5.1)."""

    error: str = ""
    scope: str = ""
    resource_metadata: str = ""

    @classmethod
    def read(cls, text: str) -> "Challenge":
        """Read a header; what is not well formed counts as not said."""
        found = {}
        for name in ("error", "scope", "resource_metadata"):
            match = re.search(rf'(?:^|[\s,]){name}=(?:"([^"]*)"|([^\s,"]+))', text)
            found[name] = (match.group(1) or match.group(2) or "") if match else ""
        scope = " ".join(found["scope"].split())
        if len(scope) > MOST_SCOPE or (scope and not _SCOPE.fullmatch(scope)):
            scope = ""
        return cls(printable(found["error"], 60), scope, found["resource_metadata"][:2000])


@dataclass(frozen=True, slots=True)
class Found:
    """An authorization server that was found and judged."""

    metadata: "OAuthMetadata"
    resource: str
    """What tokens are asked for (RFC 8707); empty with a server that publishes no metadata of its own."""
    prm: "ProtectedResourceMetadata | None"
    scope: str
    """What to ask for; may be empty."""

    @property
    def issuer(self) -> str:
        """Return its issuer, byte for byte."""
        return str(self.metadata.issuer)

    def kept(self) -> dict[str, Any]:
        """Return what is stored of the metadata."""
        said = self.metadata.model_dump(mode="json", exclude_none=True)
        return {name: said[name] for name in KEPT_METADATA if name in said}


async def challenge_of(fetcher: Fetcher, url: str, headers: dict[str, str]) -> Challenge:
    """Ask the server something without a token and return what it demands; an empty one where it demands nothing."""
    meta = {META_VERSION: MODERN_REVISIONS[0], META_CLIENT_INFO: CLIENT_INFO, META_CAPABILITIES: {}}
    body = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta}})
    fields = {
        **headers,
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": MODERN_REVISIONS[0],
        "Mcp-Method": "server/discover",
    }
    status, said = await fetcher.ask(url, body, fields)
    return Challenge.read(said) if status in (401, 403) else Challenge()


async def find(
    fetcher: Fetcher,
    server_url: str,
    challenge: Challenge,
    *,
    issuers: tuple[str, ...] = (),
    scope: str = "",
    already: str = "",
    code: bool = True,
) -> Found:
    """Find the authorization server and judge it.

    `issuers` are those that Switchyard has credentials for: one of them is preferred where the server trusts several. `scope` is what
    the operator wants instead of what the server says; `already` is added to it (a wider authorization keeps what was granted). `code`:
    a person will be led there, so PKCE with S256 is demanded. Raises AuthorizationFailed with a `rule`, AddressRefused, UpstreamError.
    """
    from mcp.client.auth import utils

    prm, trusted = await _resource(fetcher, server_url, challenge)
    chosen = next((one for one in trusted for known in issuers if utils.issuers_match(one, known)), None)
    expected = chosen or (trusted[0] if trusted else None)
    metadata = await _authorization_server(fetcher, server_url, expected)
    if code and "S256" not in (metadata.code_challenge_methods_supported or ()):
        raise AuthorizationFailed(
            f"The authorization server {metadata.issuer} does not say that it takes PKCE with S256, which is required.",
            rule="pkce",
        )
    if scope:
        selected: str | None = scope
    else:
        grants = ["authorization_code", "refresh_token"] if code else ["client_credentials"]
        selected = utils.get_client_metadata_scopes(challenge.scope or None, prm, metadata, grants)
    wanted = utils.union_scopes(already or None, selected) or ""
    if len(wanted) > MOST_SCOPE or (wanted and not _SCOPE.fullmatch(wanted)):
        raise AuthorizationFailed("The scopes that the server asks for are not well formed, or too many.", rule="scope")
    return Found(metadata, _resource_of(server_url, prm), prm, wanted)


async def _resource(
    fetcher: Fetcher, server_url: str, challenge: Challenge
) -> tuple["ProtectedResourceMetadata | None", tuple[str, ...]]:
    """Read the server's own metadata: where its challenge says, below its path, at its root."""
    from mcp.client.auth import utils
    from mcp.shared.auth_utils import check_resource_allowed, resource_url_from_server_url

    failed = 0
    for url in utils.build_protected_resource_metadata_discovery_urls(challenge.resource_metadata or None, server_url):
        response = await fetcher.get(url, _REVISION)
        if response.status_code >= 500 or response.status_code == 429:
            failed = response.status_code
        prm = await utils.handle_protected_resource_response(response)
        if prm is None:
            continue
        own = resource_url_from_server_url(server_url)
        if not check_resource_allowed(requested_resource=own, configured_resource=str(prm.resource)):
            raise AuthorizationFailed(
                f"The server's metadata speaks of another resource, {printable(str(prm.resource), 200)}: a token for it is not asked for.",
                rule="resource",
            )
        return prm, tuple(str(one) for one in prm.authorization_servers)
    if failed:
        raise AuthorizationFailed(f"The server's metadata cannot be read (HTTP {failed}). Try again later.", rule="metadata")
    return None, ()


async def _authorization_server(fetcher: Fetcher, server_url: str, expected: str | None) -> "OAuthMetadata":
    """Read the authorization server's metadata from the addresses that MCP prescribes, in their order; its issuer must be `expected`."""
    from mcp.client.auth import utils

    for url in utils.build_oauth_authorization_server_metadata_discovery_urls(expected, server_url):
        response = await fetcher.get(url, _REVISION)
        goes_on, metadata = await utils.handle_auth_metadata_response(response)
        if metadata is not None:
            origin = "/".join(server_url.split("/", 3)[:3])
            wanted = expected or (str(metadata.issuer) if utils.issuers_match(str(metadata.issuer), origin) else origin)
            if str(metadata.issuer) != wanted:
                raise AuthorizationFailed(
                    f"The authorization server's metadata names another issuer, {printable(str(metadata.issuer), 200)}, than "
                    f"{printable(wanted, 200)}: it is not used.",
                    rule="issuer",
                )
            return metadata
        if not goes_on:
            break
    where = printable(expected, 200) if expected else "the server's own address"
    raise AuthorizationFailed(f"There is no authorization server metadata that can be read at {where}.", rule="metadata")


def _resource_of(server_url: str, prm: "ProtectedResourceMetadata | None") -> str:
    """Return the resource that tokens are for: the server's own address, or the one above it that its metadata names."""
    from mcp.shared.auth_utils import resource_url_from_server_url

    return str(prm.resource) if prm is not None else resource_url_from_server_url(server_url)


_REVISION = {"MCP-Protocol-Version": "2025-11-25"}
