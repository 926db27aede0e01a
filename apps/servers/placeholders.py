"""Placeholders in clients' files: `${NAME}`, `${NAME:-default}`, `${env:NAME}`, `${input:id}`, `${userHome}`. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

OWN_SECRETS = frozenset({
    "SWITCHYARD_SECRET_KEY", "SWITCHYARD_ENCRYPTION_KEYS", "SWITCHYARD_CHECKPOINT_KEYS", "SWITCHYARD_ADMIN_PASSWORD", "SWITCHYARD_ADMIN_KEY", "DATABASE_URL",
    "REDIS_URL", "EMAIL_URL",
})  # fmt: skip
"""Variables that are never put into a server's settings: they would leave the installation."""


@dataclass(slots=True)
class Resolved:
    """A text with its placeholders filled in."""

    text: str
    missing: list[str] = field(default_factory=list)
    """Placeholders without a value, as they stand in the text."""
    secret: bool = False
    """A value is that of an input marked as a password."""


class Placeholders:
    """Fills placeholders from an environment and VS Code's list of inputs."""

    def __init__(self, environment: Mapping[str, str], inputs: Sequence[Any] = ()) -> None:
        self._environment = environment
        self._inputs = {str(item.get("id")): item for item in inputs if isinstance(item, Mapping)}

    def resolve(self, text: str) -> Resolved:
        """Return the text with every placeholder filled that has a value; the others stay as they are."""
        result = Resolved(text)

        def fill(match: re.Match[str]) -> str:
            value = self._value(match.group(1), result)
            if value is None:
                result.missing.append(match.group(0))
                return match.group(0)
            return value

        result.text = _PLACEHOLDER.sub(fill, text)
        return result

    def _value(self, inside: str, result: Resolved) -> str | None:
        kind, colon, rest = inside.partition(":")
        if kind == "input" and colon:
            return self._input(rest, result)
        if inside == "userHome":
            return self._environment.get("HOME")
        if inside in ("pathSeparator", "/"):
            return "/" if self._environment else None
        name, default_mark, default = (rest if kind == "env" and colon else inside).partition(":-")
        if not _NAME.fullmatch(name) or name in OWN_SECRETS:
            return None
        value = self._environment.get(name)
        return default if value is None and default_mark else value

    def _input(self, id: str, result: Resolved) -> str | None:
        """Return an input's value: a variable of its name, in upper case with underscores, else its default."""
        described = self._inputs.get(id, {})
        name = re.sub(r"[^A-Za-z0-9]+", "_", id).strip("_").upper()
        value = None if name in OWN_SECRETS else self._environment.get(name)
        if value is None and isinstance(described.get("default"), str) and not described.get("password"):
            value = described["default"]
        if value is not None and described.get("password"):
            result.secret = True
        return value
