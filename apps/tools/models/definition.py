"""Definitions as the servers gave them: kept whole, with the SHA-256 digest of their canonical form (RFC 8785)."""

from typing import Any, ClassVar

from django.db import models

from apps.common.models import TenantModel
from apps.tools.domain import EffectiveEffects, Known, effective_effects
from apps.tools.models.fields import VerbatimJSONField
from apps.tools.querysets import DefinitionManager, ToolManager


class Definition(TenantModel):
    """What a server says of one thing it offers.

    `definition` is what callers see; `pending` is what the server says now, where the two differ and an operator has not yet
    seen the difference (state `held`) or does not want it (`rejected`). Only `active` ones are listed and can be used.
    """

    class State(models.TextChoices):
        """Whether callers see it."""

        ACTIVE = "active", "Active"
        HELD = "held", "Held for review"
        REJECTED = "rejected", "Rejected"
        REMOVED = "removed", "No longer offered"

    kind: ClassVar[str] = ""
    """One of `domain.KINDS`, or `instructions`."""

    server = models.ForeignKey("servers.Server", on_delete=models.CASCADE, related_name="%(class)ss")
    name = models.CharField(max_length=2000)
    """The upstream's own name (for resources and templates: the URI)."""
    title = models.CharField(max_length=500, blank=True)
    description = models.TextField(blank=True)
    """Title and description are for search and the console: characters that hide or deceive stand in them as escapes."""
    definition = VerbatimJSONField(null=True)
    digest = models.CharField(max_length=64, blank=True)
    pending = VerbatimJSONField(null=True)
    pending_digest = models.CharField(max_length=64, blank=True)
    rejected_digest = models.CharField(max_length=64, blank=True, editable=False)
    flags = models.JSONField(default=list, blank=True, editable=False)
    """What the checks found: objects with `code`, `path`, `detail`, `holds` (see `domain.Flag`)."""
    state = models.CharField(max_length=8, choices=State, default=State.ACTIVE)
    position = models.PositiveIntegerField(default=0)
    """Its place in the server's own list."""
    held_at = models.DateTimeField(null=True)
    reviewed_at = models.DateTimeField(null=True)
    reviewed_by = models.CharField(max_length=150, blank=True)
    seen_at = models.DateTimeField(null=True)

    unscoped = models.Manager()  # type: ignore[misc]
    objects = DefinitionManager()  # type: ignore[misc]

    class Meta(TenantModel.Meta):
        abstract = True
        ordering = ("server", "position")
        constraints = (models.UniqueConstraint(fields=("server", "name"), name="%(class)s_once"),)
        indexes = (models.Index(fields=("tenant", "state"), name="%(class)s_state"),)

    def __str__(self) -> str:
        return self.name

    @property
    def known(self) -> Known:
        """Return what the review rule looks at."""
        return Known(self.state, self.digest, self.pending_digest, self.rejected_digest)

    @property
    def shown(self) -> dict[str, Any]:
        """Return the definition in force, or the one that waits where none is."""
        return self.definition or self.pending or {}


class Tool(Definition):
    """A tool; `effects` is the operator's word on what its annotations claim."""

    kind = "tool"

    class Effects(models.TextChoices):
        """What a call may do; unless an operator or the server's setting says otherwise, it may write."""

        UNKNOWN = "unknown", "Not reviewed"
        READ_ONLY = "read-only", "Read-only"
        IDEMPOTENT = "idempotent", "Idempotent"
        WRITES = "writes", "Writes"
        DESTRUCTIVE = "destructive", "Destructive"

    effects = models.CharField(max_length=12, choices=Effects, default=Effects.UNKNOWN)
    effects_by = models.CharField(max_length=150, blank=True, editable=False)
    claimed = models.CharField(max_length=12, choices=Effects, default=Effects.UNKNOWN, editable=False)
    """What the annotations of the definition in force (or of the first one that waits) claim."""

    objects = ToolManager()  # type: ignore[misc,assignment]

    @property
    def effective_effects(self) -> EffectiveEffects:
        """Return the effects in force and who says so; reads `server.trust_annotations`."""
        return effective_effects(
            self.definition, self.effects, trust_annotations=self.server.trust_annotations, operator=self.effects_by
        )


class Resource(Definition):
    """A resource; `name` is its URI."""

    kind = "resource"


class ResourceTemplate(Definition):
    """A resource template; `name` is its URI template (RFC 6570)."""

    kind = "template"


class Prompt(Definition):
    """A prompt."""

    kind = "prompt"


class Instructions(Definition):
    """What a server tells every client at the start: reviewed like a definition. At most one row for a server."""

    kind = "instructions"

    class Meta(Definition.Meta):
        verbose_name_plural = "instructions"

    @property
    def text(self) -> str:
        """Return the instructions in force."""
        gone = self.state == self.State.REMOVED
        return "" if gone or not self.definition else str(self.definition.get("instructions", ""))
