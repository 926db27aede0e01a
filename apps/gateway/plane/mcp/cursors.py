"""Cursors of lists: sealed, and good for the caller, the place and the list that gave them alone."""

import base64
import binascii

import msgspec

from apps.common.crypto.keyring import DecryptionFailed, Keyring
from apps.common.errors import ValidationFailed
from apps.gateway.plane.snapshot import Caller
from apps.gateway.plane.views import Place, Target

LONGEST = 8_192 * 6
"""Characters of a cursor: names of resources are URIs of up to 8,192 characters."""


class Cursors:
    """Writes and reads them."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring.for_purpose(b"cursor")

    def write(self, place: Place, caller: Caller, target: Target, method: str) -> str:
        """Return the cursor that leads on from a place."""
        sealed = self._keyring.seal(msgspec.msgpack.encode(place), associated=_associated(caller, target, method))
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def read(self, cursor: object, caller: Caller, target: Target, method: str) -> Place | None:
        """Return the place that a cursor leads on from; None without one. Raises ValidationFailed for one that is not this list's."""
        if cursor is None:
            return None
        try:
            if not isinstance(cursor, str) or len(cursor) > LONGEST:
                raise ValueError
            sealed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            opened = self._keyring.open(sealed, associated=_associated(caller, target, method))
            place: Place = msgspec.msgpack.decode(opened, type=Place)
        except (DecryptionFailed, binascii.Error, ValueError, msgspec.DecodeError):
            raise ValidationFailed("The cursor is not one that this list gave you. Start again without a cursor.") from None
        return place


def _associated(caller: Caller, target: Target, method: str) -> bytes:
    return "\x00".join((caller.principal.kind, caller.principal.id, target.tenant_id, target.slug, method)).encode()
