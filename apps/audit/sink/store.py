"""What the writer needs of a database, and how a database says no."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from apps.audit.domain import SEQ_BITS


class StoreFailed(Exception):
    """The database did not do it, or the connection was lost; what was under way may or may not be committed."""


class RowsRefused(Exception):
    """The database cannot hold the value of some row of the batch; nothing was written."""


@dataclass(slots=True)
class Head:
    """The end of one writer's chain, as the database has it."""

    writer: int
    seq: int
    digest: bytes
    open_from: int


@dataclass(slots=True)
class Batch:
    """Consecutive rows of one chain, to be committed together with the head they lead to."""

    writer: int
    start: int
    """The head's seq before."""
    seq: int = 0
    digest: bytes = b""
    open_from: int = 1
    previous: list[bytes] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    values: list[tuple[Any, ...]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def first_id(self) -> int:
        """Return the id of the first row."""
        return self.writer << SEQ_BITS | self.start + 1


class Store(Protocol):
    """A connection of the writer's own; used by one thread. Every method may raise StoreFailed."""

    def open(self) -> None:
        """Connect; locks that are held by files stay held."""
        ...

    def close(self) -> None:
        """Disconnect; never raises. Locks of a session go with it, locks of files stay."""
        ...

    def claim(self, wanted: int | None) -> int:
        """Lock `wanted` if nobody else has it, else the lowest writer whose lock is free; its head exists afterwards."""
        ...

    def try_lock(self, writer: int) -> bool:
        """Lock one writer if its lock is free."""
        ...

    def unlock(self, writer: int) -> None:
        """Give a writer's lock back; never raises."""
        ...

    def head(self, writer: int) -> Head:
        """Return a writer's head."""
        ...

    def heads(self) -> list[Head]:
        """Return every head."""
        ...

    def append(self, batch: Batch) -> None:
        """Commit a batch durably. Raises RowsRefused, StoreFailed (also when the head is not at `batch.start`)."""
        ...

    def append_relayed(self, batch: Batch, before: int, after: int) -> bool:
        """Commit a batch together with the relay's step from `before` to `after`; False (and nothing) if it is not at `before`."""
        ...

    def digest_of(self, event_id: int) -> bytes | None:
        """Return the digest of a committed row, or None."""
        ...

    def open_intents(self, writer: int, first: int, last: int) -> list[bytes]:
        """Return the bodies of the writer's intents from seq `first` to `last` for which there is no outcome."""
        ...

    def nothing_open(self, head: Head) -> None:
        """Note that no intent up to the head is open."""
        ...

    def probe(self, writer: int) -> None:
        """Find out, by a commit that changes nothing, whether the log can be written."""
        ...

    def interrupt(self) -> None:
        """Make what another thread has under way fail; called from another thread; never raises."""
        ...
