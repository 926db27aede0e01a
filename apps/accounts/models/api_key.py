"""API keys: stored as a digest, shown once."""

from django.db import models
from django.db.models import Q

from apps.accounts.domain import key_label
from apps.accounts.models.people import User
from apps.common.clock import now
from apps.common.models import TenantModel


class APIKey(TenantModel):
    """A program's credential.

    What it may use: the grants made to the key itself and, with `inherits_owner`, whatever its owner may use and manage at
    that moment; `scopes`, where given, narrow what it may manage.
    """

    name = models.CharField(max_length=120)
    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_keys")
    prefix = models.CharField(max_length=8, unique=True, editable=False)
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    inherits_owner = models.BooleanField(default=False, help_text="Acts with everything its owner may do.")
    scopes = models.JSONField(null=True, blank=True, help_text="Permissions it is narrowed to; empty = not narrowed.")
    loopback_only = models.BooleanField(default=False, help_text="Accepted only from this machine.")
    allowed_networks = models.JSONField(
        default=list,
        blank=True,
        help_text="Networks that it is accepted from (192.0.2.0/24, 2001:db8::/32); empty = from anywhere.",
    )
    former_prefix = models.CharField(max_length=8, blank=True, editable=False)
    """Of the text that the last rotation replaced."""
    former_digest = models.BinaryField(max_length=32, null=True, unique=True, editable=False)
    former_until = models.DateTimeField(null=True, editable=False)
    """Until when that text is accepted beside the new one."""
    rotated_at = models.DateTimeField(null=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_from = models.GenericIPAddressField(null=True, blank=True, editable=False)
    last_used_client = models.CharField(max_length=120, blank=True, editable=False)

    class Meta(TenantModel.Meta):
        ordering = ("-created_at",)
        verbose_name = "API key"
        indexes = (models.Index(fields=("tenant", "revoked_at"), condition=Q(revoked_at__isnull=True), name="api_key_live"),)

    def __str__(self) -> str:
        return key_label(self.name, self.prefix, self.owner.username)

    @property
    def state(self) -> str:
        """Return `active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now():
            return "expired"
        return "active"
