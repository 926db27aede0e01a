"""Reads the entries of a composed toolset as they come from a form or a request into rows, with every rule checked."""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.common.context import tenant_scope
from apps.common.errors import NotFound, ValidationFailed
from apps.servers.selectors import get_server
from apps.tools.domain import KINDS, is_exact, name_problem, visible
from apps.tools.models import Toolset, ToolsetEntry

MAX_ENTRIES = 1000
MAX_PATTERN = 2000
MAX_DESCRIPTION = 20_000
MEMBERS = frozenset({"server", "kind", "pattern", "rename", "description"})


def read_entries(toolset: Toolset, entries: Sequence[Mapping[str, Any]]) -> list[ToolsetEntry]:
    """Return unsaved rows, in order. Raises ValidationFailed with every message, keyed `entries.<number>.<field>`."""
    if len(entries) > MAX_ENTRIES:
        raise ValidationFailed(f"A toolset has at most {MAX_ENTRIES} entries.", errors={"entries": [f"At most {MAX_ENTRIES}."]})
    errors: dict[str, list[str]] = {}
    rows: list[ToolsetEntry] = []
    seen: set[tuple[Any, str, str]] = set()
    servers: dict[str, Any] = {}
    for number, entry in enumerate(entries):
        problems, row = _read(toolset, entry, number, servers)
        if row is not None:
            key = (row.server_id, row.kind, row.pattern)
            if key in seen:
                problems["pattern"] = [f"The same entry stands here twice: {row.kind} {row.pattern} of {row.server.slug}."]
            seen.add(key)
            rows.append(row)
        errors |= {f"entries.{number}.{field}": messages for field, messages in problems.items()}
    if errors:
        words = " ".join(message for messages in list(errors.values())[:3] for message in messages)
        raise ValidationFailed(f"The entries are not valid: {words}", errors=errors)
    return rows


def _read(
    toolset: Toolset, entry: Mapping[str, Any], number: int, servers: dict[str, Any]
) -> tuple[dict[str, list[str]], ToolsetEntry | None]:
    if not isinstance(entry, Mapping):
        return {"server": ["An entry is an object with server, kind, pattern, rename, description."]}, None
    problems = {field: ["There is no such field."] for field in sorted(set(map(str, entry)) - MEMBERS)}
    texts = {"kind": "tool", "pattern": "*", "rename": "", "description": ""}
    for field, default in texts.items():
        value = entry.get(field) or default
        if not isinstance(value, str):
            problems[field] = ["This is not a text."]
            value = default
        texts[field] = value
    if texts["kind"] not in ("all", *KINDS):
        problems["kind"] = [f"One of all, {', '.join(KINDS)}."]
    problems |= _text_problems(**texts)
    server = _server(toolset, entry.get("server"), servers)
    if server is None:
        problems["server"] = ["There is no such server in this tenant."]
    if problems:
        return problems, None
    row = ToolsetEntry(tenant_id=toolset.tenant_id, toolset=toolset, server=server, position=number, **texts)
    return problems, row


def _text_problems(kind: str, pattern: str, rename: str, description: str) -> dict[str, list[str]]:
    problems: dict[str, list[str]] = {}
    if len(pattern) > MAX_PATTERN:
        problems["pattern"] = [f"At most {MAX_PATTERN} characters."]
    elif kind == "all" and pattern != "*":
        problems["pattern"] = ["Everything of a server has the pattern *; choose a kind to narrow it."]
    if rename and (kind not in ("tool", "prompt") or not is_exact(pattern)):
        problems["rename"] = ["Only one tool or prompt, named without *, can be renamed."]
    elif rename and (reason := name_problem(rename)):
        problems["rename"] = [f"This is no name that callers could use: {reason}."]
    if description and (kind == "all" or not is_exact(pattern)):
        problems["description"] = ["Only one thing, named without *, can be described anew."]
    elif len(description) > MAX_DESCRIPTION:
        problems["description"] = [f"At most {MAX_DESCRIPTION} characters."]
    elif visible(description) != description:
        problems["description"] = ["It contains control, invisible or text-direction characters."]
    return problems


def _server(toolset: Toolset, given: Any, known: dict[str, Any]) -> Any:
    """Return the server of the toolset's tenant that is meant, or None."""
    ref = str(getattr(given, "pk", given))
    if given in (None, ""):
        return None
    if ref not in known:
        with tenant_scope(toolset.tenant_id):
            try:
                known[ref] = get_server(ref)
            except NotFound:
                known[ref] = None
    return known[ref]
