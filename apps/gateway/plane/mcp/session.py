"""A legacy session's identity: an authenticated, encrypted token that any process can read; nothing is kept to serve it."""

import base64
import binascii
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from apps.common.crypto.keyring import DecryptionFailed, Keyring
from apps.common.errors import SwitchyardError
from apps.gateway.plane.mcp.endings import Ended
from apps.gateway.plane.mcp.lives import LeftBehind

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
    life: str = ""


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
    life: str = ""
    """Which life of the process began it; empty where several processes serve it."""


class SessionSealer:
    """Makes and reads session tokens. With what the life before `left` behind it is the only process, and knows its sessions by it."""

    def __init__(self, keyring: Keyring, left: LeftBehind | None = None) -> None:
        self._keyring = keyring.for_purpose(b"mcp-session")
        self._read: dict[str, Session] = {}
        self._ended = Ended(left.gone, left.floors) if left is not None else Ended()
        self._life = secrets.token_urlsafe(9) if left is not None else ""
        self._earlier: Mapping[str, int] | None = left.lives if left is not None else None

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
            life=self._life,
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
            or self._ended.holds(session.sid, principal, session.expires)
            or (session.life != self._life and self._earlier is not None and session.life not in self._earlier)
        ):
            raise SessionGone
        return session

    def end(self, sid: str, expires: int, principal: str) -> None:
        """Remember that a session was ended, until it would have expired."""
        self._ended.add(sid, expires, principal)

    def leave(self, gone: Mapping[str, int], seconds: int) -> LeftBehind | None:
        """Return what the next life of the process has to know: sessions that cannot go on beside the ended ones, and how long
        a session lives. None where several processes serve them.
        """
        if self._earlier is None:
            return None
        lives = {**self._earlier, self._life: int(time.time()) + seconds}
        return LeftBehind(lives, {**self._ended.known, **gone}, self._ended.floors)

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
        return Session(
            sealed.sid, sealed.principal, sealed.toolset, sealed.revision, sealed.expires, info, capabilities, sealed.life
        )


def _member(info: Any, name: str) -> str:
    value = info.get(name) if isinstance(info, dict) else None
    return value[:60] if isinstance(value, str) else ""
