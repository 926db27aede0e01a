"""Which era a server speaks, decided from its answer to one `server/discover`. Pure.

Only a server's own refusal says "legacy". Silence over HTTP, a 5xx, a refused credential or connection is an outage
and leaves the question open.
"""

from typing import Any

from apps.common.errors import UpstreamProtocolError
from apps.servers.domain import LEGACY_REVISIONS, MODERN_REVISIONS
from apps.servers.transports.base import Json
from apps.servers.transports.wire import HEADER_MISMATCH, META_SERVER_INFO, MISSING_CAPABILITY, UNSUPPORTED_VERSION, is_error

MODERN, LEGACY, DUAL = "modern", "legacy", "dual"


def era_of_discover(message: Any) -> str:
    """Return the era that the answer to `server/discover` shows.

    Raises UpstreamProtocolError for a server that speaks only revisions unknown here.
    """
    if type(message) is not dict:
        return LEGACY
    error = message.get("error")
    if error is not None:
        return _era_of_error(error)
    versions = supported_versions(message.get("result"))
    if any(version in MODERN_REVISIONS for version in versions):
        return DUAL if any(version in LEGACY_REVISIONS for version in versions) else MODERN
    return LEGACY


def _era_of_error(error: Any) -> str:
    """Return what an error in answer to `server/discover` shows."""
    if not is_error(error):
        return LEGACY
    if error["code"] in {HEADER_MISMATCH, MISSING_CAPABILITY}:
        return MODERN
    if error["code"] == UNSUPPORTED_VERSION:
        data = error.get("data")
        supported = data.get("supported") if type(data) is dict else None
        if type(supported) is list and supported and not any(v in LEGACY_REVISIONS for v in supported):
            if any(v in MODERN_REVISIONS for v in supported):
                return MODERN
            spoken = ", ".join(str(v)[:20] for v in supported[:5])
            raise UpstreamProtocolError(f"The server speaks only MCP revisions that Switchyard does not: {spoken}.")
    return LEGACY


def supported_versions(result: Any) -> tuple[str, ...]:
    """Return the revisions in a discover result."""
    versions = result.get("supportedVersions") if type(result) is dict else None
    return tuple(v for v in versions if type(v) is str) if type(versions) is list else ()


def order(revisions: set[str]) -> tuple[str, ...]:
    """Return the revisions, newest first (they are dates)."""
    return tuple(sorted(revisions, reverse=True))


def identity(result: Json) -> tuple[Json, Json, str]:
    """Return server info, capabilities and instructions of a discover or initialize result."""
    meta = result.get("_meta")
    info = result.get("serverInfo") or (meta.get(META_SERVER_INFO) if type(meta) is dict else None)
    capabilities, instructions = result.get("capabilities"), result.get("instructions")
    return (
        info if type(info) is dict else {},
        capabilities if type(capabilities) is dict else {},
        instructions if type(instructions) is str else "",
    )
