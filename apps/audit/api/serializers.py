"""What the API shows of the audit log."""

from typing import Any

from rest_framework import serializers


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


class EventQuery(serializers.Serializer[Any]):
    """How events are filtered."""

    since = serializers.DateTimeField(required=False, help_text="Inclusive.")
    until = serializers.DateTimeField(required=False, help_text="Exclusive.")
    text = serializers.CharField(
        required=False, max_length=200, help_text="The beginning of an actor, object, server, tool or id."
    )
    cursor = serializers.CharField(required=False, max_length=400)
    limit = serializers.IntegerField(required=False, min_value=1, max_value=200)
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


class ChainProblemOut(serializers.Serializer[Any]):
    """What is wrong with a chain, and at which row."""

    event_id = serializers.CharField()
    what = serializers.CharField()


class VerificationOut(serializers.Serializer[Any]):
    """The result of a check of the log."""

    ok = serializers.BooleanField()
    rows = serializers.IntegerField()
    seconds = serializers.FloatField()
    columns = serializers.BooleanField()
    first_bad = serializers.CharField(allow_null=True)
    what = serializers.CharField(allow_null=True)
    problems = ChainProblemOut(many=True)
