"""Reads JSON bodies strictly: one meaning or none."""

import json
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.parsers import BaseParser

from apps.common.errors import MalformedRequest, TooLarge

MAX_BODY = 4 * 1024 * 1024
"""Bytes of a body that are read."""
MAX_DEPTH = 64
"""Objects and lists within one another."""


class StrictJSONParser(BaseParser):
    """`application/json` in UTF-8, without repeated keys, NaN or Infinity, lone surrogates, at most 64 deep and 4 MB long (RFC 8259)."""

    media_type = "application/json"

    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        """Return what a body says; raises MalformedRequest or TooLarge."""
        body = stream.read(MAX_BODY + 1)
        if len(body) > MAX_BODY:
            raise TooLarge(f"The body is over {MAX_BODY} bytes.")
        return strict_json(body)


def strict_json(body: bytes) -> Any:
    """Return what JSON text says; raises MalformedRequest."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedRequest("The body is not UTF-8.") from None
    try:
        value = json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    except RecursionError:
        raise MalformedRequest("The body is nested too deeply.") from None
    except ValueError as error:
        raise MalformedRequest(f"The body is not JSON: {error}.") from None
    if _too_deep(value):
        raise MalformedRequest("The body is nested too deeply.")
    if b"\\u" in body and not _is_text(value):
        raise MalformedRequest("A text holds half of a surrogate pair.")
    return value


def _is_text(value: Any) -> bool:
    """Tell whether every text can be written as UTF-8; escapes can spell lone surrogates, which no database takes."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise MalformedRequest("A key stands twice in one object.")
    return value


def _no_constant(name: str) -> Any:
    raise MalformedRequest(f"{name} is not JSON.")


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            if isinstance(container, dict | list)
            for item in (container.values() if isinstance(container, dict) else container)
        ]
        if not level:
            return False
    return any(isinstance(item, dict | list) for item in level)
