"""What stands before every write to the registry: the row in force, the stdio gate, the rules of input."""

import re
from collections.abc import Mapping
from typing import Any

from apps.common import authorise
from apps.common.clock import now
from apps.common.context import current_actor
from apps.common.errors import NotFound, PermissionDenied
from apps.common.events import ControlEvent
from apps.common.outbox import audit_apart
from apps.servers import rules
from apps.servers.models import Endpoint, Server
from apps.servers.services import credential_store, stdio_gate
from apps.servers.services.validation import Problems

STDIO = Server.Transport.STDIO
_SCOPES = re.compile(r"(?:[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*)?")
"""RFC 6749, section 3.3."""


def find(server: Server, *, action: str = "server.write", lock: bool = False) -> tuple[Server, Endpoint]:
    """Return the row of the tenant in force, fresh, with its endpoint, after asking the policy. Raises NotFound, PermissionDenied."""
    rows = Server.objects.select_for_update() if lock else Server.objects.all()
    row = rows.filter(pk=server.pk).first()
    if row is None:
        raise NotFound("No such server.")
    authorise.require(action, tenant_id=row.tenant_id, kind="server", object_id=row.pk, label=row.slug)
    endpoint = Endpoint.objects.filter(server=row).first()
    if endpoint is None:
        raise NotFound(f"{row.slug} has no endpoint.")
    return row, endpoint


def admit_connection(server: Server, endpoint: Endpoint, *, from_file: bool, was_stdio: bool = False) -> None:
    """Pass the stdio gate when a command is, or was, the way to this server. Raises PermissionDenied, StepUpRequired."""
    about: dict[str, Any] = {
        "tenant_id": server.tenant_id,
        "object_id": "" if server._state.adding else server.pk,
        "label": server.slug,
    }
    if server.transport == STDIO or endpoint.command:
        stdio_gate.check_stdio(endpoint.command, endpoint.args, endpoint.cwd, from_file=from_file, **about)
        endpoint.from_file = stdio_gate.came_from_file(from_file)
    elif was_stdio:
        authorise.require_superuser("server.write", kind="server", **about)


def check_input(server: Server, endpoint: Endpoint, values: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Validate rows and credential values together; raises ValidationFailed with every message by field."""
    problems = Problems()
    problems.full_clean(server, exclude={"tenant"})
    if server.transport == STDIO:
        if endpoint.url:
            problems.add("url", "A stdio server has a command, not a URL.")
        problems.check("command", rules.check_command, endpoint.command)
        if values.get("header"):
            problems.add("headers", "A stdio server has no HTTP headers; give environment variables.")
    else:
        if endpoint.command:
            problems.add("command", "A server with a URL has no command.")
        problems.check("url", rules.check_url, endpoint.url)
        if values.get("env"):
            problems.add("env", "A server with a URL has no environment; give headers.")
    if server.by_oauth and server.transport == STDIO:
        problems.add("auth", "A stdio server is a command on this machine, which OAuth is not for.")
    if server.by_oauth and server.builtin:
        problems.add("auth", "A built-in server knows its callers by Switchyard's own assertions.")
    if server.by_oauth and any(name.lower() == "authorization" for name in values.get("header") or ()):
        problems.add("headers", "With OAuth the header Authorization is the token's.")
    if not _SCOPES.fullmatch(server.oauth_scope):
        problems.add("oauth_scope", "Scopes are words of printable ASCII without quotes, separated by one space.")
    if not problems.errors.keys() & {"url", "command"}:
        problems.full_clean(endpoint, exclude={"tenant", "server"})
    for kind, named in values.items():
        credential_store.check_values(kind, named, problems)
    problems.raise_if_any()


def is_product() -> bool:
    """Tell whether Switchyard itself acts, and not a person or a program through one of its doors."""
    return current_actor().kind == "system"


def require_product(server: Server) -> None:
    """Raise PermissionDenied, and record it, unless Switchyard itself acts: built-in servers get assertions that name callers."""
    if is_product():
        return
    audit_apart(
        ControlEvent(
            event_type="access.refused",
            action="server.write",
            object_kind="server",
            object_id=str(server.pk),
            object_label=server.slug,
            outcome="refused",
            tenant_id=str(server.tenant_id),
            details={"rule": "built-in"},
        )
    )
    raise PermissionDenied(f"{server.slug} is built in: the product itself sets its connection.", rule="built-in")


def forget_observations(server: Server, endpoint: Endpoint) -> None:
    """Note that what is known of the connection is no longer known; its next use opens a new one."""
    server.version += 1
    endpoint.era = ""
    endpoint.state, endpoint.state_reason, endpoint.state_since = Endpoint.State.UNKNOWN, "Its settings changed.", now()
