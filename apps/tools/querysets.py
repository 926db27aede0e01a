"""Sets of definitions: by state, kind of flag, text and effects."""

from typing import Any, cast

from django.db.models import Case, CharField, F, Q, Value, When

from apps.common.models import TenantManager, TenantQuerySet


class DefinitionQuerySet(TenantQuerySet):
    """Definitions of one kind."""

    def active(self) -> "DefinitionQuerySet":
        """Return those that callers see."""
        return self.filter(state="active")

    def held(self) -> "DefinitionQuerySet":
        """Return those that wait for review."""
        return self.filter(state="held")

    def offered(self) -> "DefinitionQuerySet":
        """Return those that their server still offers."""
        return self.exclude(state="removed")

    def of_server(self, server: Any) -> "DefinitionQuerySet":
        """Return those of a server: its row, its id or its slug."""
        from apps.accounts.selectors import as_uuid

        key = as_uuid(getattr(server, "pk", server))
        return self.filter(server_id=key) if key else self.filter(server__slug=str(server))

    def matching(self, text: str) -> "DefinitionQuerySet":
        """Return those whose name, title, description or server contains `text`; `server__name` finds one by its full name."""
        found = (
            Q(name__icontains=text)
            | Q(title__icontains=text)
            | Q(description__icontains=text)
            | Q(server__slug__icontains=text)
        )
        slug, border, name = text.partition("__")
        if border and slug:
            found |= Q(server__slug__iendswith=slug, name__istartswith=name)
        return self.filter(found)


class ToolQuerySet(DefinitionQuerySet):
    """Tools."""

    def with_effects(self) -> "ToolQuerySet":
        """Add `effects_in_force`: the operator's word, else what a trusted server claims (see `domain.effective_effects`)."""
        said = When(~Q(effects="unknown"), then=F("effects"))
        trusted = When(server__trust_annotations=True, then=F("claimed"))
        ruling = Case(said, trusted, default=Value("unknown"), output_field=CharField())
        return cast("ToolQuerySet", self.annotate(effects_in_force=ruling))

    def in_force(self, effects: str) -> "ToolQuerySet":
        """Return those whose effects in force are `effects`."""
        return self.with_effects().filter(effects_in_force=effects)


DefinitionManager = TenantManager.from_queryset(DefinitionQuerySet)
"""The scoped manager of definitions, with the sets above."""
ToolManager = TenantManager.from_queryset(ToolQuerySet)
"""The same for tools."""
