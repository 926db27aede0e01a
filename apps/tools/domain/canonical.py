"""The canonical form of a definition and its digest: RFC 8785 (JSON Canonicalization Scheme) under SHA-256.

Written here because it is sixty lines and the digest must not move with a dependency's release. One deliberate difference: RFC 8785
knows only numbers that an IEEE 754 double holds, so integers beyond ±(2^53-1) would lose digits and two different definitions
would share a digest; they are written in full. Everything that RFC 8785 can express has exactly its form.
"""

import hashlib
import math
from json.encoder import encode_basestring
from typing import Any

MAX_DEPTH = 100
"""Levels of nesting; deeper JSON is no schema that anybody wrote."""


class NotCanonical(ValueError):
    """The value is not JSON that has a canonical form: NaN, Infinity, a lone surrogate, a foreign type, too deep."""


def canonical(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value. Raises NotCanonical."""
    parts: list[str] = []
    _write(value, parts.append, MAX_DEPTH)
    try:
        return "".join(parts).encode()
    except UnicodeEncodeError as error:
        raise NotCanonical("a text holds half of a surrogate pair") from error


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical bytes, in hexadecimal. Raises NotCanonical."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _write(value: Any, put: Any, depth: int) -> None:
    if isinstance(value, str):
        put(encode_basestring(value))
    elif value is True:
        put("true")
    elif value is False:
        put("false")
    elif value is None:
        put("null")
    elif isinstance(value, int):
        put(int.__repr__(value))
    elif isinstance(value, float):
        put(number(value))
    elif depth == 0:
        raise NotCanonical(f"nested deeper than {MAX_DEPTH} levels")
    elif isinstance(value, dict):
        put("{")
        comma = ""
        for key in _sorted(value):
            put(comma + encode_basestring(key) + ":")
            _write(value[key], put, depth - 1)
            comma = ","
        put("}")
    elif isinstance(value, list | tuple):
        put("[")
        comma = ""
        for item in value:
            if comma:
                put(comma)
            _write(item, put, depth - 1)
            comma = ","
        put("]")
    else:
        raise NotCanonical(f"{type(value).__name__} is no JSON type")


def _sorted(members: dict[str, Any]) -> list[str]:
    """Sort the keys by UTF-16 code units (RFC 8785 §3.2.3)."""
    keys = list(members)
    if not all(isinstance(key, str) for key in keys):
        raise NotCanonical("a member's name is not a text")
    if all(map(str.isascii, keys)):
        return sorted(keys)
    try:
        return sorted(keys, key=lambda key: key.encode("utf-16-be"))
    except UnicodeEncodeError as error:
        raise NotCanonical("a member's name holds half of a surrogate pair") from error


def number(value: float) -> str:
    """Write a double as ECMAScript's Number::toString does (ECMA-262 §6.1.6.1.20). Raises NotCanonical for NaN and Infinity."""
    if not math.isfinite(value):
        raise NotCanonical(f"{value} is no JSON number")
    if value == 0:
        return "0"
    if value < 0:
        return "-" + number(-value)
    # Python's repr gives the same shortest digits; only the lay-out differs.
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    if fraction == "0":
        fraction = ""
    point = len(whole) + int(exponent or 0)
    digits = whole + fraction
    point -= len(digits) - len(digits.lstrip("0"))
    digits = digits.lstrip("0").rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    sign = "+" if point > 0 else "-"
    tail = f".{digits[1:]}" if count > 1 else ""
    return f"{digits[0]}{tail}e{sign}{abs(point - 1)}"
