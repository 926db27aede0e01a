"""What the API reads and shows of the catalogue, toolsets and grants."""

from typing import Any, ClassVar

from rest_framework import serializers

from apps.common.api.serializers import InputSerializer
from apps.tools.domain import full_name
from apps.tools.models import Definition, Grant, Instructions, Prompt, Resource, ResourceTemplate, Tool, Toolset, ToolsetEntry


class _DefinitionOut(serializers.ModelSerializer[Any]):
    """A definition: what callers see, and what waits for review."""

    server = serializers.CharField(source="server.slug", read_only=True)
    full_name = serializers.SerializerMethodField()
    definition = serializers.DictField(read_only=True, allow_null=True)
    pending = serializers.DictField(read_only=True, allow_null=True)
    flags = serializers.ListField(child=serializers.DictField(), read_only=True)

    class Meta:
        fields: ClassVar[Any] = (
            "id", "tenant", "server", "name", "full_name", "title", "description", "state", "definition", "digest", "pending", "pending_digest",
            "flags", "held_at", "reviewed_at", "reviewed_by", "seen_at", "created_at", "updated_at",
        )  # fmt: skip
        read_only_fields: ClassVar[Any] = fields

    def get_full_name(self, row: Definition) -> str:
        """Return `server__name`."""
        return full_name(row.server.slug, row.name)


class EffectsOut(serializers.Serializer[Any]):
    """What a call may do, and who says so."""

    value = serializers.CharField()
    said_by = serializers.CharField()
    reason = serializers.CharField()
    claimed = serializers.CharField()


class ToolOut(_DefinitionOut):
    """A tool."""

    effects = EffectsOut(source="effective_effects", read_only=True)

    class Meta(_DefinitionOut.Meta):
        model = Tool
        fields = (*_DefinitionOut.Meta.fields, "effects")
        read_only_fields = fields


class ResourceOut(_DefinitionOut):
    """A resource."""

    class Meta(_DefinitionOut.Meta):
        model = Resource


class ResourceTemplateOut(_DefinitionOut):
    """A resource template."""

    class Meta(_DefinitionOut.Meta):
        model = ResourceTemplate


class PromptOut(_DefinitionOut):
    """A prompt."""

    class Meta(_DefinitionOut.Meta):
        model = Prompt


class InstructionsOut(_DefinitionOut):
    """What a server tells every client at the start."""

    class Meta(_DefinitionOut.Meta):
        model = Instructions


class ReviewIn(InputSerializer):
    """A decision on the definition that was seen."""

    expected_digest = serializers.CharField(max_length=64, required=False, help_text="Refuses when it has changed since.")


class ApproveIn(InputSerializer):
    """An approval of the definition that was seen, and of no other."""

    expected_digest = serializers.CharField(
        max_length=64, help_text="Of what was looked at, as `difference/` gives it; 409 when something else waits by now."
    )


class EffectsIn(InputSerializer):
    """The operator's word on what a call may do."""

    effects = serializers.ChoiceField(choices=Tool.Effects.choices)


class ApproveAllIn(InputSerializer):
    """What was seen."""

    expected_digests = serializers.DictField(
        child=serializers.CharField(max_length=64),
        required=False,
        help_text="Id to the digest that was seen; anything else is left.",
    )


class ApprovedOut(serializers.Serializer[Any]):
    """How many came into force, and how many were left for a closer look."""

    approved = serializers.IntegerField()
    left = serializers.IntegerField()


class ChangeOut(serializers.Serializer[Any]):
    """One difference."""

    path = serializers.CharField()
    kind = serializers.CharField()
    before = serializers.JSONField()
    after = serializers.JSONField()


class DifferenceOut(serializers.Serializer[Any]):
    """What changed between the definition in force and the one that waits."""

    state = serializers.CharField()
    expected_digest = serializers.CharField(
        help_text="Of what is shown here: what `approve/` and `reject/` take, so that nothing else is decided on."
    )
    changes = ChangeOut(many=True)
    unified = serializers.CharField()


class UseOut(serializers.Serializer[Any]):
    """Who may use something, and by which rule."""

    kind = serializers.CharField()
    id = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]  # a field of that name, collected by DRF
    allowed = serializers.BooleanField()
    rule = serializers.CharField()
    reason = serializers.CharField()


class EntryOut(serializers.ModelSerializer[ToolsetEntry]):
    """One choice of a toolset."""

    server = serializers.CharField(source="server.slug", read_only=True)

    class Meta:
        model = ToolsetEntry
        fields = ("server", "kind", "pattern", "rename", "description")
        read_only_fields = fields


class ToolsetOut(serializers.ModelSerializer[Toolset]):
    """A toolset."""

    server = serializers.CharField(source="server.slug", read_only=True, allow_null=True, default=None)
    entries = EntryOut(many=True, read_only=True)
    paused = serializers.SerializerMethodField()
    path = serializers.SerializerMethodField()

    class Meta:
        model = Toolset
        fields = (
            "id", "tenant", "slug", "name", "description", "instructions", "server", "paused", "path", "entries", "created_at", "updated_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_paused(self, row: Toolset) -> bool:
        """Tell whether an operator has paused it."""
        return row.paused_at is not None

    def get_path(self, row: Toolset) -> str:
        """Return where clients connect."""
        return f"/mcp/{row.slug}"


class EntryIn(InputSerializer):
    """One choice of a toolset."""

    server = serializers.CharField(max_length=64)
    kind = serializers.ChoiceField(choices=ToolsetEntry.Kind.choices, required=False)
    pattern = serializers.CharField(max_length=2000, required=False)
    rename = serializers.CharField(max_length=64, required=False, allow_blank=True)
    description = serializers.CharField(max_length=10_000, required=False, allow_blank=True)


class _ToolsetFields(InputSerializer):
    name = serializers.CharField(max_length=120, required=False, allow_blank=True)
    description = serializers.CharField(max_length=500, required=False, allow_blank=True)
    instructions = serializers.CharField(max_length=20_000, required=False, allow_blank=True)
    entries = EntryIn(many=True, required=False)


class ToolsetIn(_ToolsetFields):
    """A toolset to create."""

    slug = serializers.CharField(max_length=40)


class ToolsetChange(_ToolsetFields):
    """What may be changed of a toolset; `entries` is the whole list."""

    slug = serializers.CharField(max_length=40, required=False)


class PreviewIn(InputSerializer):
    """Entries to try."""

    entries = EntryIn(many=True)


class PreviewItemOut(serializers.Serializer[Any]):
    """One thing as a client gets it."""

    kind = serializers.CharField()
    name = serializers.CharField()
    own_name = serializers.CharField()
    definition = serializers.DictField()


class CompositionProblemOut(serializers.Serializer[Any]):
    """Something that is left out, and why."""

    code = serializers.CharField()
    kind = serializers.CharField()
    own_name = serializers.CharField()
    name = serializers.CharField()
    detail = serializers.CharField()


class PreviewOut(serializers.Serializer[Any]):
    """The exact content that a client with every right gets."""

    items = PreviewItemOut(many=True)
    problems = CompositionProblemOut(many=True)
    characters = serializers.IntegerField()
    tokens = serializers.IntegerField()


class GrantOut(serializers.ModelSerializer[Grant]):
    """A grant: ids of subject and object, and the names that people know them by."""

    subject = serializers.SerializerMethodField(help_text="Name of the user, role or key.")
    object = serializers.SerializerMethodField(help_text="Slug of the server or toolset, or the pattern.")

    class Meta:
        model = Grant
        fields = (
            "id", "tenant", "effect", "kind", "user", "role", "api_key", "subject", "server", "toolset", "pattern", "object", "created_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_subject(self, row: Grant) -> str:
        """Return username, role's slug or key's name."""
        if row.user is not None:
            return row.user.username
        return row.role.slug if row.role is not None else row.api_key.name if row.api_key is not None else ""

    def get_object(self, row: Grant) -> str:
        """Return the slug or the pattern."""
        target = row.server or row.toolset
        return target.slug if target is not None else row.pattern


class GrantIn(InputSerializer):
    """A grant to make: to one of user, role and api_key; of a server, a toolset, or tools by pattern. Objects by id or slug."""

    effect = serializers.ChoiceField(choices=Grant.Effect.choices, required=False)
    kind = serializers.ChoiceField(choices=Grant.Kind.choices)
    user = serializers.CharField(max_length=150, required=False)
    role = serializers.CharField(max_length=64, required=False)
    api_key = serializers.CharField(max_length=64, required=False)
    server = serializers.CharField(max_length=64, required=False)
    toolset = serializers.CharField(max_length=64, required=False)
    pattern = serializers.CharField(max_length=128, required=False)
