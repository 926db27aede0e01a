"""What the gateway processes of one installation say to each other about sessions, and what they keep in common while a session lives."""

from collections.abc import Callable, Mapping
from typing import Protocol

Handler = Callable[[str, bytes], None]
"""Gets the sender's name and the message; returns at once. A message comes once or, when the bus was down, never."""


class Bus(Protocol):
    """Messages between processes, and small values with an expiry. What is lost with it is what the sessions lose: nothing of the
    audit log, of the registry or of anybody's rights goes over it. Methods that do not wait never raise.
    """

    worker: str
    """This process's name on it: 8 characters."""
    alone: bool
    """There are no other processes: what is kept in common is kept in this one's memory anyway."""

    def on(self, topic: str, handler: Handler) -> None:
        """Take the messages of a topic."""

    def on_reset(self, handler: Callable[[], None]) -> None:
        """Be told that messages may have been missed: the connection is new."""

    def tell(self, topic: str, message: bytes, worker: str | None = None) -> None:
        """Say something to one process, or to all others; it does not wait, and nobody learns whether it arrived."""

    async def send(self, worker: str, topic: str, message: bytes) -> bool:
        """Say something to one process; False when it is not there (any more), or the bus is down."""
        ...

    async def alive(self, worker: str) -> bool:
        """Tell whether a process is there; True while that cannot be found out."""
        ...

    def put(self, space: str, key: str, value: bytes, seconds: int) -> None:
        """Keep a value for all processes."""

    def drop(self, space: str, key: str) -> None:
        """Keep it no longer."""

    def put_in(self, space: str, key: str, field: str, value: bytes, seconds: int) -> None:
        """Keep a value among those of a key, which all expire together."""

    def drop_from(self, space: str, key: str, field: str) -> None:
        """Keep it no longer."""

    async def within(self, space: str, key: str) -> Mapping[str, bytes]:
        """Return the values of a key by field; none when there are none or the bus is down."""
        ...

    async def every(self, space: str) -> Mapping[str, bytes]:
        """Return all values of a space, as far as the bus knows them."""
        ...


class NoBus:
    """The bus of an installation with one process."""

    worker = "00000000"
    alone = True

    def on(self, topic: str, handler: Handler) -> None:
        """See Bus."""

    def on_reset(self, handler: Callable[[], None]) -> None:
        """See Bus."""

    def tell(self, topic: str, message: bytes, worker: str | None = None) -> None:
        """See Bus."""

    async def send(self, worker: str, topic: str, message: bytes) -> bool:
        """See Bus."""
        return False

    async def alive(self, worker: str) -> bool:
        """See Bus."""
        return worker == self.worker

    def put(self, space: str, key: str, value: bytes, seconds: int) -> None:
        """See Bus."""

    def drop(self, space: str, key: str) -> None:
        """See Bus."""

    def put_in(self, space: str, key: str, field: str, value: bytes, seconds: int) -> None:
        """See Bus."""

    def drop_from(self, space: str, key: str, field: str) -> None:
        """See Bus."""

    async def within(self, space: str, key: str) -> Mapping[str, bytes]:
        """See Bus."""
        return {}

    async def every(self, space: str) -> Mapping[str, bytes]:
        """See Bus."""
        return {}
