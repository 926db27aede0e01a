"""Arguments checked against the definition that an operator has accepted, before anything is recorded or sent.

A schema is counted before it is compiled, and a call before it is checked (`schemacost`), because the check runs on the event loop and
cannot be interrupted. Three things can become of a schema:

* It is checked.
* It is too costly: every call of the tool is refused, with the reason.
* It cannot be compiled here (look-around in a pattern, a reference to another document, a mistake): the server alone judges, as it
  does for clients that connect to it directly. That is logged once.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from apps.common.errors import SwitchyardError, ValidationFailed
from apps.common.jsontext import dumps
from apps.gateway.plane.schemacost import MAX_STEPS, Plan
from apps.gateway.plane.schemadocument import TooCostly, Unusable

VALIDATORS_KEPT = 16384
MEMORY_KEPT = 256 * 1024 * 1024
"""Bytes, roughly, of compiled schemas that are kept."""
MAX_DETAILED = 20_000
"""Units of a check up to which every error is looked for: one error costs as much as a thousand units of a check that fits."""
MAX_DETAILED_BYTES = 100_000_000
"""The same times the bytes of the arguments: each error has a copy of its path."""
MAX_COUNTED = 64 * 1024
"""Bytes of arguments up to which their check is counted exactly to see whether the errors can be looked for."""
_MASK = "the value"
"""Stands for what was given in the messages, which go into the log: an argument may be a secret."""
_REGEX = jsonschema_rs.RegexOptions(dfa_size_limit=256 * 1024)
"""The engine that runs in linear time: a server's pattern cannot stall the gateway."""
_TITLE = "The arguments do not fit the tool's input schema"
_log = logging.getLogger("switchyard.plane")


class ArgumentsInvalid(ValidationFailed):
    """The arguments break the tool's input schema; `errors` names the first of them with their places."""

    slug, title = "arguments-invalid", _TITLE


class ArgumentsTooCostly(SwitchyardError):
    """The arguments are too large or too deep to be checked against the tool's input schema."""

    slug, title, status, jsonrpc_code = "arguments-too-costly", "The arguments are too costly to check", 413, -32602


class SchemaTooCostly(SwitchyardError):
    """The tool's input schema is too costly to check anything against, so the tool cannot be called."""

    slug, title, status = "schema-too-costly", "The tool's input schema is too costly to check", 502


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What became of a schema."""

    plan: Plan | None = None
    """None: the server alone judges, or nobody does."""
    validator: Any = None
    small: float = 0
    """Bytes from which arguments have to be counted."""
    refusal: str = ""
    weight: int = 4096


def _judge(schema: Any, name: str) -> _Verdict:
    """Count and compile a schema. The network is never asked."""
    if not isinstance(schema, dict):
        return _Verdict()
    try:
        plan = Plan(schema)
        validator = jsonschema_rs.validator_for(
            schema, pattern_options=_REGEX, offline=True, validate_formats=False, mask=_MASK
        )
    except TooCostly as reason:
        _log.warning("the input schema of the tool %s is too costly to check: %s; its calls are refused", name, reason)
        return _Verdict(refusal=str(reason))
    except (Unusable, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError) as reason:
        text = str(reason).partition("\n")[0][:300]
        _log.warning("the input schema of the tool %s cannot be used: %s; the server alone judges its arguments", name, text)
        return _Verdict()
    return _Verdict(plan, validator, plan.small, weight=plan.weight)


class SchemaGate:
    """Verdicts by definition digest."""

    def __init__(self) -> None:
        self._by_digest: dict[str, _Verdict] = {}
        self.weight = 0

    def check(self, digest: str, definition: Mapping[str, Any], arguments: Any) -> None:
        """Raise ArgumentsInvalid unless `arguments` fit the definition's `inputSchema`.

        Raises ArgumentsTooCostly for a call, SchemaTooCostly for every call, that would hold the event loop too long.
        """
        verdict = self._by_digest.get(digest)
        if verdict is None:
            verdict = self._learn(digest, definition)
        size = len(dumps(arguments)) if verdict.small else 0
        if size < verdict.small and verdict.validator.is_valid(arguments):
            return
        if verdict.refusal:
            raise SchemaTooCostly(
                f"The tool's input schema is too costly to check: {verdict.refusal}. Nothing was sent. "
                "Have it simplified at the server, then discover the server again."
            )
        plan = verdict.plan
        if plan is not None:
            self._check_at_length(plan, verdict.validator, arguments, len(dumps(arguments)))

    def _learn(self, digest: str, definition: Mapping[str, Any]) -> _Verdict:
        verdict = _judge(definition.get("inputSchema"), str(definition.get("name", ""))[:128])
        if len(self._by_digest) >= VALIDATORS_KEPT or self.weight + verdict.weight > MEMORY_KEPT:
            self._by_digest.clear()
            self.weight = 0
        self._by_digest[digest] = verdict
        self.weight += verdict.weight
        return verdict

    def _check_at_length(self, plan: Plan, validator: Any, arguments: Any, size: int) -> None:
        """Check arguments that are large, or deep, or known not to fit."""
        steps = plan.at_most(size)
        if steps > MAX_STEPS:
            try:
                steps = plan.steps(arguments)
            except TooCostly as reason:
                raise ArgumentsTooCostly(
                    f"The arguments cannot be checked against the tool's input schema: {reason}. Nothing was sent. "
                    "Send less in one call."
                ) from None
        if not validator.is_valid(arguments):
            raise self._invalid(plan, validator, arguments, size, steps)

    @staticmethod
    def _invalid(plan: Plan, validator: Any, arguments: Any, size: int, steps: float) -> ArgumentsInvalid:
        """Return the error, with as many places as may be looked for."""
        if steps > MAX_DETAILED and size <= MAX_COUNTED:
            with suppress(TooCostly):
                steps = plan.steps(arguments)
        errors: list[dict[str, str]] = []
        if steps <= MAX_DETAILED and steps * size <= MAX_DETAILED_BYTES:
            for error in validator.iter_errors(arguments):
                errors.append(_shown(error))
                if len(errors) == 5:
                    break
        elif not plan.branches:
            try:
                validator.validate(arguments)
            except jsonschema_rs.ValidationError as error:
                errors.append(_shown(error))
        if not errors:
            return ArgumentsInvalid(f"{_TITLE}. They are too large for the place to be named.", errors=[])
        first = errors[0]
        where = f" at {first['path']}" if first["path"] else ""
        return ArgumentsInvalid(f"{_TITLE}{where}: {first['message']}.", errors=errors)


def _shown(error: jsonschema_rs.ValidationError) -> dict[str, str]:
    return {"path": "/".join(str(part) for part in error.instance_path), "message": error.message[:300]}
