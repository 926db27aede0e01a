"""Small texts kept for each tenant, in a SQLite file of the server's own."""

import sqlite3
import threading
import time
from pathlib import Path

KEY_LENGTH = 128
VALUE_BYTES = 64 * 1024
KEYS_PER_TENANT = 1000
BYTES_PER_TENANT = 8 * 1024 * 1024


class StoreError(ValueError):
    """The store will not take or does not have it; the message says why."""


class ContextStore:
    """Keys and values, apart for each tenant: every statement names the tenant."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS context (tenant TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, size INTEGER NOT NULL,"
            " updated REAL NOT NULL, PRIMARY KEY (tenant, key)) WITHOUT ROWID"
        )

    def set(self, tenant: str, key: str, value: str) -> None:
        """Store a value; replaces what the key had. Raises StoreError over a limit."""
        _check_key(key)
        size = len(value.encode())
        if size > VALUE_BYTES:
            raise StoreError(f"The value has {size} bytes; {VALUE_BYTES} are allowed.")
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                others, used = self._connection.execute(
                    "SELECT count(*), coalesce(sum(size), 0) FROM context WHERE tenant = ? AND key <> ?", (tenant, key)
                ).fetchone()
                if others >= KEYS_PER_TENANT:
                    raise StoreError(f"The store holds {KEYS_PER_TENANT} keys, its limit. Delete some first.")
                if used + size > BYTES_PER_TENANT:
                    raise StoreError(f"The store would hold more than {BYTES_PER_TENANT} bytes, its limit. Delete some first.")
                self._connection.execute(
                    "INSERT INTO context (tenant, key, value, size, updated) VALUES (?, ?, ?, ?, ?)"
                    " ON CONFLICT (tenant, key) DO UPDATE SET value = excluded.value, size = excluded.size, updated = excluded.updated",
                    (tenant, key, value, size, time.time()),
                )
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def get(self, tenant: str, key: str) -> str:
        """Return a value. Raises StoreError when there is none."""
        _check_key(key)
        with self._lock:
            row = self._connection.execute("SELECT value FROM context WHERE tenant = ? AND key = ?", (tenant, key)).fetchone()
        if row is None:
            raise StoreError(f"There is nothing under {key}.")
        value: str = row[0]
        return value

    def keys(self, tenant: str, prefix: str) -> list[str]:
        """Return the keys that begin with a text, in order."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT key FROM context WHERE tenant = ? AND substr(key, 1, ?) = ? ORDER BY key", (tenant, len(prefix), prefix)
            ).fetchall()
        return [row[0] for row in rows]

    def delete(self, tenant: str, key: str) -> bool:
        """Delete a key; tells whether it was there."""
        _check_key(key)
        with self._lock:
            return self._connection.execute("DELETE FROM context WHERE tenant = ? AND key = ?", (tenant, key)).rowcount > 0


def _check_key(key: str) -> None:
    if not key or len(key) > KEY_LENGTH or not key.isprintable():
        raise StoreError(f"A key has 1 to {KEY_LENGTH} printable characters.")
