"""What the API reads and shows of recordings."""

from typing import Any

import orjson
from rest_framework import serializers

from apps.common.api.serializers import InputSerializer
from apps.gateway.models import Recording
from apps.gateway.services.recordings import LONGEST, SHORTEST


class RecordingIn(InputSerializer):
    """What to record, and for how long."""

    kind = serializers.ChoiceField(Recording.Kind.choices)
    object = serializers.CharField(
        max_length=64, help_text="Id or slug; of a key its id or prefix; of a session its name in the log."
    )
    minutes = serializers.IntegerField(min_value=SHORTEST, max_value=LONGEST, default=15)


class RecordingOut(serializers.Serializer[Any]):
    """A recording, without what it holds."""

    id = serializers.UUIDField()
    tenant = serializers.CharField(source="tenant.slug")
    kind = serializers.ChoiceField(Recording.Kind.choices)
    object_id = serializers.CharField()
    label = serializers.CharField(help_text="What it was called when the recording began.")  # type: ignore[assignment]  # a field of that name, collected by DRF
    on = serializers.BooleanField()
    started_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    until = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    messages = serializers.IntegerField()
    bytes = serializers.IntegerField()
    dropped = serializers.IntegerField(help_text="Messages that there was no room for.")


class MessageQuery(serializers.Serializer[Any]):
    """Which messages."""

    side = serializers.ChoiceField(["client", "server"], required=False)
    kind = serializers.ChoiceField(["request", "notification", "result", "error"], required=False)
    method = serializers.CharField(required=False, max_length=60)
    call_id = serializers.CharField(required=False, max_length=36)
    text = serializers.CharField(required=False, max_length=100, help_text="In the message, or its id.")


class MessageOut(serializers.Serializer[Any]):
    """One message, redacted, and cut at 8 kB."""

    at = serializers.DateTimeField()
    side = serializers.ChoiceField(["client", "server"], help_text="Of the gateway.")
    direction = serializers.ChoiceField(["in", "out"], help_text="To the gateway, or from it.")
    kind = serializers.ChoiceField(["request", "notification", "result", "error"])
    method = serializers.CharField(help_text="Of an answer that of its request.")
    rpc_id = serializers.CharField()
    call_id = serializers.CharField()
    server = serializers.CharField()
    client = serializers.CharField()
    revision = serializers.CharField()
    size = serializers.IntegerField(help_text="Bytes of the whole message.")
    cut = serializers.BooleanField()
    message = serializers.SerializerMethodField(help_text="The message; a text where it was cut.")

    def get_message(self, row: Any) -> Any:
        """Return the message as an object where it is whole."""
        try:
            return orjson.loads(row.text)
        except orjson.JSONDecodeError:
            return row.text


class MessagePageOut(serializers.Serializer[Any]):
    """Some messages."""

    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = MessageOut(many=True)
