"""Signed, short-lived assertions that tell a built-in server for whom it works (Ed25519, RFC 8032)."""

import base64
import binascii
import json
import time
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from apps.common.crypto.keyring import derive

LIFETIME = 60
"""Seconds for which an assertion holds."""
META_KEY = "switchyard/assertion"
"""Member of `_meta` that carries it."""


class AssertionRefused(Exception):
    """The assertion is missing, malformed, expired, for somebody else, or not signed by this installation."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """For whom a built-in server works."""

    tenant: str
    principal: str
    toolset: str
    call_id: str
    audience: str
    """The built-in server's slug."""
    expires: int
    """Seconds since the epoch."""


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Signer:
    """Signs for this installation; every process of it derives the same key."""

    def __init__(self, secret: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(derive(secret.encode(), b"assertion"))

    @property
    def public_key(self) -> str:
        """Return what a verifier needs."""
        return _encode(self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def sign(self, *, tenant: str, principal: str, toolset: str, call_id: str, audience: str) -> str:
        """Return the compact token `payload.signature`; valid for 60 s."""
        payload = json.dumps(
            {"t": tenant, "p": principal, "s": toolset, "c": call_id, "a": audience, "e": int(time.time()) + LIFETIME},
            separators=(",", ":"),
        ).encode()
        return f"{_encode(payload)}.{_encode(self._key.sign(payload))}"


class Verifier:
    """Reads assertions made for one audience."""

    def __init__(self, public_key: str, audience: str) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(_decode(public_key))
        self._audience = audience

    def verify(self, token: object) -> Assertion:
        """Return what the token says. Raises AssertionRefused."""
        if not isinstance(token, str) or len(token) > 4096:
            raise AssertionRefused("This server works only behind Switchyard: the call carries no assertion.")
        body, _, signature = token.partition(".")
        try:
            payload = _decode(body)
            self._key.verify(_decode(signature), payload)
            facts = json.loads(payload)
            assertion = Assertion(facts["t"], facts["p"], facts["s"], facts["c"], facts["a"], facts["e"])
        except (InvalidSignature, binascii.Error, ValueError, KeyError, TypeError):
            raise AssertionRefused("The assertion was not made by this installation of Switchyard.") from None
        if assertion.audience != self._audience:
            raise AssertionRefused("The assertion is for another server.")
        if assertion.expires < time.time():
            raise AssertionRefused("The assertion has expired.")
        return assertion
