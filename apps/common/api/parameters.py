"""Query parameters are as strict as bodies: one that is not known, or stands twice, is refused instead of ignored."""

from typing import Any

from django import forms
from django.db import models
from django_filters import rest_framework as filters
from rest_framework.filters import OrderingFilter
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request

from apps.common.errors import ValidationFailed


def refuse_unknown(request: Request, known: frozenset[str]) -> None:
    """Raise ValidationFailed, naming each query parameter that is not among `known`, has no value, or stands twice."""
    errors: dict[str, list[str]] = {}
    for name, values in request.query_params.lists():
        shown = name[:80].replace("\x00", "\ufffd")
        if name not in known:
            errors[shown] = ["There is no such parameter."]
        elif len(values) > 1:
            errors[shown] = ["Give it once."]
        elif not values[0]:
            errors[shown] = ["Give a value, or leave it out."]
    if errors:
        raise ValidationFailed("The parameters of the address are not valid.", errors=errors)


class ApiNegotiation(DefaultContentNegotiation):
    """Looks at `Accept` alone: `?format=` is no parameter."""

    class settings:  # noqa: N801 - the name that the base class reads
        """What the base class asks for."""

        URL_FORMAT_OVERRIDE = None


class _BooleanField(forms.Field):
    def to_python(self, value: Any) -> bool | None:
        """Return what `true` and `false` say; Django would take any other word for no answer."""
        if value in self.empty_values:
            return None
        if value not in ("true", "false"):
            raise forms.ValidationError("Use true or false.")
        return bool(value == "true")


class StrictBooleanFilter(filters.BooleanFilter):
    """`true` or `false`."""

    field_class = _BooleanField

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "widget": forms.TextInput})


class ApiFilterSet(filters.FilterSet):
    """A strict filter set. Its references are ids: whether the object exists is not asked, so a foreign one is as one that does not."""

    FILTER_DEFAULTS = {
        **filters.FilterSet.FILTER_DEFAULTS,
        models.BooleanField: {"filter_class": StrictBooleanFilter},
        models.ForeignKey: {"filter_class": filters.UUIDFilter},
        models.OneToOneField: {"filter_class": filters.UUIDFilter},
    }


class ApiFilterBackend(filters.DjangoFilterBackend):
    """Filters by `filterset_class` or `filterset_fields`."""

    filterset_base = ApiFilterSet


class ApiOrdering(OrderingFilter):
    """`?ordering=name,-created_at`: only the fields that a view names; another one is refused."""

    def remove_invalid_fields(self, queryset: Any, fields: list[str], view: Any, request: Request) -> list[str]:  # type: ignore[override]
        """Return the fields; raises ValidationFailed."""
        known = set(view.ordering_fields)
        if any(field.removeprefix("-") not in known for field in fields):
            message = f"Use {', '.join(sorted(known))}, each with - before it for falling order."
            raise ValidationFailed("The order is not valid.", errors={"ordering": [message]})
        return fields

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """Describe the parameter for OpenAPI."""
        one = f"-?({'|'.join(sorted(view.ordering_fields))})"
        return [
            {
                "name": "ordering", "required": False, "in": "query",
                "schema": {"type": "string", "pattern": f"^{one}(,{one})*$"},
                "description": "Fields in order, with `-` before one for falling order.",
            }
        ]  # fmt: skip
