"""What the API shows of the audit log."""

from typing import Any

from rest_framework import serializers

from apps.audit.formats import FORMATS


class EventOut(serializers.Serializer[Any]):
    """One event. Details and digests only where the whole event was asked for."""

    event_id = serializers.CharField()
    event_type = serializers.CharField()
    time = serializers.DateTimeField()
    tenant = serializers.CharField(allow_null=True)
    actor_kind = serializers.CharField(allow_null=True)
    actor_id = serializers.CharField(allow_null=True)
    actor = serializers.CharField(allow_null=True)
    origin = serializers.CharField(allow_null=True)
    agent = serializers.CharField(allow_null=True)
    task = serializers.CharField(allow_null=True)
    request_id = serializers.CharField(allow_null=True)
    session = serializers.CharField(allow_null=True)
    trace = serializers.CharField(allow_null=True)
    call_id = serializers.CharField(allow_null=True)
    action = serializers.CharField(allow_null=True)
    object_kind = serializers.CharField(allow_null=True)
    object_id = serializers.CharField(allow_null=True)
    object = serializers.CharField(allow_null=True)
    server = serializers.CharField(allow_null=True)
    tool = serializers.CharField(allow_null=True)
    model = serializers.CharField(allow_null=True)
    revision = serializers.CharField(allow_null=True)
    outcome = serializers.CharField(allow_null=True)
    error_type = serializers.CharField(allow_null=True)
    duration_us = serializers.IntegerField(allow_null=True)
    request_bytes = serializers.IntegerField(allow_null=True)
    response_bytes = serializers.IntegerField(allow_null=True)
    tokens_in = serializers.IntegerField(allow_null=True)
    tokens_out = serializers.IntegerField(allow_null=True)
    cost_micros = serializers.IntegerField(allow_null=True)


class WholeEventOut(EventOut):
    """One event with everything that the log holds of it."""

    details = serializers.DictField(allow_null=True)
    digest = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class EventPageOut(serializers.Serializer[Any]):
    """Some events, newest first."""

    next = serializers.URLField(allow_null=True, help_text="Address of the next page.")
    results = EventOut(many=True)


class FilterQuery(serializers.Serializer[Any]):
    """How events are filtered, in lists and exports."""

    since = serializers.DateTimeField(required=False, help_text="Inclusive.")
    until = serializers.DateTimeField(required=False, help_text="Exclusive.")
    text = serializers.CharField(
        required=False, max_length=200, help_text="The beginning of an actor, object, server, tool or id."
    )
    event_type = serializers.CharField(required=False, max_length=40, help_text="One that ends with a dot is a prefix.")
    tenant = serializers.UUIDField(required=False, help_text="Id; events above tenants have none.")
    actor_kind = serializers.CharField(required=False, max_length=12)
    actor_id = serializers.CharField(required=False, max_length=40)
    actor = serializers.CharField(required=False, max_length=200)
    action = serializers.CharField(required=False, max_length=40)
    origin = serializers.CharField(required=False, max_length=12)
    object_kind = serializers.CharField(required=False, max_length=24)
    object_id = serializers.CharField(required=False, max_length=40)
    server = serializers.CharField(required=False, max_length=40)
    tool = serializers.CharField(required=False, max_length=200)
    outcome = serializers.CharField(required=False, max_length=12)
    error_type = serializers.CharField(required=False, max_length=60)
    call_id = serializers.CharField(required=False, max_length=36)
    request_id = serializers.CharField(required=False, max_length=64)
    session = serializers.CharField(required=False, max_length=64)
    trace = serializers.CharField(required=False, max_length=32)
    task = serializers.CharField(required=False, max_length=64)
    revision = serializers.CharField(required=False, max_length=12)

    def validate_tenant(self, value: Any) -> str:
        """Return the id as the log spells it."""
        return str(value)


class EventQuery(FilterQuery):
    """A page of the list."""

    cursor = serializers.CharField(required=False, max_length=400)
    limit = serializers.IntegerField(required=False, min_value=1, max_value=200)


class ExportQuery(FilterQuery):
    """What is taken away, and in which form."""

    format = serializers.ChoiceField(choices=sorted(FORMATS))


class ChainProblemOut(serializers.Serializer[Any]):
    """What is wrong with a chain, and at which row."""

    event_id = serializers.CharField()
    what = serializers.CharField()


class CheckpointReportOut(serializers.Serializer[Any]):
    """What the checkpoints were like that the chains were held against."""

    read = serializers.IntegerField()
    first = serializers.IntegerField(allow_null=True)
    last = serializers.IntegerField(allow_null=True)
    last_time = serializers.CharField(allow_null=True)
    longest_gap_seconds = serializers.FloatField(allow_null=True)
    unreadable_lines = serializers.IntegerField()


class VerificationOut(serializers.Serializer[Any]):
    """The result of a check of the log."""

    ok = serializers.BooleanField()
    rows = serializers.IntegerField()
    seconds = serializers.FloatField()
    columns = serializers.BooleanField()
    mode = serializers.CharField(help_text="What was compared, in words.")
    payloads_gone = serializers.IntegerField(help_text="Rows whose payload went by retention; an event accounts for each.")
    removals = serializers.ListField(child=serializers.CharField(), help_text="The last events that account for them.")
    checkpoints = CheckpointReportOut(allow_null=True)
    first_bad = serializers.CharField(allow_null=True)
    what = serializers.CharField(allow_null=True)
    problems = ChainProblemOut(many=True)


class CheckpointOut(serializers.Serializer[Any]):
    """A signed checkpoint, as it was signed."""

    number = serializers.IntegerField()
    time = serializers.DateTimeField()
    key = serializers.CharField(help_text="Id of the key that signed it.")
    document = serializers.CharField(source="line", help_text="The signed line of JSON, byte for byte.")


class CheckpointKeyOut(serializers.Serializer[Any]):
    """The public half of a key that signs checkpoints."""

    id = serializers.CharField()
    public_key = serializers.CharField(help_text="Ed25519, base64url.")
    newest = serializers.BooleanField(help_text="It signs now.")


class TargetOut(serializers.Serializer[Any]):
    """How one place outside stands."""

    name = serializers.CharField()
    delivered = serializers.IntegerField()
    delivered_at = serializers.DateTimeField(allow_null=True)
    waiting = serializers.IntegerField()
    failing_since = serializers.DateTimeField(allow_null=True)
    error = serializers.CharField()


class CheckpointStatusOut(serializers.Serializer[Any]):
    """How the checkpoints stand."""

    number = serializers.IntegerField()
    made_at = serializers.DateTimeField(allow_null=True)
    key = serializers.CharField()
    degraded = serializers.CharField(help_text="What is wrong; empty when nothing is.")
    targets = TargetOut(many=True)


class RetentionRuleOut(serializers.Serializer[Any]):
    """How long the payloads of a family of events stay."""

    family = serializers.CharField()
    tenant = serializers.CharField(help_text="Id; empty for every tenant without a rule of its own.")
    days = serializers.IntegerField()
