"""Arguments checked against the definition that an operator has accepted, before anything is recorded or sent."""

from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import orjson

from apps.common.errors import ValidationFailed

MAX_SCHEMA = 256 * 1024
VALIDATORS_KEPT = 16384
_MASK = "the value"
"""Stands for what was given in the messages, which go into the log: an argument may be a secret."""
_REGEX = jsonschema_rs.RegexOptions()
"""The engine that runs in linear time: a server's pattern cannot stall the gateway."""


class ArgumentsInvalid(ValidationFailed):
    """The arguments break the tool's input schema; `errors` names the first of them with their places."""

    slug, title = "arguments-invalid", "The arguments do not fit the tool's input schema"


def _validator(schema: dict[str, Any]) -> Any:
    """Compile a schema; None for one that cannot be compiled here (then the server alone judges). The network is never asked."""
    try:
        return jsonschema_rs.validator_for(schema, pattern_options=_REGEX, offline=True, validate_formats=False, mask=_MASK)
    except (jsonschema_rs.ValidationError, ValueError, TypeError):
        return None


class SchemaGate:
    """Validators by definition digest."""

    def __init__(self) -> None:
        self._by_digest: dict[str, Any] = {}

    def check(self, digest: str, definition: Mapping[str, Any], arguments: Any) -> None:
        """Raise ArgumentsInvalid unless `arguments` fit the definition's `inputSchema`."""
        validator = self._by_digest.get(digest, self)
        if validator is self:
            schema = definition.get("inputSchema")
            validator = None
            if isinstance(schema, dict) and len(orjson.dumps(schema)) <= MAX_SCHEMA:
                validator = _validator(schema)
            if len(self._by_digest) >= VALIDATORS_KEPT:
                self._by_digest.clear()
            self._by_digest[digest] = validator
        if validator is None or validator.is_valid(arguments):
            return
        errors = []
        for error in validator.iter_errors(arguments):
            errors.append({"path": "/".join(str(part) for part in error.instance_path), "message": error.message[:300]})
            if len(errors) == 5:
                break
        first = errors[0]
        where = f" at {first['path']}" if first["path"] else ""
        raise ArgumentsInvalid(f"The arguments do not fit the tool's input schema{where}: {first['message']}.", errors=errors)
