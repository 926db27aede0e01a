"""The record: what one event carries, its canonical bytes, and its link to the event before it."""

import hashlib
import math
import struct
from typing import Any

import msgspec
from msgspec.structs import astuple

FORM = 1
"""Version of the canonical form: msgspec JSON of `AuditRecord` in field order, members at their default left out."""

INTENT = "call.intent"
OUTCOME = "call.outcome"

GENESIS = bytes(32)
"""What the first row of a chain names as the digest before it."""

BODY_LIMIT = 73_728
"""Bytes of a row's canonical form: 64 kB of details and what stands around them."""
_SAMPLE = 2_048
_MOST = 2**63 - 1
_LAST_US = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""


class AuditRecord(msgspec.Struct, omit_defaults=True):
    """One event of the log. Texts are cut to their column's width by the sink; `details` is kept whole up to 64 kB."""

    event_type: str
    time_us: int
    """Microseconds since the epoch."""
    tenant: str | None = None
    actor_kind: str | None = None
    actor_id: str | None = None
    actor: str | None = None
    origin: str | None = None
    agent: str | None = None
    task: str | None = None
    request_id: str | None = None
    session: str | None = None
    trace: str | None = None
    call_id: str | None = None
    action: str | None = None
    object_kind: str | None = None
    object_id: str | None = None
    object: str | None = None
    server: str | None = None
    tool: str | None = None
    model: str | None = None
    revision: str | None = None
    outcome: str | None = None
    """`ok`, `error` (the tool or server said so), `refused`, `failed` (upstream), `cancelled`, `unknown`."""
    error_type: str | None = None
    duration_us: int | None = None
    request_bytes: int | None = None
    response_bytes: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_micros: int | None = None
    details: dict[str, Any] | None = None


FIELDS: tuple[str, ...] = AuditRecord.__struct_fields__
TEXTS = FIELDS[2:23]
NUMBERS = FIELDS[23:29]
WIDTHS = (36, 12, 40, 200, 12, 200, 64, 64, 64, 32, 36, 40, 24, 40, 300, 40, 200, 120, 12, 12, 60)
"""Characters that each of `TEXTS` may have; the models' columns have the same widths."""
EVENT_TYPE_WIDTH = 40

Encoded = tuple[tuple[Any, ...], bytes]
"""A record's fields in their order, and its canonical bytes."""

_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder(AuditRecord).decode
_sha256 = hashlib.sha256
_position = struct.Struct(">hiq").pack


def encode(record: AuditRecord) -> Encoded:
    """Return the fields and the canonical bytes. Never fails: what cannot be stored is mended, see `mend`."""
    try:
        values = astuple(record)
        for text, width in zip(values[2:23], WIDTHS, strict=True):
            if text is not None and len(text) > width:
                return mend(record)
        for number in (values[1], *values[23:29]):
            if number is not None and number.__class__ is not int:
                return mend(record)
        body = _to_json(record)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return mend(record)
    if len(body) > BODY_LIMIT or b"\\u0000" in body:
        return mend(record)
    return values, body


def decode(body: bytes) -> AuditRecord:
    """Read canonical bytes of form 1. Raises ValueError when they are none."""
    return _from_json(body)


def link(writer: int, seq: int, previous: bytes, body: bytes) -> bytes:
    """Return the digest of a row: SHA-256 over form (2 bytes), writer (4), seq (8), the digest before it (32) and the body."""
    return _sha256(_position(FORM, writer, seq) + previous + body).digest()


def mend(record: AuditRecord) -> Encoded:
    """Return the encoding of a copy that any database takes.

    Texts are cut to their width, without NUL and lone surrogates; numbers are within 64 bits; details over their limit, or
    of a kind that JSON has not, are replaced by what can be said of them.
    """
    texts: dict[str, Any] = {name: _text(getattr(record, name), width) for name, width in zip(TEXTS, WIDTHS, strict=True)}
    numbers: dict[str, Any] = {name: _number(getattr(record, name)) for name in NUMBERS}
    mended = AuditRecord(
        event_type=_text(record.event_type, EVENT_TYPE_WIDTH) or "unnamed",
        time_us=min(max(_number(record.time_us) or 0, 0), _LAST_US),
        details=_details(record.details),
        **texts,
        **numbers,
    )
    return astuple(mended), _to_json(mended)


def _text(value: object, width: int) -> str | None:
    if value is None:
        return None
    return str(value)[:width].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _number(value: object) -> int | None:
    if not isinstance(value, int | float) or math.isnan(value):
        return None
    return int(min(max(value, -_MOST), _MOST))


def _details(value: object) -> dict[str, Any] | None:
    if value is None:
        return None
    try:
        clean = _clean(value)
        encoded = _to_json(clean)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return {"not_stored": type(error).__name__}
    if len(encoded) > BODY_LIMIT - 8_192:
        return {
            "cut": len(encoded),
            "sha256": hashlib.sha256(encoded).hexdigest(),
            "sample": encoded[:_SAMPLE].decode("utf-8", "ignore"),
        }
    return clean if isinstance(clean, dict) else {"value": clean}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {_clean(key if isinstance(key, str) else str(key)): _clean(member) for key, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(member) for member in value]
    return _clean(str(value))
