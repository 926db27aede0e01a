"""What the API reads and shows of calls and figures."""

from typing import Any

from rest_framework import serializers

from apps.common.api.serializers import InputSerializer


class CallIn(InputSerializer):
    """A call to make."""

    arguments = serializers.DictField(required=False)
    toolset = serializers.CharField(max_length=40, required=False, help_text="Slug of the toolset to go through.")


class StepOut(serializers.Serializer[Any]):
    """A step of the pipeline, and when it was done."""

    name = serializers.CharField()
    ms = serializers.FloatField()


class CallOut(serializers.Serializer[Any]):
    """The server's answer to a call; `ok` is false where the tool itself says that it failed (`result.isError`)."""

    call_id = serializers.CharField()
    ok = serializers.BooleanField()
    result = serializers.DictField()
    steps = StepOut(many=True)
    duration_ms = serializers.FloatField()
    events = serializers.ListField(child=serializers.CharField())


class FiguresOut(serializers.Serializer[Any]):
    """Finished calls of a window."""

    calls = serializers.IntegerField()
    errors = serializers.IntegerField()  # type: ignore[assignment]  # a field of that name, collected by DRF
    refused = serializers.IntegerField()
    cancelled = serializers.IntegerField()
    unknown = serializers.IntegerField()
    error_rate = serializers.FloatField()
    mean_us = serializers.IntegerField(allow_null=True)
    p50_us = serializers.IntegerField(allow_null=True)
    p95_us = serializers.IntegerField(allow_null=True)
    p99_us = serializers.IntegerField(allow_null=True)
    request_bytes = serializers.IntegerField()
    response_bytes = serializers.IntegerField()


class ToolFiguresOut(FiguresOut):
    """The same for one tool."""

    server = serializers.CharField()
    tool = serializers.CharField()


class ServersFiguresOut(serializers.Serializer[Any]):
    """Servers and what they offer."""

    total = serializers.IntegerField()
    active = serializers.IntegerField()
    by_transport = serializers.DictField(child=serializers.IntegerField())
    by_state = serializers.DictField(child=serializers.IntegerField())
    processes = serializers.IntegerField()
    tools = serializers.IntegerField()
    held = serializers.IntegerField()


class StatisticsOut(serializers.Serializer[Any]):
    """The figures in view."""

    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    servers = ServersFiguresOut()
    calls = FiguresOut()
    tools = ToolFiguresOut(many=True)


class StatisticsQuery(serializers.Serializer[Any]):
    """The window, and what of the installation."""

    since = serializers.DateTimeField(required=False, help_text="Inclusive; 24 hours before `until` by default.")
    until = serializers.DateTimeField(required=False, help_text="Exclusive; now by default.")
    tenant = serializers.CharField(required=False, max_length=64, help_text="Id or slug of a tenant of those in view.")
    server = serializers.CharField(required=False, max_length=40, help_text="Slug: calls of this server alone.")
    tool = serializers.CharField(required=False, max_length=200, help_text="The server's own name: calls of this tool alone.")

    def validate(self, attrs: Any) -> Any:
        """Refuse a window that ends before it begins."""
        if "since" in attrs and "until" in attrs and attrs["since"] >= attrs["until"]:
            raise serializers.ValidationError({"until": ["Later than `since`."]})
        return attrs
