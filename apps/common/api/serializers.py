"""Bases of serializers: input is strict, output shows time stamps and ids the same way everywhere."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request


class InputSerializer(serializers.Serializer[Any]):
    """Reads a body: an object whose members are all known (a misspelt one is an error, not ignored).

    Use `.given()` for the validated fields that were sent: the arguments of a service.
    """

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated fields; raises ValidationError naming unknown ones."""
        if isinstance(data, Mapping):
            writable = {name for name, field in self.fields.items() if not field.read_only}
            unknown = sorted(str(name)[:80] for name in data if name not in writable)
            if unknown:
                raise serializers.ValidationError({name: ["There is no such field."] for name in unknown})
        return super().to_internal_value(data)

    def given(self) -> dict[str, Any]:
        """Validate, and return the fields that were sent. Raises ValidationError."""
        self.is_valid(raise_exception=True)
        return dict(self.validated_data)


class EmptySerializer(InputSerializer):
    """The body of a verb that takes nothing."""


def take_nothing(request: Request) -> None:
    """Check that a verb which takes nothing was given nothing (no body, or an empty object). Raises ValidationFailed."""
    EmptySerializer(data=request.data).given()
