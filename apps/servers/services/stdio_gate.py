"""The one gate before every command: who may have one started, and where it may come from."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings

from apps.common import authorise
from apps.common.context import current_actor
from apps.common.errors import PermissionDenied
from apps.common.events import ControlEvent
from apps.common.outbox import audit_apart
from apps.servers import rules

FILE_DOORS = frozenset({"cli", "start"})
"""Doors at which a command can have come from a file on this machine."""


def check_stdio(
    command: str,
    args: Sequence[Any],
    cwd: str,
    *,
    from_file: bool,
    tenant_id: object,
    action: str = "server.write",
    object_id: object = "",
    label: str = "",
) -> None:
    """Let the actor in force have this command started for a server, or refuse and record it.

    Only a superuser may (StepUpRequired), on every path: create, update, test, preview, import, clone, bulk, and what is put into
    the command's environment. SWITCHYARD_STDIO narrows it for everybody: `files` to commands that come from a file on this
    machine, `off` to none (PermissionDenied). The command's own form is checked by the model.
    """
    authorise.require_superuser(
        action,
        tenant_id=tenant_id,
        kind="server",
        object_id=object_id,
        label=label,
        why="A stdio server starts a command on this machine: only a superuser may register, change or test one.",
    )
    rule = _narrowed(from_file=came_from_file(from_file))
    if rule is not None:
        audit_apart(
            ControlEvent(
                event_type="access.refused",
                action=action,
                object_kind="server",
                object_id=str(object_id),
                object_label=label,
                outcome="refused",
                tenant_id=str(tenant_id),
                details={
                    "rule": rule,
                    "command": command,
                    "args": rules.hide_secrets(map(str, args if isinstance(args, list | tuple) else [args])),
                    "cwd": cwd,
                },
            )
        )
        raise PermissionDenied(_REASONS[rule], rule=rule)


def came_from_file(claimed: bool) -> bool:
    """Believe that a command comes from a file only at a door at which it can (the command line, the start)."""
    return claimed and current_actor().origin in FILE_DOORS


def check_start(*, from_file: bool) -> None:
    """Refuse to start a command that stands in the registry when SWITCHYARD_STDIO has been narrowed since (PermissionDenied)."""
    rule = _narrowed(from_file=from_file)
    if rule is not None:
        raise PermissionDenied(_REASONS[rule], rule=rule)


_REASONS = {
    "stdio-off": "Commands are switched off on this installation (SWITCHYARD_STDIO=off).",
    "stdio-files": "On this installation commands come from files alone (SWITCHYARD_STDIO=files): use manage.py import_servers.",
}


def _narrowed(*, from_file: bool) -> str | None:
    mode = settings.SWITCHYARD.stdio
    if mode == "off":
        return "stdio-off"
    if mode == "files" and not from_file:
        return "stdio-files"
    return None
