"""JSON-RPC 2.0 on the wire: read strictly once, written from what was read."""

import json
import math
from typing import Any

import orjson

from apps.common.errors import MalformedRequest, SwitchyardError
from apps.common.jsontext import dumps

MAX_DEPTH = 128
MAX_ID = 4096
"""Characters of a request's id."""
Json = dict[str, Any]

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION = -32020, -32021, -32022
RESOURCE_NOT_FOUND_LEGACY = -32002
REQUEST_CANCELLED = -32800


def parse(body: bytes) -> Any:
    """Read a body strictly: UTF-8, no duplicate keys, no NaN or infinity, at most 128 levels. Raises MalformedRequest."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedRequest(f"The body is not JSON: {error}.") from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    # Written back compactly, most clients' bodies are the same bytes: then no key was given twice and no number was rounded.
    if orjson.dumps(value) == body:
        return value
    return _parse_carefully(body)


def valid_id(id: object) -> bool:
    """Tell whether a request's id may be one: it stands in memory as long as the request, and in every notice of a stream."""
    return (isinstance(id, str) and len(id) <= MAX_ID) or (
        isinstance(id, int) and not isinstance(id, bool) and abs(id) < 1 << 256
    )


def _pairs(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise MalformedRequest(f"The key {key[:80]!r} is given twice in one object.")
            seen.add(key)
    return found


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise MalformedRequest(f"The number {text[:40]} is outside the range of JSON numbers here.")
    return value


def _constant(text: str) -> Any:
    raise MalformedRequest(f"{text} is not JSON.")


def _parse_carefully(body: bytes) -> Any:
    try:
        return json.loads(body, object_pairs_hook=_pairs, parse_float=_float, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"The body is not JSON: {error}.") from None


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = (
            [
                child
                for node in level
                for child in (node.values() if isinstance(node, dict) else node)
                if isinstance(child, (dict, list))
            ]
            if level and isinstance(level[0], (dict, list))
            else []
        )
        if not level:
            return
    raise MalformedRequest(f"The JSON is nested more than {MAX_DEPTH} levels deep.")


def result_bytes(id: Any, result: bytes) -> bytes:
    """Return a response with a result that is already written."""
    return b'{"jsonrpc":"2.0","id":' + dumps(id) + b',"result":' + result + b"}"


def error_bytes(id: Any, code: int, message: str, data: Any = None) -> bytes:
    """Return an error response."""
    error: Json = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return dumps({"jsonrpc": "2.0", "id": id, "error": error})


def error_of(error: SwitchyardError, **extra: Any) -> tuple[int, str, Json]:
    """Return code, message and data of one of our errors; `data.type` is the same type that HTTP gives.

    What led to it is let go: the frames of a traceback hold the request, and often the error itself, so that they would stay as garbage.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error.jsonrpc_code, error.detail, {"type": error.type, "title": error.title, **error.extra, **extra}
