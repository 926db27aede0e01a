"""What the API reads and shows of servers. Secrets go in and never come out."""

from typing import Any

from rest_framework import serializers

from apps.common.api.serializers import InputSerializer
from apps.servers import selectors
from apps.servers.models import Endpoint, OAuthClient, OAuthConnection, Server
from apps.servers.rules import hide_secrets
from apps.servers.services.oauth.identity import ALGORITHMS, METHODS, connect_url


class EndpointOut(serializers.ModelSerializer[Endpoint]):
    """Where a server is reached, and its state."""

    args = serializers.SerializerMethodField(help_text="What looks like a secret is left out.")

    class Meta:
        model = Endpoint
        fields = ("id", "url", "command", "args", "cwd", "era", "state", "state_since", "state_reason", "last_seen_at")
        read_only_fields = fields

    def get_args(self, endpoint: Endpoint) -> list[str]:
        """Return the arguments as they may be shown."""
        return hide_secrets(endpoint.args)


class CredentialOut(serializers.Serializer[Any]):
    """That there is a credential, and since when; never its value."""

    kind = serializers.ChoiceField(choices=("header", "env"), read_only=True)
    name = serializers.CharField(read_only=True)
    updated_at = serializers.DateTimeField(read_only=True)


class ServerOut(serializers.ModelSerializer[Server]):
    """A server."""

    tenant_slug = serializers.CharField(source="tenant.slug", read_only=True)
    state = serializers.CharField(read_only=True)
    paused = serializers.SerializerMethodField()
    endpoints = EndpointOut(many=True, read_only=True)
    credentials = CredentialOut(many=True, read_only=True)
    capabilities = serializers.DictField(read_only=True)
    server_info = serializers.DictField(read_only=True)
    revisions = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = Server
        fields = (
            "id", "tenant", "tenant_slug", "slug", "name", "description", "transport", "auth", "oauth_scope", "state", "paused", "review", "trust_annotations", "builtin",
            "timeout_seconds", "max_concurrency", "idle_seconds", "endpoints", "credentials", "server_info", "capabilities",
            "instructions", "revisions", "discovered_at", "discovery_error", "created_at", "updated_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_paused(self, server: Server) -> bool:
        """Tell whether an operator has paused it."""
        return server.paused_at is not None


class _ServerFields(InputSerializer):
    name = serializers.CharField(max_length=120, required=False, allow_blank=True)
    description = serializers.CharField(max_length=500, required=False, allow_blank=True)
    transport = serializers.ChoiceField(choices=Server.Transport.choices, required=False)
    url = serializers.CharField(max_length=2000, required=False, allow_blank=True)
    command = serializers.CharField(max_length=500, required=False, allow_blank=True, help_text="Superusers only.")
    args = serializers.ListField(
        child=serializers.CharField(max_length=4000, allow_blank=True, trim_whitespace=False), required=False, max_length=200
    )
    cwd = serializers.CharField(max_length=500, required=False, allow_blank=True)
    headers = serializers.DictField(
        child=serializers.CharField(max_length=8000, allow_null=True),
        help_text="Encrypted; never shown again.",
        required=False,
    )
    env = serializers.DictField(
        child=serializers.CharField(max_length=8000, allow_null=True, allow_blank=True, trim_whitespace=False),
        help_text="Encrypted; never shown again.",
        required=False,
    )
    auth = serializers.ChoiceField(choices=Server.Auth.choices, required=False)
    oauth_scope = serializers.CharField(
        max_length=1000, required=False, allow_blank=True, help_text="Empty: the scopes that the server asks for."
    )
    review = serializers.ChoiceField(choices=Server.Review.choices, required=False)
    trust_annotations = serializers.BooleanField(required=False)
    timeout_seconds = serializers.IntegerField(min_value=1, max_value=3600, required=False)
    max_concurrency = serializers.IntegerField(min_value=1, max_value=10_000, required=False)
    idle_seconds = serializers.IntegerField(min_value=5, max_value=86_400, required=False)


class ServerIn(_ServerFields):
    """A server to register."""

    slug = serializers.CharField(max_length=40)
    transport = serializers.ChoiceField(choices=Server.Transport.choices)
    paused = serializers.BooleanField(required=False)


class ServerChange(_ServerFields):
    """What may be changed of a server. `headers` and `env` are the whole set; null keeps the stored value of a name."""


class ServerTest(ServerIn):
    """Settings to try, as for a registration; nothing is kept."""

    slug = serializers.CharField(max_length=40, required=False)


class ServersIn(InputSerializer):
    """Several servers, by id or slug."""

    servers = serializers.ListField(child=serializers.CharField(max_length=64), min_length=1, max_length=200)


class CloneIn(InputSerializer):
    """The copy's slug and name."""

    slug = serializers.CharField(max_length=40)
    name = serializers.CharField(max_length=120, required=False, allow_blank=True)


class CredentialIn(InputSerializer):
    """A header or an environment variable."""

    kind = serializers.ChoiceField(choices=("header", "env"))
    name = serializers.CharField(max_length=200)
    value = serializers.CharField(max_length=8000, trim_whitespace=False, write_only=True)


class CredentialName(InputSerializer):
    """Which credential."""

    kind = serializers.ChoiceField(choices=("header", "env"))
    name = serializers.CharField(max_length=200)


class ConnectIn(InputSerializer):
    """Whose connection it will be."""

    personal = serializers.BooleanField(
        required=False, help_text="Your own account, on a server where each user has one; else the server's connection."
    )


class BegunOut(serializers.Serializer[Any]):
    """Where the person goes on, or that the connection stands already."""

    connected = serializers.BooleanField(help_text="No person was needed; the connection stands.")
    authorization_url = serializers.CharField(help_text="To be opened by the same user, in a browser signed in to Switchyard.")
    issuer = serializers.CharField()
    scope = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True, help_text="Until when the person can come back.")


class OAuthClientIn(InputSerializer):
    """The client that Switchyard is registered as with the server's authorization server."""

    issuer = serializers.CharField(max_length=1000, help_text="The credentials are sent there and nowhere else.")
    client_id = serializers.CharField(max_length=1000)
    client_secret = serializers.CharField(max_length=8000, required=False, trim_whitespace=False, write_only=True)
    private_key = serializers.CharField(
        max_length=16_000, required=False, trim_whitespace=False, write_only=True, help_text="PEM, for private_key_jwt."
    )
    token_endpoint_auth_method = serializers.ChoiceField(choices=METHODS, required=False)
    algorithm = serializers.ChoiceField(choices=ALGORITHMS, required=False)


class OAuthClientOut(serializers.Serializer[Any]):
    """The client that was entered; its secret is never shown."""

    issuer = serializers.CharField()
    client_id = serializers.CharField()
    token_endpoint_auth_method = serializers.CharField(source="method")
    algorithm = serializers.CharField()
    has_secret = serializers.SerializerMethodField()
    updated_at = serializers.DateTimeField()

    def get_has_secret(self, client: OAuthClient) -> bool:
        """Tell whether a secret or a private key is stored."""
        return client.sealed is not None


class UpstreamConnectionOut(serializers.ModelSerializer[OAuthConnection]):
    """An OAuth connection with a server; its tokens are never shown."""

    server = serializers.CharField(source="server.slug", read_only=True)
    server_id = serializers.UUIDField(read_only=True)
    user = serializers.SerializerMethodField(help_text="Whose own it is; null: the server's.")
    refreshes = serializers.SerializerMethodField(help_text="It renews itself ahead of its end.")
    connect_url = serializers.SerializerMethodField(help_text="Where a person connects again.")

    class Meta:
        model = OAuthConnection
        fields = (
            "id", "server", "server_id", "user", "state", "reason", "issuer", "resource", "scope", "wanted_scope", "expires_at",
            "refresh_due_at", "refreshed_at", "refreshes", "failures", "connected_at", "connected_by", "connect_url", "updated_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_user(self, row: OAuthConnection) -> str | None:
        """Return the name of the user whose own it is."""
        return row.user.get_username() if row.user is not None else None

    def get_refreshes(self, row: OAuthConnection) -> bool:
        """Tell whether it can be refreshed without a person."""
        return selectors.renews_itself(row)

    def get_connect_url(self, row: OAuthConnection) -> str:
        """Return the address of the page on which it is connected."""
        return connect_url(row.server_id)


class ConnectionOut(serializers.Serializer[Any]):
    """What a test of a connection found."""

    ok = serializers.BooleanField()
    era = serializers.CharField()
    revisions = serializers.ListField(child=serializers.CharField())
    server_info = serializers.DictField()
    capabilities = serializers.DictField()
    duration_ms = serializers.FloatField()
    error_type = serializers.CharField()
    error = serializers.CharField()


class ImportIn(InputSerializer):
    """An `mcpServers` document, as Claude Desktop, Cursor and VS Code write it."""

    document = serializers.DictField()
    dry_run = serializers.BooleanField(required=False)


class ImportedOut(serializers.Serializer[Any]):
    """What became of one entry of an import."""

    slug = serializers.CharField()
    name = serializers.CharField()
    action = serializers.ChoiceField(choices=("created", "updated", "skipped", "failed"))
    error = serializers.CharField()
    error_type = serializers.CharField()
    warnings = serializers.ListField(child=serializers.CharField())


class ProcessOut(serializers.Serializer[Any]):
    """A stdio process that runs."""

    id = serializers.UUIDField()
    server = serializers.CharField(source="endpoint.server.slug")
    command = serializers.CharField(source="endpoint.command")
    worker = serializers.CharField()
    pid = serializers.IntegerField()
    started_at = serializers.DateTimeField()
    seen_at = serializers.DateTimeField()
    in_flight = serializers.IntegerField()
    calls = serializers.IntegerField()
    restarts = serializers.IntegerField()
    memory_bytes = serializers.IntegerField()
