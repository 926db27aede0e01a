"""`Mcp-Param-*`: arguments that a definition marks with `x-mcp-header` (2026-07-28, Streamable HTTP, Custom Headers)."""

from collections.abc import Mapping
from typing import Any

from apps.common.errors import HeaderMismatch
from apps.gateway.plane.snapshot import Item

_ANNOTATED: dict[str, bool] = {}


def annotated(item: Item) -> bool:
    """Tell whether a definition marks any argument; remembered by digest."""
    digest = item.facts.digest
    found = _ANNOTATED.get(digest)
    if found is None:
        found = b'"x-mcp-header"' in item.listing
        if len(_ANNOTATED) > 65536:
            _ANNOTATED.clear()
        _ANNOTATED[digest] = found
    return found


def param_headers(item: Item, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that repeat a call's marked arguments to a modern server."""
    if not annotated(item):
        return {}
    from mcp.shared.inbound import find_invalid_x_mcp_header, mcp_param_headers, x_mcp_header_map

    schema = item.facts.definition.get("inputSchema")
    if find_invalid_x_mcp_header(schema) is not None:
        return {}
    return mcp_param_headers(x_mcp_header_map(schema), arguments)


def check_param_headers(item: Item, arguments: Any, headers: Mapping[str, str]) -> None:
    """Compare a modern caller's `Mcp-Param-*` headers with its arguments. Raises HeaderMismatch (-32020)."""
    from mcp.shared.inbound import validate_mcp_param_headers

    schema = item.facts.definition.get("inputSchema")
    rejection = validate_mcp_param_headers(schema, arguments if isinstance(arguments, dict) else {}, headers)
    if rejection is not None:
        raise HeaderMismatch(f"{rejection.message}.")
