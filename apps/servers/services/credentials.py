"""The verbs on a server's headers and environment variables: set, replaced and deleted, never read back."""

from typing import Any

from apps.common.errors import NotFound, ValidationFailed
from apps.common.hooks_in_transaction import emit
from apps.common.outbox import unit_of_work
from apps.servers import rules
from apps.servers.models import Credential, Endpoint, Server
from apps.servers.services import admission, credential_store
from apps.servers.services.description import record
from apps.servers.services.validation import Problems


def set_credential(server: Server, kind: str, name: str, value: str, *, from_file: bool = False) -> Credential:
    """Store a header (`header`) or an environment variable (`env`), encrypted; what was stored under that name is replaced.

    The environment of a command is a superuser's to set. Setting the same value again leaves no event.
    Raises ValidationFailed, NotFound, PermissionDenied, StepUpRequired.
    """
    with unit_of_work():
        row, endpoint = _admit(server, kind, from_file=from_file)
        problems = Problems()
        credential_store.check_values(kind, {name: value}, problems)
        stored = credential_store.find(row, kind, name)
        if value is None:
            problems.add("value", "A value is needed.")
        if stored is None and Credential.objects.filter(server=row, kind=kind).count() >= rules.MAX_CREDENTIALS:
            problems.add(credential_store.KINDS[kind], f"At most {rules.MAX_CREDENTIALS}.")
        problems.raise_if_any("The credential")
        if stored is not None and credential_store.holds(stored, name, value):
            return stored
        credential = credential_store.store(row, kind, name, value)
        _reconnect(row, endpoint, "credential.set", {"kind": kind, "name": name})
    return credential


def delete_credential(server: Server, kind: str, name: str, *, from_file: bool = False) -> None:
    """Delete a header or an environment variable. Raises NotFound, PermissionDenied, StepUpRequired."""
    with unit_of_work():
        row, endpoint = _admit(server, kind, from_file=from_file)
        stored = credential_store.find(row, kind, name)
        if stored is None:
            raise NotFound(f"{row.slug} has no {kind} credential {name}.")
        stored.delete()
        _reconnect(row, endpoint, "credential.deleted", {"kind": kind, "name": stored.name})


def _admit(server: Server, kind: str, *, from_file: bool) -> tuple[Server, Endpoint]:
    row, endpoint = admission.find(server, lock=True)
    if row.transport == admission.STDIO:
        admission.admit_connection(row, endpoint, from_file=from_file)
    if row.builtin:
        admission.require_product(row)
    if kind not in credential_store.KINDS:
        raise ValidationFailed("A credential is a header or an env.", errors={"kind": ["Use header or env."]})
    if (row.transport == admission.STDIO) != (kind == "env"):
        message = "A stdio server has environment variables, a server with a URL has headers."
        raise ValidationFailed(message, errors={"kind": [message]})
    return row, endpoint


def _reconnect(server: Server, endpoint: Endpoint, event: str, details: dict[str, Any]) -> None:
    admission.forget_observations(server, endpoint)
    server.save(update_fields=["version", "updated_at"])
    endpoint.save()
    emit("server.connection_changed", server=server)
    record(server, event, details)
