"""What it takes to reach a server: its stored credentials, and the token where it is reached by OAuth."""

from dataclasses import replace

from apps.accounts.selectors import as_uuid
from apps.common.context import every_tenant
from apps.common.errors import ConnectionRequired, NotFound, UpstreamUnauthenticated
from apps.servers import domain
from apps.servers.domain import Secrets
from apps.servers.models import OAuthConnection, Server
from apps.servers.services.oauth import identity, refreshing, store
from apps.servers.services.oauth.tokens import LiveToken
from apps.servers.services.secrets import secrets_of, stored_headers


def access_of(server_id: object, user_id: str = "") -> Secrets:
    """Return what the connection that is about to be opened needs; with `user_id` that of this user's own account (on servers where
    each user has their own; there the server's own connection is what Switchyard itself looks with).

    Raises NotFound, PermissionDenied, NotReady, and where OAuth is in force and nothing is connected UpstreamUnauthenticated, or
    ConnectionRequired for a user who has to connect first.
    """
    plain = secrets_of(server_id)
    with every_tenant():
        server = Server.objects.filter(pk=server_id).first()
        if server is None:
            raise NotFound("No such server.")
        if not server.by_oauth:
            return plain
        headers = stored_headers(server)
        row = _connection(server, user_id)
        return replace(plain, headers=headers, tokens=LiveToken(store.held(row)))


def _connection(server: Server, user_id: str) -> OAuthConnection:
    own = server.auth == domain.OAUTH_USER and bool(user_id)
    if own:
        row = store.find(server, user_id) if as_uuid(user_id) is not None else None
    else:
        row = store.find(server)
    if row is not None and row.state == OAuthConnection.State.CONNECTED:
        return row
    if row is not None:
        raise refreshing.missing(row)
    if own:
        url = identity.connect_url(server.pk)
        raise ConnectionRequired(
            f"You have not connected your account with {server.slug} yet. Do it at {url}", connect_url=url, server=server.slug
        )
    what = (
        "the connection by which Switchyard looks at what it offers" if server.auth == domain.OAUTH_USER else "its connection"
    )
    raise UpstreamUnauthenticated(f"{server.slug} is not connected yet: an operator makes {what} on the server's page.")
