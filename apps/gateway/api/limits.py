"""Limits in the API."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts import selectors as accounts
from apps.accounts.api.people import visible_user
from apps.common.api.serializers import InputSerializer
from apps.common.api.views import TenantViewSet
from apps.common.errors import NotFound, ValidationFailed
from apps.gateway import selectors
from apps.gateway.models import Limit
from apps.gateway.models.limit import MOST_AMOUNT
from apps.gateway.services import limits as services
from apps.servers.selectors import get_server


class LimitOut(serializers.ModelSerializer[Limit]):
    """A limit, with what it says in words."""

    whose = serializers.CharField(read_only=True)
    words = serializers.CharField(source="in_words", read_only=True)
    in_use = serializers.SerializerMethodField(
        help_text="What is taken of it now; null for limits that count each user alone, and where no gateway runs in the process."
    )

    class Meta:
        model = Limit
        fields = (
            "id", "tenant", "subject", "user", "role", "api_key", "server", "pattern", "measure", "amount", "window", "each",
            "whose", "words", "in_use", "created_at", "updated_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_in_use(self, row: Limit) -> int | None:
        """Return what is taken."""
        return self._uses.get(str(row.pk))

    @cached_property
    def _uses(self) -> Mapping[str, int]:
        """What is taken of all that is shown, asked once; of a list its child is asked for each row."""
        shown: Any = self.parent.instance if self.parent is not None else [self.instance]
        return services.in_use(list(shown))


class LimitIn(InputSerializer):
    """A limit to set: whose, of what, how much, in what time. Objects by id or slug."""

    subject = serializers.ChoiceField(choices=Limit.Subject.choices)
    user = serializers.CharField(max_length=150, required=False)
    role = serializers.CharField(max_length=64, required=False)
    api_key = serializers.CharField(max_length=64, required=False)
    server = serializers.CharField(max_length=64, required=False)
    pattern = serializers.CharField(max_length=128, required=False)
    measure = serializers.ChoiceField(choices=Limit.Measure.choices, required=False)
    amount = serializers.IntegerField(min_value=0, max_value=MOST_AMOUNT)
    window = serializers.ChoiceField(choices=Limit.Window.choices, required=False)
    each = serializers.BooleanField(required=False)


class LimitChange(InputSerializer):
    """Another amount."""

    amount = serializers.IntegerField(min_value=0, max_value=MOST_AMOUNT)


class LimitsViewSet(TenantViewSet):
    """Limits on calls, calls at once and spending."""

    model = Limit
    kind = "limit"
    slug_field: ClassVar[str | None] = None
    serializer_class = LimitOut
    filterset_fields = ("tenant", "subject", "measure", "window", "user", "role", "api_key", "server")
    ordering_fields = ("created_at", "amount")

    def rows(self) -> QuerySet[Any]:
        """Return the limits in view."""
        return selectors.limits()

    @extend_schema(request=LimitIn, responses={201: LimitOut})
    def create(self, request: Request) -> Response:
        """Set a limit; in force within a second."""
        given = LimitIn(data=request.data).given()
        finders = {"user": visible_user, "role": accounts.role, "api_key": accounts.api_key, "server": get_server}
        found: dict[str, Any] = {}
        for name, value in given.items():
            try:
                found[name] = finders[name](value) if name in finders else value
            except NotFound as error:
                raise ValidationFailed(error.detail, errors={name: ["There is no such object in this tenant."]}) from None
        return Response(LimitOut(self.rows().get(pk=services.set_limit(**found).pk)).data, status=201)

    @extend_schema(request=LimitChange, responses=LimitOut)
    def partial_update(self, request: Request, id: str) -> Response:
        """Give a limit another amount; what is used of it stays used."""
        row = services.change_limit(self.get_object(), amount=LimitChange(data=request.data).given()["amount"])
        return Response(LimitOut(self.rows().get(pk=row.pk)).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """Take a limit away; in force within a second."""
        services.remove_limit(self.get_object())
        return Response(status=204)
