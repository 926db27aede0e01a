"""AES-256-GCM under several keys: the newest encrypts, every one decrypts (NIST SP 800-38D)."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE = 12


class DecryptionFailed(Exception):
    """The bytes were not made by a key of this ring for this purpose, or were altered or moved."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key with its id (1 to 16 letters or digits)."""

    id: str
    secret: bytes


class Keyring:
    """Keys, newest first. A value is `key id length, key id, nonce, ciphertext and tag`."""

    def __init__(self, keys: Sequence[Key], *, purpose: bytes = b"") -> None:
        """Make a ring; each purpose gets keys of its own (HKDF-SHA-256, RFC 5869). Raises ValueError without keys."""
        if not keys:
            raise ValueError("A keyring needs at least one key.")
        self._keys = tuple(keys)
        self._ciphers = {key.id: AESGCM(derive(key.secret, b"aead:" + purpose)) for key in keys}
        self.newest = keys[0].id

    @classmethod
    def parse(cls, text: str, *, purpose: bytes = b"") -> "Keyring":
        """Read `id:base64url,id:base64url`, newest first, 32 bytes each. Raises ValueError."""
        keys = []
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            key_id, _, encoded = part.partition(":")
            if not key_id.isalnum() or len(key_id) > 16:
                raise ValueError("an encryption key needs an id of 1 to 16 letters or digits: id:base64url")
            try:
                secret = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
            except ValueError as error:
                raise ValueError(f"encryption key {key_id} is not base64url") from error
            if len(secret) != 32:
                raise ValueError(f"encryption key {key_id} has {len(secret)} bytes; 32 are needed")
            keys.append(Key(key_id, secret))
        if len({key.id for key in keys}) != len(keys):
            raise ValueError("two encryption keys share an id")
        return cls(keys, purpose=purpose)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Return the ids of the keys, newest first."""
        return tuple(key.id for key in self._keys)

    def for_purpose(self, purpose: bytes) -> "Keyring":
        """Return a ring of the same keys for another purpose."""
        return Keyring(self._keys, purpose=purpose)

    def seal(self, plaintext: bytes, *, associated: bytes) -> bytes:
        """Encrypt; `associated` (tenant, row, field) must be given again to open."""
        nonce = os.urandom(_NONCE)
        name = self.newest.encode()
        return bytes([len(name)]) + name + nonce + self._ciphers[self.newest].encrypt(nonce, plaintext, associated)

    def open(self, sealed: bytes, *, associated: bytes) -> bytes:
        """Decrypt; raises DecryptionFailed."""
        try:
            length = sealed[0]
            name = sealed[1 : 1 + length].decode("ascii")
            nonce = sealed[1 + length : 1 + length + _NONCE]
            return self._ciphers[name].decrypt(nonce, sealed[1 + length + _NONCE :], associated)
        except (IndexError, KeyError, UnicodeDecodeError, ValueError, InvalidTag) as error:
            raise DecryptionFailed("the value cannot be decrypted with the keys of this installation") from error

    def key_id(self, sealed: bytes) -> str:
        """Return the id of the key that a value was sealed with."""
        return sealed[1 : 1 + sealed[0]].decode("ascii", "replace") if sealed else ""


def derive(secret: bytes, info: bytes, length: int = 32) -> bytes:
    """Derive a key for one use from a secret (HKDF-SHA-256, RFC 5869)."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=b"switchyard:" + info).derive(secret)


def new_key_text(key_id: str) -> str:
    """Make a new key in the form that `parse` reads."""
    return f"{key_id}:{base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip('=')}"
