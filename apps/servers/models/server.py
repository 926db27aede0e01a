"""The registry's row: an MCP server as an operator knows it."""

from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from apps.common.models import TenantModel
from apps.common.validators import SLUG
from apps.servers import domain, rules
from apps.servers.querysets import ServerManager


def check_slug(value: str) -> None:
    """Raise ValidationError for a reserved slug."""
    try:
        rules.check_slug(value)
    except ValueError as error:
        raise ValidationError(str(error), code="reserved") from error


class Server(TenantModel):
    """An MCP server. How it is reached stands in its endpoints; what it offers in the catalogue of `tools`."""

    class Transport(models.TextChoices):
        """How Switchyard talks to it."""

        STDIO = "stdio", "stdio"
        SSE = "sse", "HTTP+SSE"
        HTTP = "http", "Streamable HTTP"

    class Review(models.TextChoices):
        """What happens to definitions that are new or have changed."""

        ACCEPT = "accept", "Accept"
        HOLD_CHANGED = "hold-changed", "Hold changed"
        HOLD_ALL = "hold-all", "Hold new and changed"

    class Auth(models.TextChoices):
        """How Switchyard shows it who is calling."""

        HEADERS = domain.HEADERS, "Stored headers"
        OAUTH = domain.OAUTH, "OAuth, one connection"
        OAUTH_USER = domain.OAUTH_USER, "OAuth, each user their own"
        CLIENT_CREDENTIALS = domain.CLIENT_CREDENTIALS, "OAuth, client credentials"

    slug = models.CharField(max_length=40, validators=[SLUG, check_slug])
    name = models.CharField(max_length=120)
    description = models.CharField(max_length=500, blank=True)
    transport = models.CharField(max_length=8, choices=Transport)
    auth = models.CharField(
        max_length=20,
        choices=Auth,
        default=Auth.HEADERS,
        verbose_name="authentication",
        help_text="With OAuth the server is connected on its page, after it is registered.",
    )
    oauth_scope = models.CharField(
        max_length=1000,
        blank=True,
        verbose_name="OAuth scopes",
        help_text="Separated by spaces; empty = those that the server asks for.",
    )
    review = models.CharField(max_length=16, choices=Review, default=Review.HOLD_CHANGED)
    trust_annotations = models.BooleanField(
        default=False,
        help_text="Believe its read-only and idempotent annotations; otherwise every tool counts as having effects.",
    )
    paused_at = models.DateTimeField(null=True, blank=True, editable=False)
    builtin = models.BooleanField(default=False, editable=False)
    timeout_seconds = models.PositiveIntegerField(default=60, validators=[MinValueValidator(1), MaxValueValidator(3600)])
    max_concurrency = models.PositiveIntegerField(default=256, validators=[MinValueValidator(1), MaxValueValidator(10000)])
    idle_seconds = models.PositiveIntegerField(
        default=600,
        validators=[MinValueValidator(5), MaxValueValidator(86400)],
        help_text="An idle process or session is ended after this time.",
    )
    version = models.PositiveBigIntegerField(default=1, editable=False)
    """Grows with every change of what the server is reached by; connections of an older version are closed."""
    # What discovery found.
    server_info = models.JSONField(default=dict, editable=False)
    capabilities = models.JSONField(default=dict, editable=False)
    instructions = models.TextField(blank=True, editable=False)
    revisions = models.JSONField(default=list, editable=False)
    """Protocol revisions it answered to, newest first."""
    surveyed_version = models.PositiveBigIntegerField(default=0, editable=False)
    """The `version` whose older revisions were all asked for; other versions know the newest alone."""
    discovered_at = models.DateTimeField(null=True, editable=False)
    discovery_error = models.CharField(max_length=500, blank=True, editable=False)

    objects: ClassVar[Any] = ServerManager()

    class Meta(TenantModel.Meta):
        ordering = ("slug",)
        constraints = (models.UniqueConstraint(fields=("tenant", "slug"), name="server_slug_once"),)

    def __str__(self) -> str:
        return self.slug

    @property
    def by_oauth(self) -> bool:
        """Tell whether it is reached with tokens of an authorization server."""
        return self.auth != self.Auth.HEADERS

    @property
    def paused(self) -> bool:
        """Tell whether an operator has paused it."""
        return self.paused_at is not None
