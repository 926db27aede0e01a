"""Who calls: a bearer key is looked up by its digest in the snapshot; refusals are counted and recorded."""

import time

from apps.accounts.domain import is_within
from apps.common.clock import now_us
from apps.common.crypto.tokens import digest_key, parse_prefix
from apps.common.errors import AuthenticationRequired
from apps.gateway.plane.guard import Guard
from apps.gateway.plane.http import Headers
from apps.gateway.plane.ports import Catchup
from apps.gateway.plane.snapshot import Caller, Snapshot
from apps.gateway.plane.store import SnapshotStore

_HOW = "Send Authorization: Bearer <API key>; keys are made in the console under API keys."
MISSES_KEPT = 4096
MISS_SECONDS = 2.0


class Authenticator:
    """Turns the Authorization header into a caller."""

    def __init__(self, store: SnapshotStore, guard: Guard, catchup: Catchup) -> None:
        self._store = store
        self._guard = guard
        self._catchup = catchup
        self._misses: dict[bytes, float] = {}

    async def authenticate(self, headers: Headers, address: str, passed_on: bool) -> tuple[Snapshot, Caller]:
        """Return the caller and the picture it stands in. Raises AuthenticationRequired."""
        text = headers.get(b"authorization")
        if text is None:
            raise AuthenticationRequired("No credential was sent. " + _HOW)
        scheme, _, key_text = text.partition(" ")
        key_text = key_text.strip()
        if scheme.lower() != "bearer" or parse_prefix(key_text) is None:
            raise AuthenticationRequired("The credential is not an API key of this installation. " + _HOW)
        digest = digest_key(key_text)
        snapshot = self._store.current
        caller = snapshot.caller_of_key(digest)
        if caller is None:
            snapshot, caller = await self._look_again(digest)
        key = caller.key
        if key is not None:
            if key.expires_us is not None and key.expires_us <= now_us():
                raise AuthenticationRequired("The API key has expired. Ask your operator for a new one.")
            if key.loopback_only and (passed_on or not self._guard.is_loopback(address)):
                raise AuthenticationRequired("This API key is accepted only on the machine that Switchyard runs on.")
            if key.networks and not is_within(address, key.networks):
                raise AuthenticationRequired(f"This API key is not accepted from {address or 'this address'}.")
        return snapshot, caller

    async def _look_again(self, digest: bytes) -> tuple[Snapshot, Caller]:
        """Wait for what was committed before this moment: a key made on another process works when its creation answers."""
        now = time.monotonic()
        missed = self._misses.get(digest)
        if missed is None or now - missed > MISS_SECONDS:
            await self._catchup.caught_up()
            snapshot = self._store.current
            caller = snapshot.caller_of_key(digest)
            if caller is not None:
                self._misses.pop(digest, None)
                return snapshot, caller
            if len(self._misses) >= MISSES_KEPT:
                self._misses.clear()
            self._misses[digest] = now
        raise AuthenticationRequired("The API key is unknown, revoked, or its owner is switched off. " + _HOW)
