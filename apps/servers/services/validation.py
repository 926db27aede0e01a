"""From Django's validation errors, and the pure rules', to the one typed error with messages by field."""

from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db.models import Model

from apps.common.errors import ValidationFailed

FieldErrors = dict[str, list[str]]


class Problems:
    """Collects messages by field, so that an operator reads all of them at once."""

    def __init__(self) -> None:
        self.errors: FieldErrors = {}

    def add(self, field: str, message: str) -> None:
        """Note one message."""
        messages = self.errors.setdefault(field, [])
        if message not in messages:
            messages.append(message)

    def check(self, field: str, rule: Callable[[Any], None], value: Any) -> None:
        """Apply a rule that raises ValueError."""
        try:
            rule(value)
        except ValueError as error:
            self.add(field, str(error))

    def full_clean(self, row: Model, *, exclude: set[str] | None = None, prefix: str = "") -> None:
        """Validate a row; its non-field messages go under `detail`."""
        for column in row._meta.concrete_fields:
            # Django lets None pass in a column that may be blank, though it is not nullable.
            if column.blank and not column.null and column.editable and getattr(row, column.attname) is None:
                self.add(prefix + column.name, "This field cannot be null.")
        try:
            row.full_clean(exclude=exclude, validate_unique=False)
        except ValidationError as error:
            for field, messages in error.message_dict.items():
                for message in messages:
                    self.add("detail" if field == NON_FIELD_ERRORS else prefix + field, message)

    def raise_if_any(self, what: str = "The server") -> None:
        """Raise ValidationFailed when something was noted."""
        if self.errors:
            raise ValidationFailed(f"{what} is not valid: {summary(self.errors)}", errors=self.errors)


def summary(errors: Mapping[str, list[str]]) -> str:
    """Return the messages in one line."""
    return "; ".join(f"{field}: {' '.join(messages)}" for field, messages in errors.items())
