"""The registry's verbs: register, change and clone servers; with those of `lifecycle` and `credentials`, all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import IntegrityError, transaction

from apps.common import authorise
from apps.common.clock import now
from apps.common.context import current_tenant_id
from apps.common.crypto.keyring import DecryptionFailed
from apps.common.errors import Conflict, NotReady, ValidationFailed
from apps.common.hooks_in_transaction import emit
from apps.common.outbox import unit_of_work
from apps.servers import rules
from apps.servers.models import Credential, Endpoint, Server
from apps.servers.services import addresses, admission, credential_store, secrets
from apps.servers.services.connection import ConnectionReport, test_connection
from apps.servers.services.credentials import delete_credential, set_credential
from apps.servers.services.description import CONNECTION_FIELDS, ENDPOINT_FIELDS, SERVER_FIELDS, describe, loggable, record
from apps.servers.services.lifecycle import (
    delete_server,
    delete_servers,
    pause_server,
    pause_servers,
    resume_server,
    resume_servers,
)
from apps.servers.services.oauth.disconnecting import drop_connections
from apps.servers.services.validation import Problems, summary

__all__ = (
    "ConnectionReport",
    "clone_server",
    "delete_credential",
    "delete_server",
    "delete_servers",
    "pause_server",
    "pause_servers",
    "register_server",
    "resume_server",
    "resume_servers",
    "set_credential",
    "test_connection",
    "update_server",
)


def register_server(
    *,
    slug: str,
    transport: str,
    name: str = "",
    url: str = "",
    command: str = "",
    args: Sequence[str] = (),
    cwd: str = "",
    headers: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    description: str = "",
    review: str = Server.Review.HOLD_CHANGED,
    trust_annotations: bool = False,
    timeout_seconds: int = 60,
    max_concurrency: int = 256,
    idle_seconds: int = 600,
    auth: str = Server.Auth.HEADERS,
    oauth_scope: str = "",
    builtin: bool = False,
    from_file: bool = False,
    paused: bool = False,
) -> Server:
    """Register a server in the tenant in force, with its endpoint, its credentials and a toolset of the same slug.

    Raises ValidationFailed (all messages by field), Conflict for a taken slug, AddressRefused, PermissionDenied, and
    StepUpRequired when anybody but a superuser gives a command. `from_file`: the command comes from a file on this machine;
    `paused`: it is not used before somebody resumes it. `auth` is one of Server.Auth; what is reached by OAuth has to be connected then
    (`services.oauth.connecting`), and `oauth_scope` says which scopes to ask for, where that is not left to the server.
    """
    tenant_id = current_tenant_id()
    server = Server(
        tenant_id=tenant_id,
        slug=slug,
        name=name or slug,
        description=description,
        transport=transport,
        auth=auth,
        oauth_scope=oauth_scope,
        review=review,
        trust_annotations=trust_annotations,
        timeout_seconds=timeout_seconds,
        max_concurrency=max_concurrency,
        idle_seconds=idle_seconds,
        builtin=builtin,
        paused_at=now() if paused else None,
    )
    endpoint = Endpoint(tenant_id=tenant_id, server=server, url=url, command=command, args=_list(args), cwd=cwd)
    authorise.require("server.write", tenant_id=tenant_id, kind="server", label=slug)
    admission.admit_connection(server, endpoint, from_file=from_file)
    if builtin:
        admission.require_product(server)
    values: dict[str, Mapping[str, str]] = {"header": headers or {}, "env": env or {}}
    admission.check_input(server, endpoint, values)
    # A name is resolved before the transaction, so that a slow resolver holds no lock.
    addresses.check_server_url(server, url)
    with unit_of_work():
        _insert(server, endpoint, values)
    return server


def update_server(server: Server, *, from_file: bool = False, **fields: Any) -> Server:
    """Change a server; returns it as it is then. Nothing is written, and no event made, where nothing changes.

    Fields: as of `register_server` less `slug` and `builtin`. `headers` and `env` are the whole set; None as a value keeps the stored
    one. A stdio server's command and environment are a superuser's to change. A header is not sent to an origin other than the one
    it was stored for: with a new origin its value is given again, or a superuser makes the change.
    Raises NotFound and what `register_server` raises.
    """
    _refuse_unknown(fields)
    if fields.get("url"):
        row, endpoint = admission.find(server)
        if fields["url"] != endpoint.url:
            addresses.check_server_url(row, fields["url"])
    with unit_of_work():
        row, endpoint = admission.find(server, lock=True)
        before = describe(row, endpoint)
        _assign(row, endpoint, fields)
        after = describe(row, endpoint)
        touched = sorted(name for name in after if after[name] != before[name])
        reconnects = bool(CONNECTION_FIELDS & set(touched))
        values = {"header": fields.get("headers"), "env": fields.get("env")}
        if reconnects:
            was_stdio = before["transport"] == admission.STDIO
            admission.admit_connection(row, endpoint, from_file=from_file, was_stdio=was_stdio)
        if row.builtin and (reconnects or any(values.values())):
            admission.require_product(row)
        admission.check_input(row, endpoint, values)
        changes = _plan_credentials(row, values)
        if changes["env"] and not reconnects:
            admission.admit_connection(row, endpoint, from_file=from_file)
        if before["url"] and (row.auth != before["auth"] or rules.origin(before["url"]) != rules.origin(endpoint.url or "")):
            drop_connections(row, "the address or the authentication of the server changed")
        if before["url"] and endpoint.url and rules.origin(before["url"]) != rules.origin(endpoint.url):
            _keep_headers_home(changes["header"])
        touched += [credential_store.KINDS[kind] for kind, change in changes.items() if change]
        if not touched:
            return row
        for kind, change in changes.items():
            credential_store.apply(row, kind, change)
        reconnects = reconnects or any(changes.values())
        if reconnects:
            admission.forget_observations(row, endpoint)
            endpoint.save()
        row.save(update_fields=[*(SERVER_FIELDS & set(touched)), "version", "updated_at"])
        emit("server.updated", server=row, fields=touched)
        if reconnects:
            emit("server.connection_changed", server=row)
        details: dict[str, Any] = {
            when: loggable({name: state[name] for name in touched if name in state})
            for when, state in (("before", before), ("after", after))
        }
        details |= {credential_store.KINDS[kind]: change.names() for kind, change in changes.items() if change}
        record(row, "server.updated", details)
    return row


def clone_server(server: Server, slug: str, *, name: str = "") -> Server:
    """Register a copy under another slug, with the same address or command and the same credentials, sealed anew.

    A stdio server is a superuser's to clone. Raises what `register_server` raises, and Conflict for a built-in server.
    """
    with unit_of_work():
        row, endpoint = admission.find(server, lock=True)
        if row.builtin:
            raise Conflict("A built-in server cannot be cloned: one serves every tenant.")
        values: dict[str, dict[str, str]] = {"header": {}, "env": {}}
        for credential in Credential.objects.filter(server=row):
            try:
                values[credential.kind][credential.name] = secrets.unseal(credential)
            except DecryptionFailed:
                raise NotReady(f"The value of {credential.name} cannot be decrypted: set it again first.") from None
        kept = {field: getattr(row, field) for field in SERVER_FIELDS - {"name"}}
        clone = Server(tenant_id=row.tenant_id, slug=slug, name=name or f"{row.name} (copy)"[:120], **kept)
        place = {field: getattr(endpoint, field) for field in ENDPOINT_FIELDS}
        copy = Endpoint(tenant_id=row.tenant_id, server=clone, **place)
        admission.admit_connection(clone, copy, from_file=False)
        admission.check_input(clone, copy, values)
        _insert(clone, copy, values, event="server.cloned", details={"source": str(row.pk), "source_slug": row.slug})
    return clone


def _insert(
    server: Server,
    endpoint: Endpoint,
    values: Mapping[str, Mapping[str, str]],
    *,
    event: str = "server.registered",
    details: Mapping[str, Any] | None = None,
) -> None:
    authorise.require("server.write", tenant_id=server.tenant_id, kind="server", label=server.slug)
    same = Server.unscoped.filter(tenant_id=server.tenant_id, slug=server.slug)
    if same.exists():
        raise _taken(server.slug)
    try:
        with transaction.atomic():
            server.save(force_insert=True)
    except IntegrityError:
        # Somebody else's transaction took the slug between the question and the write.
        if same.exists():
            raise _taken(server.slug) from None
        raise
    endpoint.save(force_insert=True)
    for kind, named in values.items():
        for name, value in named.items():
            credential_store.store(server, kind, name, value)
    emit("server.registered", server=server)
    record(
        server,
        event,
        {
            "after": {
                "slug": server.slug,
                "builtin": server.builtin,
                "paused": server.paused,
                **loggable(describe(server, endpoint)),
            },
            "credentials": credential_store.names(server),
            **(details or {}),
        },
    )


def _refuse_unknown(fields: Mapping[str, Any]) -> None:
    known = SERVER_FIELDS | ENDPOINT_FIELDS | {"headers", "env"}
    errors = {field: ["There is no such field."] for field in fields if field not in known}
    if "slug" in errors:
        errors["slug"] = ["A slug stays: clients have it in their URLs and tool names. Clone the server under the new slug."]
    if errors:
        raise ValidationFailed(f"The server cannot be changed so: {summary(errors)}", errors=errors)


def _assign(server: Server, endpoint: Endpoint, fields: Mapping[str, Any]) -> None:
    if fields.get("transport", server.transport) != server.transport:
        # What the other kind of transport is reached by goes with it, unless it is given (and then refused).
        stale = {"url": ""} if fields["transport"] == admission.STDIO else {"command": "", "args": [], "cwd": ""}
        for field, empty in stale.items():
            setattr(endpoint, field, empty)
    for field, value in fields.items():
        if field in SERVER_FIELDS:
            setattr(server, field, value)
        elif field in ENDPOINT_FIELDS:
            setattr(endpoint, field, _list(value) if field == "args" else value)
    server.name = server.name or server.slug


def _plan_credentials(
    server: Server, values: Mapping[str, Mapping[str, str | None] | None]
) -> dict[str, credential_store.CredentialChange]:
    problems = Problems()
    changes = {kind: credential_store.plan(server, kind, named, problems) for kind, named in values.items()}
    problems.raise_if_any()
    # A URL has no environment and a command no headers: they go when the transport changes.
    other = changes["header" if server.transport == admission.STDIO else "env"]
    other.delete, other.kept = other.delete + other.kept, []
    return changes


def _keep_headers_home(change: credential_store.CredentialChange) -> None:
    if change.kept and not authorise.has_everything():
        names = ", ".join(sorted(row.name for row in change.kept))
        raise ValidationFailed(
            "The new URL is another origin, and stored headers are not sent there: give their values again.",
            errors={"headers": [f"Give the value again, or leave it out: {names}."]},
        )


def _taken(slug: str) -> Conflict:
    return Conflict(
        f"The slug {slug} is taken.", errors={"slug": ["A server or toolset of this tenant has this slug already."]}
    )


def _list(args: Any) -> Any:
    return list(args) if isinstance(args, tuple) else args
