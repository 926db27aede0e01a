"""`Mcp-Param-*`: arguments that a definition marks with `x-mcp-header` (2026-07-28, Streamable HTTP, Custom Headers)."""

from collections.abc import Mapping
from typing import Any

from apps.common.errors import HeaderMismatch, UpstreamProtocolError
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


def judged(item: Item, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that the schema judges: a marked one that is null, and need not be given, counts as left out."""
    if not annotated(item) or None not in arguments.values():
        return arguments
    schema = item.facts.definition.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(schema, dict) or not isinstance(properties, dict):
        return arguments
    needed = schema.get("required")
    marked = {name for name, kind in properties.items() if isinstance(kind, dict) and "x-mcp-header" in kind}
    if isinstance(needed, list):
        marked.difference_update(name for name in needed if isinstance(name, str))
    return {name: value for name, value in arguments.items() if value is not None or name not in marked}


def param_headers(item: Item, arguments: Mapping[str, Any], *, http: bool = False) -> dict[str, str]:
    """Return the headers that repeat a call's marked arguments to a modern server.

    Raises UpstreamProtocolError for a tool of a modern server over `http` that marks arguments in a way which the revision forbids:
    a client must not call such a tool.
    """
    if not annotated(item):
        return {}
    from mcp.shared.inbound import find_invalid_x_mcp_header, mcp_param_headers, x_mcp_header_map

    schema = item.facts.definition.get("inputSchema")
    wrong = find_invalid_x_mcp_header(schema)
    if wrong is not None:
        if http:
            raise UpstreamProtocolError(f"The tool marks its arguments for headers wrongly, so it may not be called: {wrong}.")
        return {}
    return mcp_param_headers(x_mcp_header_map(schema), arguments)


def check_param_headers(item: Item, arguments: Any, headers: Mapping[str, str]) -> None:
    """Compare a modern caller's `Mcp-Param-*` headers with its arguments. Raises HeaderMismatch (-32020)."""
    from mcp.shared.inbound import validate_mcp_param_headers

    schema = item.facts.definition.get("inputSchema")
    rejection = validate_mcp_param_headers(schema, arguments if isinstance(arguments, dict) else {}, headers)
    if rejection is not None:
        raise HeaderMismatch(f"{rejection.message}.")
