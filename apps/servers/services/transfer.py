"""Import of clients' files and export to them. Every server goes through the registry's verbs, so the same rules hold."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from django.db.models import Field

from apps.common import authorise
from apps.common.context import current_tenant_id
from apps.common.errors import Conflict, SwitchyardError, ValidationFailed
from apps.common.events import ControlEvent
from apps.common.outbox import audit, unit_of_work
from apps.servers import rules
from apps.servers.mcp_files import EXTENSION, EXTENSION_FIELDS, Entry, read_document
from apps.servers.models import Credential, Server
from apps.servers.services import stdio_gate
from apps.servers.services.lifecycle import pause_server, resume_server
from apps.servers.services.registry import register_server, update_server


@dataclass(frozen=True, slots=True)
class ImportedServer:
    """What became of one entry."""

    slug: str
    action: str
    """`created`, `updated`, `skipped` (nothing differs) or `failed`."""
    error: str = ""
    name: str = ""
    """As it stands in the file."""
    warnings: tuple[str, ...] = ()
    error_type: str = ""
    """The problem type (a URI), where it failed."""


def import_servers(
    document: Mapping[str, Any],
    *,
    from_file: bool = False,
    dry_run: bool = False,
    environment: Mapping[str, str] | None = None,
) -> list[ImportedServer]:
    """Register the servers of a document in the tenant in force, or bring those that there are up to date; one result for each.

    The file decides address or command, headers or environment, and what its extension names; the rest stays as the console set
    it. A server without changes leaves no event. One bad entry does not lose the others. With `dry_run` everything is
    tried, checked and undone. Placeholders are filled from `environment`; by default that is the process's own for a document from a
    file on this machine and nothing otherwise, as a document that comes over HTTP must not read the gateway's variables.
    Raises ValidationFailed when there is no table of servers, and what the policy raises.
    """
    authorise.require("server.write", tenant_id=current_tenant_id(), kind="server", label="import")
    from_file = stdio_gate.came_from_file(from_file)
    if environment is None:
        environment = os.environ if from_file else {}
    return [_import(entry, from_file=from_file, dry_run=dry_run) for entry in read_document(document, environment)]


def export_servers() -> dict[str, Any]:
    """Return the tenant's servers as a file that other clients and `import_servers` read.

    Values of credentials are never in it: each stands as `${NAME}`. Built-in servers are left out.
    """
    tenant_id = current_tenant_id()
    with unit_of_work():
        authorise.require("server.write", tenant_id=tenant_id, kind="server", label="export")
        rows = Server.objects.filter(builtin=False).prefetch_related("endpoints", "credentials").order_by("slug")
        # arguments of commands are whole for those who may change them: some hold secrets
        whole = authorise.has_everything()
        document = {"mcpServers": {row.slug: _export(row, whole=whole) for row in rows}}
        audit(
            ControlEvent(
                event_type="server.exported",
                action="server.write",
                object_kind="server",
                object_label="export",
                tenant_id=tenant_id,
                details={"servers": sorted(document["mcpServers"])},
            )
        )
    return document


def placeholder_name(slug: str, name: str) -> str:
    """Return the variable that stands for a credential in an export: `<SLUG>__<NAME>`; slugs hold no `__`, so it is unambiguous."""
    return f"{slug.replace('-', '_')}__{re.sub(r'[^A-Za-z0-9_]', '_', name)}".upper()


class _Undo(Exception):
    """Ends a dry run."""


@contextmanager
def _trial(dry_run: bool) -> Iterator[None]:
    """Let the block's writes stand, or undo all of them."""
    if not dry_run:
        yield
        return
    try:
        with unit_of_work():
            yield
            raise _Undo
    except _Undo:
        return


def _import(entry: Entry, *, from_file: bool, dry_run: bool) -> ImportedServer:
    warnings = (*entry.warnings, *(("Paused, as the file says.",) if entry.disabled and not entry.errors else ()))
    try:
        if entry.errors:
            raise ValidationFailed(" ".join(entry.errors))
        action = ""
        with _trial(dry_run):
            existing = Server.objects.filter(slug=entry.slug).first()
            if existing is None:
                action = _create(entry, from_file=from_file)
            else:
                action, kept = _bring_up_to_date(existing, entry, from_file=from_file)
                warnings += kept
    except SwitchyardError as error:
        return ImportedServer(entry.slug, "failed", error.detail, entry.name, warnings, error.type)
    return ImportedServer(entry.slug, action, "", entry.name, warnings)


def _create(entry: Entry, *, from_file: bool) -> str:
    if entry.unresolved:
        raise _no_value(entry, set(entry.unresolved))
    settings: dict[str, Any] = {"name": entry.name[:120], **entry.settings}
    values = {name: value for name, value in entry.values.items() if value is not None}
    kind = "env" if settings["transport"] == "stdio" else "headers"
    settings[kind] = values
    register_server(slug=entry.slug, from_file=from_file, paused=bool(entry.disabled), **settings)
    return "created"


def _bring_up_to_date(existing: Server, entry: Entry, *, from_file: bool) -> tuple[str, tuple[str, ...]]:
    if existing.builtin:
        raise Conflict(f"{entry.slug} is a built-in server; rename the entry.")
    kind = "env" if entry.settings["transport"] == "stdio" else "header"
    stored = set(Credential.objects.filter(server=existing, kind=kind).values_list("name", flat=True))
    if missing := set(entry.unresolved) - stored:
        raise _no_value(entry, missing)
    values = {"headers" if kind == "header" else "env": entry.values}
    row = existing
    if entry.disabled:
        row = pause_server(row)
    row = update_server(row, from_file=from_file, **entry.settings, **values)
    if entry.disabled is False:
        row = resume_server(row)
    kept = tuple(
        f"{name} keeps its stored value: no value for {', '.join(entry.unresolved[name])}" for name in entry.unresolved
    )
    return "skipped" if row.updated_at == existing.updated_at else "updated", kept


def _no_value(entry: Entry, names: set[str]) -> ValidationFailed:
    parts = (f"{name}: no value for {', '.join(entry.unresolved[name])}." for name in sorted(names))
    return ValidationFailed(" ".join(parts))


def _export(server: Server, *, whole: bool) -> dict[str, Any]:
    endpoint = server.endpoints.all()[0]
    values = {row.name: "${" + placeholder_name(server.slug, row.name) + "}" for row in server.credentials.all()}
    entry: dict[str, Any]
    if server.transport == Server.Transport.STDIO:
        entry = {"command": endpoint.command, "args": list(endpoint.args) if whole else rules.hide_secrets(endpoint.args)}
        entry |= {"cwd": endpoint.cwd} if endpoint.cwd else {}
        entry |= {"env": values} if values else {}
    else:
        entry = {"type": server.transport, "url": endpoint.url}
        entry |= {"headers": values} if values else {}
    if server.paused:
        entry["disabled"] = True
    own = {name: getattr(server, name) for name in EXTENSION_FIELDS if getattr(server, name) != _default(server, name)}
    if own:
        entry[EXTENSION] = own
    return entry


def _default(server: Server, name: str) -> Any:
    return server.slug if name == "name" else cast("Field[Any, Any]", Server._meta.get_field(name)).get_default()
