"""Secrets that a server needs: encrypted, replaced, never shown."""

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from apps.common.models import TenantModel
from apps.servers import rules
from apps.servers.models.server import Server


class Credential(TenantModel):
    """A header or an environment variable sent to a server. `sealed` is bound to tenant, row and field."""

    class Kind(models.TextChoices):
        """Where the value goes."""

        HEADER = "header", "HTTP header"
        ENV = "env", "Environment variable"

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="credentials")
    kind = models.CharField(max_length=8, choices=Kind)
    name = models.CharField(max_length=200)
    sealed = models.BinaryField(editable=False)

    class Meta(TenantModel.Meta):
        ordering = ("kind", "name")
        constraints = (
            models.UniqueConstraint(fields=("server", "kind", "name"), name="credential_once"),
            models.UniqueConstraint(
                "server",
                Lower("name"),
                condition=Q(kind="header"),
                name="credential_header_once",
                violation_error_message="Header names do not differ by case.",
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def clean(self) -> None:
        """Check the name; raises ValidationError."""
        try:
            (rules.check_header_name if self.kind == self.Kind.HEADER else rules.check_env_name)(self.name)
        except ValueError as error:
            raise ValidationError({"name": [str(error)]}) from error

    @property
    def associated(self) -> bytes:
        """Return what the sealed value is bound to: tenant, row and field."""
        return f"{self.tenant_id}|{self.pk}|value".encode()
