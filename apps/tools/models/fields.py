"""A JSON column that gives back what was put in."""

import json
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


class VerbatimJSONField(models.JSONField):
    """JSON kept as text, so that the order of members, numbers and U+0000 survive.

    PostgreSQL's jsonb sorts members by length, rewrites numbers and refuses U+0000. Members cannot be queried.
    """

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        """Return the column's type."""
        return "text"

    def db_check(self, connection: BaseDatabaseWrapper) -> None:
        """Return no constraint: the text is written by this field alone."""

    def from_db_value(self, value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
        """Parse the stored text."""
        return None if value is None else json.loads(value)

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        """Write the JSON text, compact and in the order given; None is NULL."""
        return None if value is None else json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """Write the JSON text for a row, unless it is an expression."""
        return value if hasattr(value, "as_sql") else self.get_db_prep_value(value, connection)
