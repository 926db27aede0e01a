"""Reads the files in which MCP clients keep their servers: Claude Desktop, Cursor, VS Code and those that write like them. Pure.

`{"mcpServers": {name: entry}}`, or VS Code's `{"servers": {name: entry}, "inputs": […]}`, also inside `{"mcp": …}`; comments and trailing
commas are tolerated (JSONC). An entry has `command`, `args`, `env`, `cwd`, or `url`, `headers`, `type`.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from apps.common.errors import MalformedRequest, TooLarge, ValidationFailed
from apps.servers.placeholders import Placeholders
from apps.servers.rules import slugify_name

MAX_BYTES, MAX_ENTRIES = 1024 * 1024, 1000
EXTENSION = "x-switchyard"
"""Member of an entry with what no other client knows; others ignore it."""
EXTENSION_FIELDS = {
    "name": str,
    "description": str,
    "review": str,
    "trust_annotations": bool,
    "timeout_seconds": int,
    "max_concurrency": int,
    "idle_seconds": int,
    "auth": str,
    "oauth_scope": str,
}
_TRANSPORTS = {
    "stdio": "stdio",
    "sse": "sse",
    "http": "http",
    "streamable-http": "http",
    "streamable_http": "http",
    "streamablehttp": "http",
    "streamable http": "http",
}
_URL_NAMES = ("url", "serverUrl", "httpUrl")
_READ = frozenset(
    {"command", "args", "env", "cwd", "headers", "type", "transport", "disabled", "enabled", "auth", EXTENSION, *_URL_NAMES}
)
_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', re.DOTALL)


@dataclass(slots=True)
class Entry:
    """One server of a file, as `register_server` takes it."""

    name: str
    slug: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Address or command, and what the extension says."""
    values: dict[str, str | None] = field(default_factory=dict)
    """Headers or environment; None where a placeholder has no value here."""
    unresolved: dict[str, list[str]] = field(default_factory=dict)
    """Header or variable, and the placeholders in it that have no value."""
    disabled: bool | None = None
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def parse_document(text: str | bytes) -> dict[str, Any]:
    """Return the object in a file. Raises TooLarge over 1 MB, MalformedRequest for anything but one JSON(C) object."""
    if len(text) > MAX_BYTES:
        raise TooLarge(f"A file of servers has at most {MAX_BYTES} bytes.")
    try:
        plain = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        plain = _COMMENT.sub(lambda match: match.group(1) or " ", plain)
        plain = _TRAILING_COMMA.sub(lambda match: match.group(1) or "", plain)
        document = json.loads(plain, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise MalformedRequest("The file is nested too deeply.") from None
    except ValueError as error:
        raise MalformedRequest(f"The file is not JSON: {error}.") from None
    if not isinstance(document, dict):
        raise MalformedRequest("The file is not a JSON object.")
    return document


def read_document(document: Mapping[str, Any], environment: Mapping[str, str]) -> list[Entry]:
    """Return every entry, good or bad, in the file's order; placeholders are resolved from `environment`.

    Names that become the same slug are refused, all of them. Raises ValidationFailed when there is no table of servers.
    """
    table, inputs = _table(document)
    if len(table) > MAX_ENTRIES:
        raise ValidationFailed(f"At most {MAX_ENTRIES} servers in one file.")
    placeholders = Placeholders(environment, inputs)
    entries = [_read_entry(str(name), entry, placeholders) for name, entry in table.items()]
    slugs = Counter(entry.slug for entry in entries if entry.slug)
    for entry in entries:
        if slugs[entry.slug] > 1:
            same = ", ".join(sorted(f"“{other.name}”" for other in entries if other.slug == entry.slug))
            entry.errors.append(f"These names all become the slug {entry.slug}: {same}; rename all but one.")
    return entries


def _table(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Any]]:
    outer: Any = document
    if not isinstance(outer.get("mcpServers") or outer.get("servers"), Mapping) and isinstance(outer.get("mcp"), Mapping):
        outer = outer["mcp"]
    for member in ("mcpServers", "servers"):
        table = outer.get(member)
        if isinstance(table, Mapping):
            inputs = outer.get("inputs")
            return table, inputs if isinstance(inputs, list) else []
    raise ValidationFailed('There are no servers in it: {"mcpServers": {…}} is needed (VS Code: {"servers": {…}}).')


def _read_entry(name: str, raw: Any, placeholders: Placeholders) -> Entry:
    entry = Entry(name, slugify_name(name))
    if not entry.slug:
        entry.errors.append("The name has no letters or digits to make a slug of.")
    if not isinstance(raw, Mapping):
        entry.errors.append("The entry is not an object.")
        return entry
    entry.warnings += [f"{field} is not used" for field in sorted(map(str, raw.keys() - _READ))]
    transport = _transport(raw, entry)
    if transport == "stdio":
        _read_command(raw, entry, placeholders)
    elif transport:
        _read_url(raw, entry, placeholders)
    for field_name, means_disabled in (("disabled", True), ("enabled", False)):
        if field_name in raw:
            if isinstance(raw[field_name], bool):
                entry.disabled = raw[field_name] is means_disabled
            else:
                entry.errors.append(f"{field_name} is not true or false.")
    _read_extension(raw.get(EXTENSION), entry)
    entry.settings["transport"] = transport
    return entry


def _transport(raw: Mapping[str, Any], entry: Entry) -> str:
    urls = [field for field in _URL_NAMES if raw.get(field)]
    if raw.get("command") and urls:
        entry.errors.append("It has a command and a URL; one of them is needed.")
        return ""
    if not raw.get("command") and not urls:
        entry.errors.append("It has neither a command nor a URL.")
        return ""
    said = raw.get("type", raw.get("transport"))
    if said is None:
        if raw.get("command"):
            return "stdio"
        address = raw[urls[0]]
        old = isinstance(address, str) and urls[0] != "httpUrl" and urlsplit(address.partition("${")[0]).path.endswith("/sse")
        return "sse" if old else "http"
    transport = _TRANSPORTS.get(said.lower()) if isinstance(said, str) else None
    if transport is None:
        entry.errors.append(f"The type {str(said)[:40]!r} is not known; use stdio, http or sse.")
        return ""
    if (transport == "stdio") != bool(raw.get("command")):
        entry.errors.append(f"The type {said} does not fit: " + ("it has a URL." if urls else "it has a command."))
        return ""
    return transport


def _read_command(raw: Mapping[str, Any], entry: Entry, placeholders: Placeholders) -> None:
    args = raw.get("args") or []
    if not isinstance(args, list) or not all(isinstance(arg, str) for arg in args):
        entry.errors.append("args is not a list of strings.")
        args = []
    for field_name in ("command", "cwd"):
        if not isinstance(raw.get(field_name) or "", str):
            entry.errors.append(f"{field_name} is not a string.")
            return
    entry.settings["command"] = _open(raw["command"], "command", entry, placeholders)
    entry.settings["args"] = [_open(arg, "args", entry, placeholders) for arg in args]
    entry.settings["cwd"] = _open(raw.get("cwd") or "", "cwd", entry, placeholders)
    _read_values(raw.get("env"), "env", entry, placeholders)
    if raw.get("headers"):
        entry.warnings.append("headers are not used for a command")


def _read_url(raw: Mapping[str, Any], entry: Entry, placeholders: Placeholders) -> None:
    url = next(raw[field] for field in _URL_NAMES if raw.get(field))
    if not isinstance(url, str):
        entry.errors.append("url is not a string.")
        return
    entry.settings["url"] = _open(url, "url", entry, placeholders)
    if raw.get("auth") == "oauth":  # as FastMCP writes it
        entry.settings["auth"] = "oauth"
    elif "auth" in raw:
        entry.warnings.append("auth is not used: only “oauth” is understood there")
    _read_values(raw.get("headers"), "headers", entry, placeholders)
    entry.warnings += [f"{name} is not used for a URL" for name in ("args", "env", "cwd") if raw.get(name)]


def _open(text: str, where: str, entry: Entry, placeholders: Placeholders) -> str:
    """Resolve a text that is stored and shown as it is: what is missing is an error, and so is a password."""
    found = placeholders.resolve(text)
    if found.missing:
        entry.errors.append(f"{where}: no value for {', '.join(found.missing)}.")
    if found.secret:
        entry.errors.append(f"{where}: a password would be stored readably there; put it into env or headers.")
        return ""
    return found.text


def _read_values(raw: Any, where: str, entry: Entry, placeholders: Placeholders) -> None:
    if raw is None:
        return
    if not isinstance(raw, Mapping):
        entry.errors.append(f"{where} is not an object.")
        return
    for name, value in raw.items():
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, int | float):
            value = str(value)
        if not isinstance(value, str):
            entry.errors.append(f"{where}: the value of {name} is not a string.")
            continue
        found = placeholders.resolve(value)
        entry.values[str(name)] = None if found.missing else found.text
        if found.missing:
            entry.unresolved[str(name)] = found.missing


def _read_extension(raw: Any, entry: Entry) -> None:
    if raw is None:
        return
    if not isinstance(raw, Mapping):
        entry.errors.append(f"{EXTENSION} is not an object.")
        return
    for name, value in raw.items():
        kind = EXTENSION_FIELDS.get(name)
        if kind is None:
            entry.warnings.append(f"{EXTENSION}.{name} is not used")
        elif type(value) is not kind:
            entry.errors.append(f"{EXTENSION}.{name} has the wrong type.")
        else:
            entry.settings[name] = value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"“{twice}” stands twice in one object")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
