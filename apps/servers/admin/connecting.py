"""A server's OAuth connection on its page: the panel, and the verbs that connect, disconnect and enter a client."""

from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.http import HttpRequest
from django.utils import timezone

from apps.common.admin import Ask, Shown
from apps.common.admin.format import ago, plural
from apps.servers import selectors
from apps.servers.domain import CLIENT_CREDENTIALS, OAUTH_USER
from apps.servers.models import OAuthConnection, Server
from apps.servers.services.oauth import connecting, disconnecting, identity
from apps.servers.services.oauth.identity import METHODS

NO_END = "no end known"
CONNECTING = ("connect", "disconnect", "set_oauth_client")
"""The verbs, for the menu of a server's page."""


class OAuthClientForm(forms.Form):
    """The client that Switchyard is registered as with a server's authorization server."""

    issuer = forms.CharField(
        max_length=1000,
        label="Issuer",
        help_text="The authorization server's own name for itself. The secret is sent there and nowhere else.",
        widget=forms.TextInput(attrs={"class": "sy-input", "placeholder": "https://auth.example.com", "spellcheck": "false"}),
    )
    client_id = forms.CharField(
        max_length=1000,
        label="Client id",
        widget=forms.TextInput(attrs={"class": "sy-input", "autocomplete": "off", "spellcheck": "false"}),
    )
    method = forms.ChoiceField(
        required=False,
        label="Shows itself by",
        choices=[("", "what the authorization server takes"), *((name, name) for name in METHODS)],
        widget=forms.Select(attrs={"class": "sy-input"}),
    )
    secret = forms.CharField(
        required=False,
        strip=False,
        label="Client secret",
        help_text="Stored encrypted and never shown again; empty keeps the one that is stored.",
        widget=forms.PasswordInput(attrs={"class": "sy-input", "autocomplete": "new-password"}),
    )
    private_key = forms.CharField(
        required=False,
        strip=False,
        label="Or a private key",
        help_text="PEM, without a password, for private_key_jwt. Stored encrypted and never shown again.",
        widget=forms.Textarea(attrs={"class": "sy-input sy-mono", "rows": 3, "autocomplete": "off", "spellcheck": "false"}),
    )

    def prepare(self, request: HttpRequest, obj: Any) -> None:
        """Start from what is entered; secrets are not part of it."""
        entered = selectors.entered_client(obj.pk)
        if entered is not None:
            for name in ("issuer", "client_id", "method"):
                self.fields[name].initial = getattr(entered, name)


def ask_connect(self: Any, request: HttpRequest, obj: Any) -> Ask:
    """Say where it leads."""
    server = obj.server if isinstance(obj, OAuthConnection) else obj
    standing = selectors.connection_of(server.pk)
    said = []
    if server.auth == CLIENT_CREDENTIALS:
        said.append(f"Switchyard asks {server.slug}'s authorization server for a token, as a client by itself.")
    else:
        said.append(
            f"Switchyard asks {server.slug} which authorization server it trusts. You go there, sign in and agree; it leads you back here."
        )
    if server.auth == OAUTH_USER:
        said.append(
            "This connection is what Switchyard looks at the server with. Each user connects their own account for calls."
        )
    if standing is not None:
        said.append(
            "The connection that stands is replaced when you come back, and open sessions with the server are opened anew."
        )
    return Ask(title=f"{'Connect again' if standing else 'Connect'} {server.slug}", submit="Connect", consequence=said)


def ask_disconnect(self: Any, request: HttpRequest, obj: Any) -> Ask:
    """Say what stops."""
    server = obj.server if isinstance(obj, OAuthConnection) else obj
    whose = f" for {obj.user.get_username()}" if isinstance(obj, OAuthConnection) and obj.user is not None else ""
    return Ask(
        title=f"Disconnect {server.slug}{whose}?",
        submit="Disconnect",
        danger=True,
        consequence=[
            f"Calls{whose} to {server.slug} are refused until it is connected again.",
            "Its tokens are forgotten here at once, and revoked at the authorization server where that takes it.",
        ],
    )


def ask_client(self: Any, request: HttpRequest, obj: Any) -> Ask:
    """Say when it is needed."""
    users = OAuthConnection.objects.filter(server=obj).count()
    said = [
        f"Needed where the authorization server registers no clients by itself. Register Switchyard there with the redirect address {identity.callback_url()}"
    ]
    if users:
        said.append(
            f"With another client {plural(users, 'connection')} of {obj.slug} {'ends' if users == 1 else 'end'} and must be made anew."
        )
    return Ask(title=f"OAuth client for {obj.slug}", submit="Store", consequence=said)


def connect_server(request: HttpRequest, server: Server, *, personal: bool = False) -> Shown | str:
    """Begin, and show the way on: a link, as forms of the console may lead nowhere else."""
    begun = connecting.begin(server, person=request.user, personal=personal)  # type: ignore[arg-type]  # signed in
    if begun.connection is not None:
        return f"{server.slug} is connected."
    context = {"begun": begun, "host": urlsplit(begun.authorization_url).netloc}
    return Shown(f"Connect {server.slug}", "console/parts/connect.html", context)


def disconnect_server(server: Server) -> str:
    """End the server's connection."""
    standing = selectors.connection_of(server.pk)
    if standing is None:
        return f"{server.slug} was not connected."
    return ended(standing)


def ended(connection: OAuthConnection) -> str:
    """End a connection and say what became of its tokens."""
    revoked = disconnecting.disconnect(connection)
    return f"{connection} is disconnected{'' if revoked else '; its tokens could not be revoked at the authorization server'}."


def enter_client(server: Server, form: Any) -> str:
    """Store the client of the form."""
    given = form.cleaned_data
    disconnecting.set_client(
        server,
        issuer=given["issuer"],
        client_id=given["client_id"],
        method=given["method"],
        secret=given["secret"] or None,
        private_key=given["private_key"] or None,
    )
    return f"The client {given['client_id']} of {server.slug} is stored."


def connected(server: Any) -> bool:
    """Tell whether there is a connection to end."""
    return bool(server.by_oauth) and selectors.connection_of(server.pk) is not None


def look_of_connection(row: OAuthConnection | None) -> str:
    """Return the state in which a connection is shown."""
    if row is None:
        return "not-connected"
    if row.state == OAuthConnection.State.FAILED:
        return "failed"
    if row.wanted_scope:
        return "wanting"
    if not selectors.renews_itself(row):
        moment = timezone.now()
        if row.expired(moment):
            return "expired-connection"
        if row.expires_at is not None and (row.expires_at - moment).total_seconds() < selectors.EXPIRING_SECONDS:
            return "expiring"
    return "connected"


def connection_context(admin: Any, server: Server, may_write: bool) -> dict[str, Any]:
    """Return what a server's page shows of its connection."""
    row = selectors.connection_of(server.pk)
    users = OAuthConnection.objects.filter(server=server, user__isnull=False)
    entered = selectors.entered_client(server.pk)
    return {
        "row": row,
        "state": look_of_connection(row),
        "ends": ago(row.expires_at, never=NO_END) if row is not None else "",
        "renews": row is not None and selectors.renews_itself(row),
        "by_itself": server.auth == CLIENT_CREDENTIALS,
        "personal": server.auth == OAUTH_USER,
        "users": users.count(),
        "failed_users": users.filter(state=OAuthConnection.State.FAILED).count(),
        "their_url": identity.connect_url(server.pk),
        "client": entered,
        "connect_url": admin.verb_url("connect", server) if may_write else "",
        "disconnect_url": admin.verb_url("disconnect", server) if may_write and row is not None else "",
        "client_url": admin.verb_url("set_oauth_client", server) if may_write else "",
    }
