"""Credentials at rest: sealed with AES-GCM, bound to tenant, row and field; opened only to connect."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from uuid import UUID

from django.conf import settings

from apps.common import authorise
from apps.common.context import every_tenant
from apps.common.crypto.keyring import DecryptionFailed, Keyring
from apps.common.errors import NotFound, NotReady
from apps.common.events import ControlEvent
from apps.common.outbox import audit, unit_of_work
from apps.servers.domain import Secrets
from apps.servers.models import Credential, Server
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


def secrets_of(server_id: object) -> Secrets:
    """Return what a server's credentials decrypt to, for the connection that is about to be opened.

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
            try:
                values[credential.kind][credential.name] = unseal(credential)
            except DecryptionFailed:
                raise NotReady(
                    f"The {credential.get_kind_display().lower()} {credential.name} of {server.slug} cannot be decrypted with the "
                    "keys of this installation: set it again, or add the key it was made with to SWITCHYARD_ENCRYPTION_KEYS."
                ) from None
    return Secrets(headers=values["header"], env=values["env"])


@dataclass(slots=True)
class Reencryption:
    """How far a re-encryption has come."""

    total: int = 0
    """Credentials there are."""
    done: int = 0
    """Sealed anew with the newest key."""
    current: int = 0
    """Sealed with the newest key before."""
    replaced: int = 0
    """Set anew by somebody else meanwhile."""
    failed: list[str] = field(default_factory=list)
    """`<server>: <credential>` of those that no key opens."""


def reencrypt_all(*, batch: int = 200, progress: Callable[[Reencryption], None] | None = None) -> Reencryption:
    """Seal every credential with the newest key, while the product runs; only a superuser may.

    Each row is replaced by itself, and only if nobody has set it meanwhile, so it can be stopped and started again at any moment and
    every value stays readable throughout. `progress` is called after each `batch` rows.
    """
    authorise.require_superuser("server.admin", tenant_id=None, kind="server", label="all credentials")
    ring = keyring()
    state = Reencryption()
    with every_tenant():
        state.total = Credential.objects.count()
        last: UUID | None = None
        while True:
            rows = Credential.objects.select_related("server").order_by("pk")
            page = list((rows if last is None else rows.filter(pk__gt=last))[:batch])
            if not page:
                break
            last = page[-1].pk
            for credential in page:
                _reseal(ring, credential, state)
            if progress is not None:
                progress(state)
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


def _reseal(ring: Keyring, credential: Credential, state: Reencryption) -> None:
    before = bytes(credential.sealed)
    if ring.key_id(before) == ring.newest:
        state.current += 1
        return
    try:
        value = ring.open(before, associated=credential.associated)
    except DecryptionFailed:
        state.failed.append(f"{credential.server.slug}: {credential}")
        return
    sealed = ring.seal(value, associated=credential.associated)
    if Credential.objects.filter(pk=credential.pk, sealed=before).update(sealed=sealed):
        state.done += 1
    else:
        state.replaced += 1
