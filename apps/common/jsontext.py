"""JSON text from values that were read from JSON."""

import json
from typing import Any

import orjson


def dumps(value: Any) -> bytes:
    """Write JSON, compact; integers of any size keep their digits, lone surrogates their escapes.

    Raises TypeError, ValueError, RecursionError for what JSON has not.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
