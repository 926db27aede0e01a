"""The data plane's ports, implemented by services running in threads."""

import asyncio
from pathlib import Path

from django.db import close_old_connections

from apps.common.crypto.assertion import Signer
from apps.common.errors import NotReady, SwitchyardError
from apps.common.follower import OutboxFollower
from apps.gateway.plane.store import SnapshotStore
from apps.servers.domain import Secrets
from apps.servers.services.access import access_of

CATCH_UP_SECONDS = 1.0


class DatabaseVault:
    """Opens credentials; gives built-in servers what they need to trust our assertions."""

    def __init__(self, store: SnapshotStore, signer: Signer, home: Path) -> None:
        self._store = store
        self._signer = signer
        self._home = home

    async def secrets(self, server_id: str, user_id: str = "") -> Secrets:
        """Return a server's credentials. Raises NotReady, NotFound, PermissionDenied, UpstreamUnauthenticated."""
        secrets = await asyncio.to_thread(self._read, server_id, user_id)
        entry = self._store.current.servers.get(server_id)
        if entry is not None and entry.facts.builtin:
            return Secrets(
                headers=secrets.headers, env=secrets.env | builtin_environment(self._signer, self._home, entry.facts.slug)
            )
        return secrets

    def _read(self, server_id: str, user_id: str) -> Secrets:
        try:
            return access_of(server_id, user_id)
        except SwitchyardError:
            raise
        except Exception as error:
            raise NotReady("The credentials cannot be read: the database does not answer.") from error
        finally:
            close_old_connections()


def builtin_environment(signer: Signer, home: Path, slug: str) -> dict[str, str]:
    """Return the variables that a built-in server is started with."""
    return {
        "SWITCHYARD_BUILTIN_NAME": slug,
        "SWITCHYARD_BUILTIN_PUBLIC_KEY": signer.public_key,
        "SWITCHYARD_BUILTIN_HOME": str(home / "builtin" / slug),
    }


class FollowerCatchup:
    """Waits for the outbox follower; those who wait at once share one look at the database."""

    def __init__(self, follower: OutboxFollower) -> None:
        self._follower = follower
        self._waiting: asyncio.Task[bool] | None = None

    async def caught_up(self) -> bool:
        """Return whether everything committed before the call is in force; at most 1 s."""
        # A look that began before this call may have missed what was committed in between: wait for the one after it.
        if self._waiting is not None and not self._waiting.done():
            await asyncio.shield(self._waiting)
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.create_task(self._look())
        return await asyncio.shield(self._waiting)

    async def _look(self) -> bool:
        future = asyncio.wrap_future(self._follower.request_catch_up())
        try:
            return await asyncio.wait_for(future, CATCH_UP_SECONDS)
        except TimeoutError:
            return False
