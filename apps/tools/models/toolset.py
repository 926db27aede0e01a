"""Toolsets: virtual servers at `/mcp/<slug>`."""

from django.db import models

from apps.common.models import TenantModel
from apps.common.validators import SLUG


class Toolset(TenantModel):
    """A chosen part of one or more servers. With `server` set it is the toolset that came with that server: everything of
    it, under its own names. Its slug shares one namespace with the servers of the tenant, because every server has one.
    """

    slug = models.CharField(max_length=40, validators=[SLUG])
    name = models.CharField(max_length=120)
    description = models.CharField(max_length=500, blank=True)
    instructions = models.TextField(blank=True)
    server = models.OneToOneField("servers.Server", null=True, blank=True, on_delete=models.CASCADE, related_name="own_toolset")
    paused_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta(TenantModel.Meta):
        ordering = ("slug",)
        constraints = (models.UniqueConstraint(fields=("tenant", "slug"), name="toolset_slug_once"),)

    def __str__(self) -> str:
        return self.slug


class ToolsetEntry(TenantModel):
    """One choice of a composed toolset: an exact upstream name, or a pattern with `*`, of one server and kind."""

    class Kind(models.TextChoices):
        """What is chosen; `all` is the whole server."""

        ALL = "all", "Everything"
        TOOL = "tool", "Tool"
        RESOURCE = "resource", "Resource"
        TEMPLATE = "template", "Resource template"
        PROMPT = "prompt", "Prompt"

    toolset = models.ForeignKey(Toolset, on_delete=models.CASCADE, related_name="entries")
    server = models.ForeignKey("servers.Server", on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=8, choices=Kind, default=Kind.TOOL)
    pattern = models.CharField(max_length=2000, default="*")
    position = models.PositiveIntegerField(default=0, editable=False)
    rename = models.CharField(max_length=64, blank=True, help_text="The full name that callers see instead of server__tool.")
    description = models.TextField(blank=True, help_text="The description that callers see instead of the server's.")

    class Meta(TenantModel.Meta):
        ordering = ("position", "created_at")
        constraints = (models.UniqueConstraint(fields=("toolset", "server", "kind", "pattern"), name="toolset_entry_once"),)

    def __str__(self) -> str:
        return f"{self.server}:{self.kind}:{self.pattern}"
