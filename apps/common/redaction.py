"""Takes secrets out of what is kept or shown: by the names of keys, and by the shapes of values. No Django.

Two entrances: `redact` returns a copy of a value for logs, errors and audit details; `sample` returns the redacted JSON text
of a value's beginning and is fast enough for the way of every call. Both are bounded in depth and size, and never raise.
What was taken out reads `[redacted]`. Where in doubt, too much is taken.
"""

import contextlib
import json
import math
from typing import Any

import orjson

from apps.common.secret_shapes import COUNT, MARK, SHORTEST, SUSPECT, is_secret_name, known_names, may_hold_secret, redact_text

CUT = "…"
MAX_DEPTH = 12
"""Containers within containers; what is deeper is left out."""
MAX_TEXT = 262_144
"""Characters that `redact` copies in all; the rest is left out."""
MAX_ITEMS = 10_000
"""Values that `redact` copies in all; the rest is left out."""
SAMPLE_ITEMS = 500
"""Values that `sample` looks at; 2 kB seldom hold more."""
_WINDOW = 512
"""Characters past the end that are looked at, so that a secret across the end is recognised."""
_PARSED = 16_384
"""Bytes of JSON text that are parsed; of longer ones the beginning is read as text."""


def redact(value: Any) -> Any:
    """Return a copy that JSON can hold, without secrets: dicts, lists, texts, numbers; bytes and exceptions become texts."""
    return _Copy(MAX_TEXT, MAX_ITEMS).of(value, 0)


def sample(value: Any, limit: int = 2048) -> str:
    """Return the redacted JSON text of a value's beginning, at most `limit` bytes of UTF-8.

    The work is bounded by `limit`, not by the value. Bytes are taken as JSON text already. A text that was cut ends with `…`.
    """
    if type(value) is dict and len(value) <= 32:
        text = _flat(value, limit)
        if text is not None:
            return text
    if isinstance(value, bytes | bytearray | memoryview):
        return _cut(_json_text(bytes(value[: max(_PARSED, limit + _WINDOW) + 1]), limit).encode("utf-8", "replace"), limit)
    copy = _Copy(limit, SAMPLE_ITEMS)
    return _cut(_dump(copy.of(value, 0)), limit)


def sample_json(raw: bytes, value: Any, limit: int = 2048) -> str:
    """Return `sample(value, limit)` of a value whose JSON text is at hand already.

    A beginning in which no word stands that a secret needs is taken as it is.
    """
    head = raw[: limit + _WINDOW].decode("utf-8", "replace")
    if may_hold_secret(head):
        return sample(value, limit)
    return head if len(raw) <= limit else _cut(raw, limit)


def _flat(value: dict[Any, Any], limit: int) -> str | None:
    """The short way, for what most calls carry: a small dict of texts and numbers. None when it is something else."""
    out: dict[str, Any] | None = None
    for key, item in value.items():
        kind = type(item)
        if type(key) is not str:
            return None
        if kind is str:
            if len(item) > limit or len(key) > 64:
                return None
            if known_names.get(key) or is_secret_name(key):
                safe = MARK
            elif len(item) < SHORTEST or (safe := redact_text(item)) is item:
                continue
        elif kind is bool or item is None:
            continue
        elif kind is int or kind is float:
            if not is_secret_name(key) or COUNT.search(key):
                continue
            safe = MARK
        else:
            return None
        if out is None:
            out = dict(value)
        out[key] = safe
    for key in value:
        if len(key) >= 16 and SUSPECT.search(key) is not None:
            return None
    if "value" in value and ("name" in value or "key" in value):
        return None
    try:
        dumped = orjson.dumps(value if out is None else out)
    except TypeError:
        return None
    return dumped.decode() if len(dumped) <= limit else _cut(dumped, limit)


def _cut(dumped: bytes, limit: int) -> str:
    if len(dumped) <= limit:
        return dumped.decode("utf-8", "replace")
    return dumped[: limit - len(CUT.encode())].decode("utf-8", "ignore") + CUT


def _json_text(raw: bytes, limit: int) -> str:
    if len(raw) <= _PARSED and raw[:1] in (b"{", b"["):
        with contextlib.suppress(orjson.JSONDecodeError):
            return _dump(_Copy(limit, SAMPLE_ITEMS).of(orjson.loads(raw), 0)).decode("utf-8", "replace")
    return redact_text(raw[: limit + _WINDOW].decode("utf-8", "replace"))


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):
        # Integers beyond 64 bits and lone surrogates, which orjson refuses.
        return json.dumps(value, default=str, allow_nan=False, skipkeys=True).encode("utf-8", "replace")


class _Copy:
    """One copy in the making: how many characters and values may still be taken."""

    __slots__ = ("items", "left")

    def __init__(self, left: int, items: int) -> None:
        self.left = left
        self.items = items

    def of(self, value: Any, depth: int) -> Any:
        """Return the copy of a value."""
        self.items -= 1
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, bool | int | float):
            self.left -= 2
            return _number(value)
        if isinstance(value, dict):
            return self._dict(value, depth) if depth < MAX_DEPTH else CUT
        if isinstance(value, list | tuple | set | frozenset):
            return self._list(value, depth) if depth < MAX_DEPTH else CUT
        if isinstance(value, bytes | bytearray | memoryview):
            return self._text(bytes(value[: self.left + _WINDOW]).decode("utf-8", "replace"))
        return self._text(_spelled(value))

    def _text(self, text: str) -> str:
        left = max(self.left, 0)
        safe = redact_text(text[: left + _WINDOW])
        if len(safe) > left or len(text) > left + _WINDOW:
            safe = safe[:left] + CUT
        self.left -= len(safe)
        return safe

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        label = value.get("name", value.get("key")) if "value" in value else None
        named = isinstance(label, str) and is_secret_name(label)
        for key, item in value.items():
            if self.left <= 0 or self.items <= 0:
                out[CUT] = CUT
                break
            name = key if isinstance(key, str) else _spelled(key)
            if (is_secret_name(name) and not _harmless(name, item)) or (named and key == "value"):
                self.left -= len(name) + len(MARK)
                self.items -= 1
                out[self._name(name)] = MARK
            else:
                out[self._name(name)] = self.of(item, depth + 1)
                self.left -= len(name) + 4
        return out

    def _name(self, name: str) -> str:
        short = name[:256]
        return redact_text(short) if len(short) >= 16 else short

    def _list(self, value: Any, depth: int) -> list[Any]:
        out: list[Any] = []
        pair = len(value) == 2
        hide = False
        for item in value:
            if self.left <= 0 or self.items <= 0:
                out.append(CUT)
                break
            if hide:
                out.append(MARK)
                self.left -= len(MARK)
                hide = False
                continue
            out.append(self.of(item, depth + 1))
            # ["--password", "…"] on a command line, ("Authorization", "…") among headers
            hide = (
                isinstance(item, str | bytes) and len(item) <= 64 and (pair or item[:1] in ("-", b"-")) and _names_secret(item)
            )
        return out


def _names_secret(item: str | bytes) -> bool:
    text = item if isinstance(item, str) else item.decode("latin-1")
    return "=" not in text and " " not in text and is_secret_name(text)


def _harmless(name: str, item: Any) -> bool:
    """Tell whether a value under a secret's name says nothing: yes or no, nothing, or a count of tokens."""
    return item is None or isinstance(item, bool) or (isinstance(item, int | float) and COUNT.search(name) is not None)


def _number(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and value.bit_length() > 1024:
        return CUT
    return value


def _spelled(value: Any) -> str:
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        text = ""
    return f"{type(value).__name__}: {text}" if isinstance(value, BaseException) else text
