"""The bridges of the data plane: what it needs from outside, injected by the composition root."""

from typing import Protocol

from apps.servers.domain import Secrets


class Vault(Protocol):
    """Decrypts a server's credentials, in a thread, when a connection is opened."""

    async def secrets(self, server_id: str) -> Secrets:
        """Return the credentials; raises NotReady when the database does not answer."""
        ...


class Facts(Protocol):
    """Takes what the data plane learned to the control plane; never waits, never raises, drops repeats."""

    def list_changed(self, server_id: str, kind: str) -> None:
        """A server announced a change: discover it again."""

    def era_found(self, endpoint_id: str, era: str, revisions: tuple[str, ...]) -> None:
        """Remember an endpoint's era."""

    def key_used(self, key_id: str, address: str, client: str) -> None:
        """Remember when, from where and by which client a key was last used."""

    def endpoint_state(self, endpoint_id: str, state: str, reason: str) -> None:
        """A call reached the endpoint, or could not."""


class Catchup(Protocol):
    """Lets a caller wait until this process has applied everything that was committed before the question."""

    async def caught_up(self) -> bool:
        """Apply what is new; False when the database does not answer. At most 1 s."""
        ...


class AssertionSigner(Protocol):
    """Signs the short-lived assertion that built-in servers receive in `_meta`."""

    def sign(self, *, tenant: str, principal: str, toolset: str, call_id: str, audience: str) -> str:
        """Return the compact token; valid for 60 s."""
        ...
