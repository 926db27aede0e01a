"""A legacy session's identity: an authenticated, encrypted token that any process can read; nothing is kept to serve it."""

import base64
import binascii
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from apps.common.crypto.keyring import DecryptionFailed, Keyring
from apps.common.errors import SwitchyardError

MAX_TOKEN = 2048
SESSIONS_REMEMBERED = 8192
_ASSOCIATED = b"mcp-session:1"


class SessionGone(SwitchyardError):
    """Unknown, ended, expired or somebody else's session: the client initializes again."""

    slug, title, status, jsonrpc_code = "session-gone", "The session is unknown or has ended; initialize again", 404, -32600


class _Sealed(msgspec.Struct, array_like=True):
    sid: str
    principal: str
    toolset: str
    revision: str
    expires: int
    client: tuple[str, str]
    capabilities: bytes


@dataclass(slots=True)
class Session:
    """What a session token says."""

    sid: str
    """16 random characters: its name in logs and in the audit log; of no use to an attacker."""
    principal: str
    toolset: str
    revision: str
    expires: int
    """Seconds since the epoch."""
    client_info: dict[str, Any]
    """The client's name and version, as it gave them."""
    capabilities: dict[str, Any] = field(default_factory=dict)


class SessionSealer:
    """Makes and reads session tokens."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring.for_purpose(b"mcp-session")
        self._read: dict[str, Session] = {}
        self._ended: dict[str, int] = {}

    def issue(
        self, *, principal: str, toolset: str, revision: str, client_info: Any, capabilities: dict[str, Any], seconds: int
    ) -> str:
        """Return a token of at most 2,048 characters; capabilities that do not fit are left out."""
        raw = msgspec.json.encode(capabilities)
        if len(raw) > 900:
            raw = msgspec.json.encode({name: {} for name in list(capabilities)[:16] if len(name) <= 40})
        sealed = _Sealed(
            sid=secrets.token_urlsafe(12),
            principal=principal,
            toolset=toolset,
            revision=revision,
            expires=int(time.time()) + seconds,
            client=(_member(client_info, "name"), _member(client_info, "version")),
            capabilities=raw,
        )
        token = self._keyring.seal(msgspec.msgpack.encode(sealed), associated=_ASSOCIATED)
        return base64.urlsafe_b64encode(token).decode().rstrip("=")

    def open(self, token: str, *, principal: str, toolset: str) -> Session:
        """Return the session if it is this principal's, for this toolset, not expired, not ended. Raises SessionGone."""
        session = self._read.get(token)
        if session is None:
            session = self._decrypt(token)
            if len(self._read) >= SESSIONS_REMEMBERED:
                self._read.clear()
            self._read[token] = session
        if (
            session.principal != principal
            or session.toolset != toolset
            or session.expires <= time.time()
            or session.sid in self._ended
        ):
            raise SessionGone
        return session

    def end(self, sid: str, expires: int) -> None:
        """Remember that a session was ended, until it would have expired."""
        now = int(time.time())
        if len(self._ended) > SESSIONS_REMEMBERED:
            self._ended = {sid: expires for sid, expires in self._ended.items() if expires > now}
        self._ended[sid] = expires

    def _decrypt(self, token: str) -> Session:
        if len(token) > MAX_TOKEN:
            raise SessionGone
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            sealed = msgspec.msgpack.decode(self._keyring.open(raw, associated=_ASSOCIATED), type=_Sealed)
            capabilities = msgspec.json.decode(sealed.capabilities)
        except (binascii.Error, ValueError, DecryptionFailed, msgspec.MsgspecError):
            raise SessionGone from None
        name, version = sealed.client
        info = {"name": name, "version": version} if name else {}
        return Session(sealed.sid, sealed.principal, sealed.toolset, sealed.revision, sealed.expires, info, capabilities)


def _member(info: Any, name: str) -> str:
    value = info.get(name) if isinstance(info, dict) else None
    return value[:60] if isinstance(value, str) else ""
