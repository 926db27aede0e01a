"""Filters that several lists share."""

from typing import Any

from apps.accounts.selectors import as_uuid


def of_tenant(rows: Any, named: str) -> Any:
    """Narrow rows to one tenant of those in view, named by id or slug."""
    key = as_uuid(named)
    return rows.filter(tenant_id=key) if key else rows.filter(tenant__slug=named)


def of_server(rows: Any, named: str) -> Any:
    """Narrow rows with a `server` to those of one, named by id or slug."""
    key = as_uuid(named)
    return rows.filter(server_id=key) if key else rows.filter(server__slug=named)
