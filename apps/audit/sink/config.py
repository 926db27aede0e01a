"""Where the log stands and what its limits are."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SinkConfig:
    """Either `sqlite` and `locks`, or `postgres`."""

    sqlite: Path | None = None
    """The log's own file; its tables must exist."""
    locks: Path | None = None
    """Directory of the files whose locks say which writers live; on a local disk."""
    postgres: str | None = field(default=None, repr=False)
    """libpq connection string; the session must be the server's own (no transaction pooler between)."""
    queue_limit: int = 20_000
    """Rows that may wait; then appends are refused."""
    batch_limit: int = 512
    """Rows of one commit, at most 512."""
    commit_limit: float = 2.0
    """Seconds after which a row that is not committed is refused."""
