"""Which store serves a configuration."""

from apps.audit.sink.config import SinkConfig
from apps.audit.sink.store import Store


def make_store(config: SinkConfig) -> Store:
    """Return a store that is not connected yet. Raises ValueError when the configuration names no database."""
    if config.postgres is not None:
        from apps.audit.sink.postgres import PostgresStore

        return PostgresStore(config.postgres)
    if config.sqlite is not None and config.locks is not None:
        from apps.audit.sink.sqlite import SqliteStore

        return SqliteStore(config.sqlite, config.locks)
    raise ValueError("a sink needs a SQLite file with a directory for locks, or a PostgreSQL database")
