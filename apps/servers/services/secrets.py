"""Credentials at rest: sealed with AES-GCM, bound to tenant, row and field; opened only to connect."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.conf import settings

from apps.common import authorise
from apps.common.context import every_tenant
from apps.common.crypto.keyring import DecryptionFailed, Keyring
from apps.common.errors import NotFound, NotReady
from apps.common.events import ControlEvent
from apps.common.outbox import audit, unit_of_work
from apps.servers.domain import Secrets
from apps.servers.models import Credential, OAuthClient, OAuthConnection, Server
from apps.servers.services import stdio_gate


@lru_cache(maxsize=4)
def _ring(text: str) -> Keyring:
    return Keyring.parse(text).for_purpose(b"credentials")


def keyring() -> Keyring:
    """Return the ring that seals credentials."""
    return _ring(settings.SWITCHYARD.encryption_keys)


def seal(credential: Credential, value: str) -> None:
    """Put an encrypted value into a row that has its id and tenant already."""
    credential.sealed = keyring().seal(value.encode(), associated=credential.associated)


def unseal(credential: Credential) -> str:
    """Return a credential's value; raises DecryptionFailed."""
    return keyring().open(bytes(credential.sealed), associated=credential.associated).decode()


def stored_headers(server: Server) -> dict[str, str]:
    """Return the headers stored for a server that is reached by OAuth: all but `Authorization`, which is the token's. Raises NotReady."""
    found = {row.name: _opened(server, row) for row in Credential.unscoped.filter(server=server, kind=Credential.Kind.HEADER)}
    return {name: value for name, value in found.items() if name.lower() != "authorization"}


def _opened(server: Server, credential: Credential) -> str:
    try:
        return unseal(credential)
    except DecryptionFailed:
        raise NotReady(
            f"The {credential.get_kind_display().lower()} {credential.name} of {server.slug} cannot be decrypted with the "
            "keys of this installation: set it again, or add the key it was made with to SWITCHYARD_ENCRYPTION_KEYS."
        ) from None


def secrets_of(server_id: object) -> Secrets:
    """Return what a server's credentials decrypt to; `access.access_of` adds its token, where it is reached by OAuth.

    Every way to a server passes here, so a command that may no longer be started (SWITCHYARD_STDIO) is refused here as well.
    Raises NotFound, PermissionDenied, and NotReady when a value cannot be decrypted with the keys of this installation.
    """
    with every_tenant():
        server = Server.objects.filter(pk=server_id).prefetch_related("credentials", "endpoints").first()
        if server is None:
            raise NotFound("No such server.")
        if server.transport == Server.Transport.STDIO:
            for endpoint in server.endpoints.all():
                stdio_gate.check_start(from_file=endpoint.from_file)
        values: dict[str, dict[str, str]] = {"header": {}, "env": {}}
        for credential in server.credentials.all():
            values[credential.kind][credential.name] = _opened(server, credential)
    return Secrets(headers=values["header"], env=values["env"])


SEALED: tuple[tuple[Any, str], ...] = (
    (Credential, "sealed"),
    (OAuthClient, "sealed"),
    (OAuthConnection, "access"),
    (OAuthConnection, "refresh"),
)
"""What is sealed with this ring and stays; verifiers of pending authorizations live for minutes."""


@dataclass(slots=True)
class Reencryption:
    """How far a re-encryption has come."""

    total: int = 0
    """Values there are: credentials, secrets of OAuth clients, tokens of connections."""
    done: int = 0
    """Sealed anew with the newest key."""
    current: int = 0
    """Sealed with the newest key before."""
    replaced: int = 0
    """Set anew by somebody else meanwhile."""
    failed: list[str] = field(default_factory=list)
    """`<server>: <credential>` of those that no key opens."""


def reencrypt_all(*, batch: int = 200, progress: Callable[[Reencryption], None] | None = None) -> Reencryption:
    """Seal every credential and token with the newest key, while the product runs; only a superuser may.

    Each row is replaced by itself, and only if nobody has set it meanwhile, so it can be stopped and started again at any moment and
    every value stays readable throughout. `progress` is called after each `batch` rows.
    """
    authorise.require_superuser("server.admin", tenant_id=None, kind="server", label="all credentials")
    ring = keyring()
    state = Reencryption()
    with every_tenant():
        state.total = sum(model.objects.exclude(**{name: None}).count() for model, name in SEALED)
        for model, name in SEALED:
            _reseal_all(ring, model, name, state, batch=batch, progress=progress)
        with unit_of_work():
            audit(
                ControlEvent(
                    event_type="credential.reencrypted",
                    action="server.admin",
                    object_kind="server",
                    object_label="all credentials",
                    outcome="failed" if state.failed else "ok",
                    details={
                        "key": ring.newest,
                        "total": state.total,
                        "reencrypted": state.done,
                        "current": state.current,
                        "failed": state.failed[:100],
                    },
                )
            )
    return state


def _reseal_all(
    ring: Keyring, model: Any, name: str, state: Reencryption, *, batch: int, progress: Callable[[Reencryption], None] | None
) -> None:
    last: UUID | None = None
    while True:
        rows = model.objects.exclude(**{name: None}).order_by("pk")
        page = list((rows if last is None else rows.filter(pk__gt=last))[:batch])
        if not page:
            return
        last = page[-1].pk
        for row in page:
            _reseal(ring, row, name, state)
        if progress is not None:
            progress(state)


def _reseal(ring: Keyring, row: Any, name: str, state: Reencryption) -> None:
    before = bytes(getattr(row, name))
    if ring.key_id(before) == ring.newest:
        state.current += 1
        return
    associated = row.associated(name) if callable(row.associated) else row.associated
    try:
        value = ring.open(before, associated=associated)
    except DecryptionFailed:
        owner = row.server.slug if row.server is not None else row.issuer
        state.failed.append(f"{owner}: {row}")
        return
    sealed = ring.seal(value, associated=associated)
    if type(row).objects.filter(**{"pk": row.pk, name: before}).update(**{name: sealed}):
        state.done += 1
    else:
        state.replaced += 1
