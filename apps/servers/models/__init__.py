"""MCP servers, where they are reached, with what credentials, and the processes that run for them."""

from apps.servers.models.credential import Credential
from apps.servers.models.endpoint import Endpoint, UpstreamProcess
from apps.servers.models.oauth import OAuthClient, OAuthConnection, PendingAuthorization
from apps.servers.models.server import Server

__all__ = (
    "Credential",
    "Endpoint",
    "OAuthClient",
    "OAuthConnection",
    "PendingAuthorization",
    "Server",
    "UpstreamProcess",
)
