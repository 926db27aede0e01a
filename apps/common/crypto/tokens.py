"""API keys: made, read and digested."""

import hashlib
import re
import secrets
import string
from typing import NamedTuple

_FORM = re.compile(r"sy_([A-Za-z0-9]{8})_([A-Za-z0-9_-]{43,128})")
_ALPHABET = string.ascii_lowercase + string.digits


class NewKey(NamedTuple):
    """A key at the only moment at which it is known."""

    text: str
    prefix: str
    digest: bytes


def new_api_key() -> NewKey:
    """Make a key: `sy_<8 characters>_<256 random bits>`."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    text = f"sy_{prefix}_{secrets.token_urlsafe(32)}"
    return NewKey(text, prefix, digest_key(text))


def parse_prefix(text: str) -> str | None:
    """Return the public prefix of a key, or None when the text is not a key."""
    match = _FORM.fullmatch(text)
    return match.group(1) if match else None


def digest_key(text: str) -> bytes:
    """Return the SHA-256 digest under which a key is stored and looked up; 256 random bits need no salt."""
    return hashlib.sha256(text.encode()).digest()
