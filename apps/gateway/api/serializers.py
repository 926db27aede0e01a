"""What the API reads and shows of calls and figures."""

from typing import Any

from rest_framework import serializers

from apps.common.api.serializers import InputSerializer
from apps.gateway.plane.mcp.compat import FEATURES, STATES
from apps.servers.domain import MODERN_REVISIONS
from apps.tools.domain.facts import KINDS


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


class ClientOut(serializers.Serializer[Any]):
    """A client as it names itself; nobody vouches for its words."""

    id = serializers.UUIDField()
    tenant = serializers.CharField(source="tenant.slug")
    name = serializers.CharField()
    version = serializers.CharField()
    revision = serializers.CharField()
    era = serializers.SerializerMethodField()
    declared = serializers.ListField(child=serializers.CharField(), help_text="What it declares, as short names.")
    streams = serializers.BooleanField(help_text="It takes event streams.")
    toolset = serializers.CharField(help_text="Slug of where it speaks; empty = every server.")
    path = serializers.CharField(help_text="`/mcp`, or `/sse` for HTTP+SSE, and the slug.")
    api_key = serializers.UUIDField(source="api_key_id")
    key = serializers.CharField(source="api_key.__str__", help_text="What the key is called.")
    address = serializers.CharField(help_text="Where it last came from.")
    session = serializers.CharField(help_text="Its last session, as the audit log names it.")
    first_seen_at = serializers.DateTimeField()
    last_seen_at = serializers.DateTimeField()
    calls = serializers.IntegerField()

    def get_era(self, row: Any) -> str:
        """Return `modern` or `legacy`."""
        return "modern" if row.revision in MODERN_REVISIONS else "legacy"


class ServerSideOut(serializers.Serializer[Any]):
    """A server's side: what discovery found."""

    id = serializers.UUIDField()
    slug = serializers.CharField()
    transport = serializers.CharField(source="facts.transport")
    era = serializers.CharField(help_text="`modern`, `legacy`, `dual`, or empty before it is known.")
    revisions = serializers.ListField(child=serializers.CharField(), source="facts.revisions")
    declares = serializers.ListField(child=serializers.CharField())
    has = serializers.DictField(child=serializers.IntegerField(), source="counts")


class FeatureOut(serializers.Serializer[Any]):
    """What becomes of one feature."""

    feature = serializers.ChoiceField(list(FEATURES))
    name = serializers.CharField()
    state = serializers.ChoiceField(list(STATES))
    how = serializers.CharField(help_text="What happens, or why not.")


class PairOut(serializers.Serializer[Any]):
    """A client and a server."""

    client = ClientOut()
    server = ServerSideOut()
    features = FeatureOut(many=True)
    counts = serializers.DictField(child=serializers.IntegerField(), help_text="State to number of features.")


class CompatibilityOut(serializers.Serializer[Any]):
    """Some pairs."""

    next = serializers.URLField(allow_null=True, help_text="Address of the next page.")
    results = PairOut(many=True)


class CompatibilityQuery(serializers.Serializer[Any]):
    """Which pairs."""

    client = serializers.UUIDField(required=False, help_text="Id of a client that was seen.")
    server = serializers.CharField(required=False, max_length=40, help_text="Id or slug.")
    toolset = serializers.CharField(required=False, max_length=40, help_text="Clients that speak at this toolset alone.")
    api_key = serializers.UUIDField(required=False, help_text="Clients of this key alone.")
    revision = serializers.CharField(required=False, max_length=12)
    tenant = serializers.CharField(required=False, max_length=64, help_text="Id or slug of a tenant of those in view.")
    cursor = serializers.CharField(required=False, max_length=400)
    limit = serializers.IntegerField(required=False, min_value=1, max_value=200)


class SightQuery(serializers.Serializer[Any]):
    """Who looks, and where."""

    client = serializers.UUIDField(required=False, help_text="Id of a client that was seen.")
    key = serializers.CharField(required=False, max_length=40, help_text="Id or prefix of an API key, instead of a client.")
    user = serializers.CharField(required=False, max_length=150, help_text="Id or name of a user, instead of a client.")
    toolset = serializers.CharField(
        required=False, max_length=40, help_text="Slug; by default where the client speaks, else `/mcp`."
    )

    def validate(self, attrs: Any) -> Any:
        """Take a client, a key or a user, one of them."""
        if sum(name in attrs for name in ("client", "key", "user")) != 1:
            raise serializers.ValidationError({"client": ["Name a client, a key or a user, one of them."]})
        return attrs


class ListedOut(serializers.Serializer[Any]):
    """One entry of a list, as the client gets it."""

    kind = serializers.ChoiceField(list(KINDS))
    name = serializers.CharField()
    server = serializers.CharField()
    title = serializers.CharField()
    description = serializers.CharField()
    size = serializers.IntegerField(help_text="Bytes of its JSON.")
    rule = serializers.CharField(help_text="What allows it: grant:<id>, or superuser.")


class RefusedOut(serializers.Serializer[Any]):
    """Something that is there and that the policy keeps from the caller."""

    kind = serializers.ChoiceField(list(KINDS))
    name = serializers.CharField()
    server = serializers.CharField()
    rule = serializers.CharField(help_text="grant:<id> of a deny grant, or default-deny.")
    reason = serializers.CharField()


class MissingOut(serializers.Serializer[Any]):
    """Something that the client would get if it were not for `why`."""

    kind = serializers.ChoiceField(list(KINDS))
    name = serializers.CharField()
    server = serializers.CharField()
    why = serializers.ChoiceField(["paused", "held", "toolset-paused", "name"])


class TroubleOut(serializers.Serializer[Any]):
    """A server whose entries are listed and whose calls may fail."""

    server = serializers.CharField()
    state = serializers.CharField()


class SightOut(serializers.Serializer[Any]):
    """What one caller sees at one place now."""

    principal = serializers.CharField()
    path = serializers.CharField()
    title = serializers.CharField()
    version = serializers.IntegerField(help_text="Of the picture it was taken from.")
    counts = serializers.DictField(child=serializers.IntegerField())
    pages = serializers.DictField(child=serializers.IntegerField())
    bytes = serializers.IntegerField(help_text="Of all lists together, as JSON.")
    listed = ListedOut(many=True)
    missing = MissingOut(many=True)
    missing_left_out = serializers.IntegerField()
    trouble = TroubleOut(many=True)
    not_granted = serializers.DictField(child=serializers.IntegerField())
    refused = RefusedOut(many=True)
    refused_left_out = serializers.IntegerField()
    rules = serializers.DictField(child=serializers.CharField(), help_text="The grants that are named here, in words.")
    empty = serializers.CharField(help_text="Why nothing at all is listed; empty when something is.")
