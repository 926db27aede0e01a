"""The keys that sign checkpoints (Ed25519, RFC 8032): the first signs, all of them verify."""

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_PUBLIC = "public:"


class CheckpointKeys:
    """Keys of one installation. A key's id is the beginning of the SHA-256 of its public half, so it cannot be given to another."""

    def __init__(self, signer: Ed25519PrivateKey | None, verifiers: Mapping[str, Ed25519PublicKey]) -> None:
        self._signer = signer
        self._verifiers = dict(verifiers)
        self.newest = key_id(signer.public_key()) if signer is not None else ""
        """The id of the key that signs; empty where there are public halves alone."""

    @classmethod
    def parse(cls, text: str) -> "CheckpointKeys":
        """Read base64url keys of 32 bytes between commas, newest first; `public:` marks the public half of an old one.

        Raises ValueError, also when the first is not a private key.
        """
        parts = [part.strip() for part in text.replace("\n", ",").split(",") if part.strip()]
        if not parts or parts[0].startswith(_PUBLIC):
            raise ValueError("the first key must be a private one: 32 bytes in base64url")
        signer = Ed25519PrivateKey.from_private_bytes(_bytes(parts[0]))
        publics = [signer.public_key()]
        for part in parts[1:]:
            if part.startswith(_PUBLIC):
                publics.append(public_key(part))
            else:
                publics.append(Ed25519PrivateKey.from_private_bytes(_bytes(part)).public_key())
        return cls(signer, {key_id(public): public for public in publics})

    @classmethod
    def trusting(cls, texts: Iterable[str]) -> "CheckpointKeys":
        """Return keys that verify alone, from public halves kept elsewhere. Raises ValueError."""
        publics = [public_key(text) for text in texts]
        return cls(None, {key_id(public): public for public in publics})

    @property
    def published(self) -> dict[str, str]:
        """Return the public halves as base64url by id, the signing one first."""
        return {name: _text(public) for name, public in self._verifiers.items()}

    def sign(self, payload: bytes) -> str:
        """Return the signature of the newest key as base64url. Raises ValueError when there is no private key."""
        if self._signer is None:
            raise ValueError("there is no key to sign with")
        return _encode(self._signer.sign(payload))

    def knows(self, name: str) -> bool:
        """Tell whether a key of this id is among them."""
        return name in self._verifiers

    def verifies(self, name: str, payload: bytes, signature: str) -> bool:
        """Tell whether the key of this id made the signature."""
        public = self._verifiers.get(name)
        if public is None:
            return False
        try:
            public.verify(base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)), payload)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


def new_checkpoint_key() -> str:
    """Make a private key in the form that `parse` reads."""
    return _encode(os.urandom(32))


def key_id(public: Ed25519PublicKey) -> str:
    """Return the id of a key: 16 hexadecimal digits."""
    return hashlib.sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def public_key(text: str) -> Ed25519PublicKey:
    """Read a public half, with or without `public:` before it. Raises ValueError."""
    return Ed25519PublicKey.from_public_bytes(_bytes(text.strip().removeprefix(_PUBLIC)))


def _bytes(text: str) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a key is not base64url") from None
    if len(raw) != 32:
        raise ValueError(f"a key has {len(raw)} bytes; 32 are needed")
    return raw


def _text(public: Ed25519PublicKey) -> str:
    return _encode(public.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
