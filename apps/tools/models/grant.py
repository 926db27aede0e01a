"""Grants: who may use what."""

from itertools import product

from django.db import models
from django.db.models import Q

from apps.common.models import TenantModel

SUBJECTS = ("user", "role", "api_key")
"""To whom a grant may be made."""
OBJECTS = {"server": "server", "toolset": "toolset", "tool": "pattern"}
"""Kind of grant to the field that says what it is for."""


class Grant(TenantModel):
    """The use of a server, a toolset or tools by pattern, for one user, role or API key. A `deny` wins over every `allow`."""

    class Effect(models.TextChoices):
        """What it does."""

        ALLOW = "allow", "Allow"
        DENY = "deny", "Deny"

    class Kind(models.TextChoices):
        """What it is for."""

        SERVER = "server", "Server"
        TOOLSET = "toolset", "Toolset"
        TOOL = "tool", "Tools"

    effect = models.CharField(max_length=5, choices=Effect, default=Effect.ALLOW)
    kind = models.CharField(max_length=8, choices=Kind)
    user = models.ForeignKey("accounts.User", null=True, blank=True, on_delete=models.CASCADE, related_name="grants")
    role = models.ForeignKey("accounts.Role", null=True, blank=True, on_delete=models.CASCADE, related_name="grants")
    api_key = models.ForeignKey("accounts.APIKey", null=True, blank=True, on_delete=models.CASCADE, related_name="grants")
    server = models.ForeignKey("servers.Server", null=True, blank=True, on_delete=models.CASCADE, related_name="grants")
    toolset = models.ForeignKey("tools.Toolset", null=True, blank=True, on_delete=models.CASCADE, related_name="grants")
    pattern = models.CharField(max_length=128, blank=True, help_text="Full names, server__tool; * matches any characters.")

    class Meta(TenantModel.Meta):
        ordering = ("-created_at",)
        constraints = (
            # The same grant twice is one grant; a subject that is NULL never collides.
            *(
                models.UniqueConstraint(
                    fields=(subject, "effect", field), condition=Q(kind=kind), name=f"grant_{subject}_{kind}_once"
                )
                for subject, (kind, field) in product(SUBJECTS, OBJECTS.items())
            ),
            models.CheckConstraint(
                name="grant_one_subject",
                condition=(
                    Q(user__isnull=False, role__isnull=True, api_key__isnull=True)
                    | Q(user__isnull=True, role__isnull=False, api_key__isnull=True)
                    | Q(user__isnull=True, role__isnull=True, api_key__isnull=False)
                ),
            ),
            models.CheckConstraint(
                name="grant_one_object",
                condition=(
                    Q(kind="server", server__isnull=False, toolset__isnull=True, pattern="")
                    | Q(kind="toolset", toolset__isnull=False, server__isnull=True, pattern="")
                    | (Q(kind="tool", server__isnull=True, toolset__isnull=True) & ~Q(pattern=""))
                ),
            ),
        )

    @property
    def subject(self) -> str:
        """Return `user:<id>`, `role:<id>` or `api_key:<id>`."""
        if self.user_id:
            return f"user:{self.user_id}"
        if self.role_id:
            return f"role:{self.role_id}"
        return f"api_key:{self.api_key_id}"

    def __str__(self) -> str:
        target = self.server or self.toolset or self.pattern
        return f"{self.effect} {self.user or self.role or self.api_key} the use of {target}"
