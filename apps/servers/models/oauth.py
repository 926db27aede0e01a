"""Switchyard as an OAuth client: who it is to authorization servers, the connections it holds, and those that a person is making."""

from datetime import datetime

from django.db import models
from django.db.models import Q

from apps.common.models import TenantModel
from apps.servers.models.server import Server


class OAuthClient(TenantModel):
    """Switchyard's registration with one authorization server, known by its issuer (RFC 7591).

    One that an operator entered belongs to a server; one that Switchyard made itself serves every server of the tenant behind that issuer.
    `sealed` holds the client secret, or the private key where the method is `private_key_jwt`.
    """

    class Origin(models.TextChoices):
        """Where it comes from, what is preferred first."""

        PREREGISTERED = "pre-registered", "Entered by an operator"
        DOCUMENT = "metadata-document", "Client metadata document"
        DYNAMIC = "dynamic", "Registered dynamically"

    server = models.ForeignKey(Server, null=True, blank=True, on_delete=models.CASCADE, related_name="oauth_clients")
    issuer = models.CharField(max_length=1000)
    origin = models.CharField(max_length=20, choices=Origin)
    client_id = models.CharField(max_length=1000)
    method = models.CharField(max_length=40, blank=True)
    """`token_endpoint_auth_method`; empty where the authorization server did not say."""
    algorithm = models.CharField(max_length=10, blank=True)
    """Of signatures with a private key."""
    sealed = models.BinaryField(null=True, editable=False)
    redirect_uri = models.CharField(max_length=1000, blank=True)
    """What it was registered for; with another address of Switchyard's it is registered anew."""
    secret_expires_at = models.DateTimeField(null=True, blank=True)

    class Meta(TenantModel.Meta):
        ordering = ("issuer",)
        verbose_name = "OAuth client"
        constraints = (
            models.UniqueConstraint(fields=("server",), condition=Q(server__isnull=False), name="oauth_client_of_server_once"),
        )
        indexes = (models.Index(fields=("tenant", "issuer"), name="oauth_client_by_issuer"),)

    def __str__(self) -> str:
        return f"{self.client_id} at {self.issuer}"

    @property
    def associated(self) -> bytes:
        """Return what the sealed value is bound to: tenant, row and field."""
        return f"{self.tenant_id}|{self.pk}|client".encode()


class OAuthConnection(TenantModel):
    """Access to a server by OAuth: for everybody (`user` is empty) or for one user. Tokens are sealed, bound to tenant, row and field."""

    class State(models.TextChoices):
        """Whether it can be used."""

        CONNECTED = "connected", "Connected"
        FAILED = "failed", "Failed"

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="oauth_connections")
    user = models.ForeignKey("accounts.User", null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    client = models.ForeignKey(OAuthClient, null=True, on_delete=models.SET_NULL, related_name="connections")
    state = models.CharField(max_length=12, choices=State, default=State.CONNECTED, editable=False)
    reason = models.CharField(max_length=500, blank=True, editable=False)
    """Why it cannot be used, or what went wrong last."""
    issuer = models.CharField(max_length=1000)
    resource = models.CharField(max_length=2000, blank=True)
    """The `resource` (RFC 8707) that its tokens are for; empty where the authorization server gets none."""
    scope = models.CharField(max_length=4000, blank=True)
    """What was granted."""
    wanted_scope = models.CharField(max_length=4000, blank=True)
    """What the server wanted beyond that; asked for at the next connect."""
    step_ups = models.PositiveSmallIntegerField(default=0)
    """Wider authorizations in a row after which the server still wanted more."""
    metadata = models.JSONField(default=dict, editable=False)
    """Of the authorization server (RFC 8414), what is needed later."""
    access = models.BinaryField(null=True, editable=False)
    refresh = models.BinaryField(null=True, editable=False)
    generation = models.PositiveBigIntegerField(default=0)
    """Grows with every token."""
    expires_at = models.DateTimeField(null=True, editable=False)
    refresh_due_at = models.DateTimeField(null=True, editable=False, db_index=True)
    refreshed_at = models.DateTimeField(null=True, editable=False)
    """When its token was given."""
    failures = models.PositiveIntegerField(default=0)
    """Attempts to refresh in a row that came to nothing."""
    claim = models.CharField(max_length=16, blank=True, editable=False)
    claim_until = models.DateTimeField(null=True, editable=False)
    connected_at = models.DateTimeField()
    connected_by = models.CharField(max_length=200, blank=True)
    """Who connected it, in words."""

    class Meta(TenantModel.Meta):
        ordering = ("server__slug", "created_at")
        verbose_name = "connection"
        constraints = (
            models.UniqueConstraint(fields=("server",), condition=Q(user__isnull=True), name="oauth_connection_of_server_once"),
            models.UniqueConstraint(
                fields=("server", "user"), condition=Q(user__isnull=False), name="oauth_connection_of_user_once"
            ),
        )

    def __str__(self) -> str:
        return f"{self.server.slug} for {self.user.get_username()}" if self.user is not None else str(self.server.slug)

    def associated(self, field: str) -> bytes:
        """Return what a sealed token (`access` or `refresh`) is bound to."""
        return f"{self.tenant_id}|{self.pk}|{field}".encode()

    def expired(self, now: datetime) -> bool:
        """Tell whether its token is past its time."""
        return self.expires_at is not None and self.expires_at <= now


class PendingAuthorization(TenantModel):
    """A person was led to an authorization server and has not come back yet. Good once, for the user who began it, for ten minutes."""

    state_digest = models.BinaryField(max_length=32, unique=True)
    """SHA-256 of the `state`, which is kept nowhere."""
    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey("accounts.User", on_delete=models.CASCADE, related_name="+")
    """Who began it, and alone may end it."""
    personal = models.BooleanField(default=False)
    """The connection will be this user's own."""
    client = models.ForeignKey(OAuthClient, on_delete=models.CASCADE, related_name="+")
    verifier = models.BinaryField()
    """The PKCE verifier (RFC 7636), sealed."""
    metadata = models.JSONField(default=dict)
    resource = models.CharField(max_length=2000, blank=True)
    scope = models.CharField(max_length=4000, blank=True)
    redirect_uri = models.CharField(max_length=1000)
    server_url = models.CharField(max_length=2000)
    """Where the server was reached when it began; if that has changed it ends in nothing."""
    expires_at = models.DateTimeField(db_index=True)
    used_at = models.DateTimeField(null=True)

    class Meta(TenantModel.Meta):
        ordering = ("-created_at",)

    @property
    def associated(self) -> bytes:
        """Return what the sealed verifier is bound to."""
        return f"{self.tenant_id}|{self.pk}|verifier".encode()
