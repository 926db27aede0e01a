"""Brings an installation to where it can serve: tables, the first operator, built-in and listed servers.

Every step looks first and does nothing where nothing is to do, so a second start takes no time. Processes that start together
take turns: by a file lock on one machine, by an advisory lock of PostgreSQL across machines.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.db.migrations.executor import MigrationExecutor

from apps.common.context import Actor, every_tenant, tenant_scope
from apps.common.errors import Conflict, SwitchyardError
from config.environment import Environment
from config.processes.errors import CannotStart

START = Actor(kind="system", id="system", label="start", is_superuser=True, origin="start")
PREPARE_LOCK = 0x5357_5052
"""Key of the PostgreSQL advisory lock that lets one process at a time prepare."""
AUDIT_APP = "audit"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the banner tells."""

    username: str
    password: str | None = field(repr=False)
    """Only where this start made the operator."""
    key: str | None = field(repr=False)
    """Only where this start made the key."""
    calculator: bool = False
    """Whether the built-in server `system` can be called."""


def prepare(environment: Environment, say: Say, made: Callable[[Prepared], None]) -> Prepared:
    """Carry out every step that is needed. Raises CannotStart.

    `made` is called as soon as there is an operator: what is known of them then is known nowhere else.
    """
    document = read_servers_file(environment.servers_file)
    try:
        with _one_at_a_time(environment):
            (environment.home / "settings").write_text(f"{os.environ.get('DJANGO_SETTINGS_MODULE', '')}\n")
            migrate(say)
            return _fill(environment, document, say, made)
    except Error as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CannotStart(f"the database cannot be prepared: {reason}") from error
    finally:
        connections.close_all()


def migrate(say: Say) -> None:
    """Apply the migrations that are pending on each database; the audit log's own file gets its app's tables alone."""
    for alias in connections:
        apart = alias != DEFAULT_DB_ALIAS
        executor = MigrationExecutor(connections[alias])
        targets = executor.loader.graph.leaf_nodes(AUDIT_APP if apart else None)
        if executor.migration_plan(targets):
            say(f"Preparing the {'audit log' if apart else 'database'} …")
            labels = (AUDIT_APP,) if apart else ()
            call_command("migrate", *labels, database=alias, interactive=False, verbosity=0)


def read_servers_file(path: str) -> dict[str, Any] | None:
    """Return the document of `SWITCHYARD_SERVERS`, None where that is not set. Raises CannotStart."""
    if not path:
        return None
    try:
        document = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise CannotStart(f"SWITCHYARD_SERVERS: cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CannotStart(f"SWITCHYARD_SERVERS: {path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise CannotStart(f'SWITCHYARD_SERVERS: {path} must be an object: {{"mcpServers": {{…}}}}')
    return document


def _fill(environment: Environment, document: dict[str, Any] | None, say: Say, made: Callable[[Prepared], None]) -> Prepared:
    from apps.accounts.services.bootstrap import ensure_first_operator

    with every_tenant(START):
        try:
            operator = ensure_first_operator(
                environment.admin_user, environment.admin_password or None, environment.admin_key or None
            )
        except SwitchyardError as error:
            raise CannotStart(f"the first operator cannot be made: {error.detail}") from error
        prepared = Prepared(operator.user.get_username(), operator.password, operator.key_text)
        made(prepared)
        with tenant_scope(operator.tenant.pk, START):
            calculator = _register_builtin(say)
            _import_listed(document, say)
            _discover_later()
    return replace(prepared, calculator=calculator)


def _register_builtin(say: Say) -> bool:
    """Register the built-in servers, bring changed commands up to date; discover new ones at once, so that they can be called."""
    from apps.servers.selectors import servers
    from apps.servers.services.registry import register_server, update_server
    from apps.workbench.registry import builtin_servers

    ready = set()
    for builtin in builtin_servers():
        server = servers().filter(slug=builtin.slug).first()
        facts: dict[str, Any] = {
            "name": builtin.name,
            "description": builtin.description,
            "transport": "stdio",
            "command": builtin.command,
            "args": list(builtin.args),
            "cwd": builtin.cwd,
        }
        try:
            if server is None:
                server = register_server(slug=builtin.slug, review="accept", builtin=True, from_file=True, **facts)
            elif server.builtin:
                server = update_server(server, from_file=True, **facts)
            else:
                say(f"The built-in server {builtin.slug} is left out: a server of yours has its slug.")
                continue
        except SwitchyardError as error:
            say(f"The built-in server {builtin.slug} is left out: {error.detail}")
            continue
        if server.discovered_at is None and not server.paused:
            _discover_now(server, say)
            server.refresh_from_db(fields=["discovered_at"])
        if server.discovered_at is not None and not server.paused:
            ready.add(builtin.slug)
    return "system" in ready


def _discover_now(server: Any, say: Say) -> None:
    from apps.tools.services.discovery import discover_server

    say(f"Discovering the built-in server {server.slug} …")
    try:
        summary = discover_server(server)
    except Conflict:
        return
    except SwitchyardError as error:
        say(f"{server.slug} cannot be discovered: {error.detail}")
    else:
        if summary.error:
            say(f"{server.slug} cannot be discovered: {summary.error}")


def _import_listed(document: dict[str, Any] | None, say: Say) -> None:
    """Import the servers of `SWITCHYARD_SERVERS`; one that cannot be imported is told of and does not stop the start."""
    if document is None:
        return
    from apps.servers.services.transfer import import_servers

    try:
        imported = import_servers(document, from_file=True)
    except SwitchyardError as error:
        raise CannotStart(f"SWITCHYARD_SERVERS: {error.detail}") from error
    for server in imported:
        if server.error:
            say(f"SWITCHYARD_SERVERS: {server.slug}: {server.error}")
    created = [server.slug for server in imported if server.action == "created"]
    if created:
        say(f"Registered from SWITCHYARD_SERVERS: {', '.join(created)}")


def _discover_later() -> None:
    """Enqueue the discovery of every server that was never discovered; a worker does it once there is one."""
    from apps.servers.selectors import servers
    from apps.tools.tasks import discover_later

    with every_tenant(START):
        for server_id in servers().filter(discovered_at__isnull=True, paused_at__isnull=True).values_list("pk", flat=True):
            discover_later(server_id)


@contextmanager
def _one_at_a_time(environment: Environment) -> Iterator[None]:
    with (environment.home / "prepare.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not environment.postgres:
            yield
            return
        from apps.common.queue.connection import private_connection

        connection = private_connection("start")
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(%s)", [PREPARE_LOCK])
            yield
        finally:
            connection.close()
