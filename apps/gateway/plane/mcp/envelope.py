"""A modern request's envelope: `_meta` and the routing headers, checked in the order the specification gives."""

import base64
import binascii
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from apps.common.errors import HeaderMismatch, SwitchyardError, UnsupportedRevision, ValidationFailed
from apps.gateway.plane.http import Headers
from apps.gateway.plane.jsonrpc import HEADER_MISMATCH, INVALID_PARAMS, UNSUPPORTED_VERSION, Json
from apps.gateway.plane.mcp.revisions import META_CAPABILITIES, META_CLIENT, META_LOG_LEVEL, META_VERSION, MODERN, NAMED_BY

_ROUTING = frozenset((b"mcp-protocol-version", b"mcp-method", b"mcp-name"))
_PARAM = b"mcp-param-"
_TYPES: dict[int, type[SwitchyardError]] = {
    HEADER_MISMATCH: HeaderMismatch,
    INVALID_PARAMS: ValidationFailed,
    UNSUPPORTED_VERSION: UnsupportedRevision,
}


class EnvelopeError(Exception):
    """The first rule that the request breaks, as JSON-RPC error fields."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def typed(self) -> SwitchyardError:
        """Return the same as one of our errors, for the answer and the log."""
        return _TYPES[self.code](self.message, **(self.data if isinstance(self.data, dict) else {}))


@dataclass(slots=True)
class Envelope:
    """What a modern request says about itself."""

    revision: str
    capabilities: Json
    client_info: Json | None
    log_level: str | None
    param_headers: dict[str, str]
    """`Mcp-Param-*` as they came, names in lower case."""


def decode_value(value: str | None) -> str | None:
    """Undo the `=?base64?…?=` form of a header value; None when it is malformed."""
    if value is None or not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    payload = value[9:-2]
    try:
        decoded = base64.b64decode(payload, validate=True)
        return decoded.decode() if base64.b64encode(decoded).decode() == payload else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def routing_headers(headers: Headers) -> tuple[dict[bytes, str], dict[str, str]]:
    """Return the routing headers and the parameter headers. Raises EnvelopeError when one is given twice."""
    routing: dict[bytes, str] = {}
    params: dict[str, str] = {}
    for name, value in headers.pairs:
        if name[:4] != b"mcp-":
            continue
        if name in _ROUTING:
            if name in routing:
                raise EnvelopeError(HEADER_MISMATCH, f"The {name.decode()} header is given twice")
            routing[name] = value.decode("latin-1").strip(" \t")
        elif name.startswith(_PARAM):
            key = name.decode("latin-1")
            if key in params:
                raise EnvelopeError(HEADER_MISMATCH, f"The {key} header is given twice")
            params[key] = value.decode("latin-1").strip(" \t")
    return routing, params


def read_envelope(headers: Headers, method: str, params: Any) -> Envelope:
    """Check `_meta`, then headers against body, then the version (2026-07-28, Streamable HTTP). Raises EnvelopeError."""
    meta = params.get("_meta") if isinstance(params, dict) else None
    if not isinstance(meta, dict):
        raise EnvelopeError(INVALID_PARAMS, f"params._meta must be an object with {META_VERSION} and {META_CAPABILITIES}")
    missing = [key for key in (META_VERSION, META_CAPABILITIES) if key not in meta]
    if missing:
        raise EnvelopeError(INVALID_PARAMS, f"params._meta lacks {', '.join(missing)}")
    version = meta[META_VERSION]
    routing, param_headers = routing_headers(headers)
    if routing.get(b"mcp-protocol-version") != version or version is None:
        raise EnvelopeError(HEADER_MISMATCH, "The MCP-Protocol-Version header differs from the body's protocol version")
    if routing.get(b"mcp-method") != method:
        raise EnvelopeError(HEADER_MISMATCH, "The Mcp-Method header differs from the body's method")
    named_by = NAMED_BY.get(method)
    if named_by is not None:
        named = params.get(named_by)
        if named is not None and decode_value(routing.get(b"mcp-name")) != named:
            raise EnvelopeError(HEADER_MISMATCH, f"The Mcp-Name header differs from the body's {named_by}")
    if version != MODERN:
        raise EnvelopeError(UNSUPPORTED_VERSION, "Unsupported protocol version", {"supported": [MODERN], "requested": version})
    capabilities = meta[META_CAPABILITIES]
    client_info = meta.get(META_CLIENT)
    if not isinstance(capabilities, dict) or not (client_info is None or isinstance(client_info, dict)):
        raise EnvelopeError(INVALID_PARAMS, f"{META_CAPABILITIES} and {META_CLIENT} must be objects")
    level = meta.get(META_LOG_LEVEL)
    return Envelope(version, capabilities, client_info, level if isinstance(level, str) else None, param_headers)


def client_label(info: Any) -> str:
    """Return a client's name and version for display; unverified, at most 120 characters, printable."""
    if not isinstance(info, dict):
        return ""
    name, version = info.get("name"), info.get("version")
    # cut before they are kept: the client chooses their length
    return _label(name[:120] if isinstance(name, str) else "", version[:120] if isinstance(version, str) else "")


@lru_cache(maxsize=1024)
def _label(name: str, version: str) -> str:
    text = f"{name} {version}".strip()
    return "".join(mark if mark.isprintable() else " " for mark in text[:120])
