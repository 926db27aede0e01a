"""The rows behind the broker: put, lease, delete, release.

A lease is taken by one conditional UPDATE, so no message has two holders. Leases that a dead process left behind run out, or
are returned at once by `recover` when the next worker starts.
"""

import logging
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import psutil
from django.db import Error, connections, transaction

from apps.common.clock import monotonic, now
from apps.common.queue.bell import bell
from apps.common.queue.connection import ALIAS, CHANNEL, private_connection

log = logging.getLogger(__name__)

LEASE_SECONDS = 120.0
RENEW_SECONDS = 30.0
MAX_DELIVERIES = 10
"""A message delivered this often without an acknowledgement is put aside: it may be what ends the process."""
DEAD = ".dead"
"""Suffix of the queue in which such messages are kept."""

_INSERT = "INSERT INTO common_queuemessage (queue, body, lease_owner, deliveries, created_at) VALUES (%s, %s, '', 0, %s)"
_INSERT_AND_NOTIFY = """
    WITH message AS (
        INSERT INTO common_queuemessage (queue, body, lease_owner, deliveries, created_at) VALUES (%s, %s, '', 0, %s) RETURNING id
    ) SELECT pg_notify(%s, id::text) FROM message"""
_OLDEST = "SELECT id FROM common_queuemessage WHERE queue = %s AND leased_until IS NULL ORDER BY id LIMIT 1"
_TAKE = """
    UPDATE common_queuemessage SET leased_until = %s, lease_owner = %s, deliveries = deliveries + 1
    WHERE id = %s AND leased_until IS NULL RETURNING id, body, deliveries"""
_TAKE_OLDEST = """
    UPDATE common_queuemessage SET leased_until = %s, lease_owner = %s, deliveries = deliveries + 1
    WHERE id = (
        SELECT id FROM common_queuemessage WHERE queue = %s AND leased_until IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
    ) RETURNING id, body, deliveries"""
_DELETE = "DELETE FROM common_queuemessage WHERE id = %s AND lease_owner = %s"
_RELEASE = """
    UPDATE common_queuemessage SET leased_until = NULL, lease_owner = '', deliveries = deliveries - 1
    WHERE id = %s AND lease_owner = %s"""
_RENEW = "UPDATE common_queuemessage SET leased_until = %s WHERE id = %s AND lease_owner = %s"
_FREE_EXPIRED = "UPDATE common_queuemessage SET leased_until = NULL, lease_owner = '' WHERE leased_until < %s"
_FREE_OWNED = "UPDATE common_queuemessage SET leased_until = NULL, lease_owner = '' WHERE lease_owner = %s"
_OWNERS = "SELECT DISTINCT lease_owner FROM common_queuemessage WHERE leased_until IS NOT NULL"
_PUT_ASIDE = "UPDATE common_queuemessage SET queue = %s, leased_until = NULL, lease_owner = '' WHERE id = %s"
_SIZE = "SELECT count(*) FROM common_queuemessage WHERE queue = %s AND leased_until IS NULL"
_PURGE = "DELETE FROM common_queuemessage WHERE queue = %s AND leased_until IS NULL"


class Lease(NamedTuple):
    """A message that this process holds."""

    id: int
    body: str


@lru_cache(maxsize=1)
def _owner_of(pid: int) -> str:
    return f"{socket.gethostname()[:36]}/{pid}/{int(psutil.Process(pid).create_time())}"


def owner() -> str:
    """Return the name under which this process holds leases: host, process id and when the process began."""
    return _owner_of(os.getpid())


def owner_lives(name: str) -> bool:
    """Tell whether the process that holds leases under `name` may still run; of other hosts we cannot know."""
    host, _, rest = name.rpartition("/")[0].rpartition("/")
    created = name.rpartition("/")[2]
    if host != socket.gethostname()[:36]:
        return True
    try:
        # the time is reckoned from the machine's start, which moves by a second or two when its clock is set
        return abs(int(psutil.Process(int(rest)).create_time()) - int(created)) <= 2
    except (psutil.Error, ValueError):
        return False


class QueueStore:
    """The queue's table, through one connection that the threads of this process take turns with."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._connection: Any = None
        self._held: set[int] = set()
        self._maintained = 0.0

    def put(self, queue: str, body: str) -> None:
        """Add a message. It joins the transaction that the calling thread has open; otherwise it is committed at once."""
        mine = connections[ALIAS]
        if mine.connection is None:
            with self._cursor() as (connection, cursor):
                self._insert(connection, cursor, queue, body)
            bell.ring()
            return
        with mine.cursor() as cursor:
            self._insert(mine, cursor, queue, body)
        transaction.on_commit(bell.ring, using=ALIAS)

    def lease(self, queue: str) -> Lease | None:
        """Take the oldest message that nobody holds, for `LEASE_SECONDS`; None when there is none."""
        while True:
            found = self._take(queue)
            if found is None:
                return None
            message_id, body, deliveries = found
            if deliveries > MAX_DELIVERIES:
                self._put_aside(message_id, queue)
                continue
            with self._lock:
                self._held.add(message_id)
            return Lease(message_id, body)

    def delete(self, message_id: int) -> bool:
        """Remove a message that is done with; False when the lease was lost and somebody else may have it."""
        with self._lock:
            self._held.discard(message_id)
        with self._cursor() as (_, cursor):
            cursor.execute(_DELETE, [message_id, owner()])
            done: bool = cursor.rowcount == 1
        if not done:
            log.warning("The lease of message %d was lost before it was acknowledged.", message_id)
        return done

    def release(self, message_ids: Iterable[int]) -> None:
        """Give messages back unread: anyone may take them at once, and it does not count as a delivery."""
        wanted = list(message_ids)
        if not wanted:
            return
        with self._lock:
            self._held.difference_update(wanted)
        with self._cursor() as (_, cursor):
            cursor.executemany(_RELEASE, [(message_id, owner()) for message_id in wanted])
        bell.ring()

    def maintain(self) -> None:
        """Renew the leases held here and free those that ran out; does something every `RENEW_SECONDS`."""
        if monotonic() - self._maintained < RENEW_SECONDS:
            return
        with self._cursor() as (connection, cursor):
            with self._lock:
                held = tuple(self._held)
            if held:
                cursor.executemany(_RENEW, [(self._until(connection), message_id, owner()) for message_id in held])
            cursor.execute(_FREE_EXPIRED, [connection.ops.adapt_datetimefield_value(now())])
        self._maintained = monotonic()

    def recover(self, *, alone: bool) -> int:
        """Free what dead processes hold; `alone` says that no other process can be consuming. Returns how many leases."""
        with self._cursor() as (_, cursor):
            cursor.execute(_OWNERS)
            holders = [name for (name,) in cursor.fetchall()]
        freed = 0
        for name in holders:
            if name != owner() and (alone or not owner_lives(name)):
                with self._cursor() as (_, cursor):
                    cursor.execute(_FREE_OWNED, [name])
                    freed += cursor.rowcount
        if freed:
            bell.ring()
        return freed

    def size(self, queue: str) -> int:
        """Return how many messages wait, leased ones not counted."""
        with self._cursor() as (_, cursor):
            cursor.execute(_SIZE, [queue])
            return int(cursor.fetchone()[0])

    def purge(self, queue: str) -> int:
        """Remove every message that nobody holds; returns how many."""
        with self._cursor() as (_, cursor):
            cursor.execute(_PURGE, [queue])
            return int(cursor.rowcount)

    def close(self) -> None:
        """Give back what this process holds and close the connection; the next use opens it again."""
        with self._lock:
            held = list(self._held)
            try:
                self.release(held)
            finally:
                self._close()

    def _take(self, queue: str) -> tuple[int, str, int] | None:
        with self._cursor() as (connection, cursor):
            if connection.vendor == "postgresql":
                cursor.execute(_TAKE_OLDEST, [self._until(connection), owner(), queue])
                oldest: tuple[int, str, int] | None = _first(cursor)
                return oldest
            while True:
                # looking first, as an UPDATE takes SQLite's write lock even where it finds nothing
                cursor.execute(_OLDEST, [queue])
                candidate = _first(cursor)
                if candidate is None:
                    return None
                cursor.execute(_TAKE, [self._until(connection), owner(), candidate[0]])
                taken: tuple[int, str, int] | None = _first(cursor)
                if taken is not None:
                    return taken

    def _put_aside(self, message_id: int, queue: str) -> None:
        aside = queue + DEAD
        log.error("Message %d was delivered %d times without an end; it is kept in %s.", message_id, MAX_DELIVERIES, aside)
        with self._cursor() as (_, cursor):
            cursor.execute(_PUT_ASIDE, [aside, message_id])

    @staticmethod
    def _insert(connection: Any, cursor: Any, queue: str, body: str) -> None:
        values = [queue, body, connection.ops.adapt_datetimefield_value(now())]
        if connection.vendor == "postgresql":
            cursor.execute(_INSERT_AND_NOTIFY, [*values, CHANNEL])
        else:
            cursor.execute(_INSERT, values)

    @staticmethod
    def _until(connection: Any) -> Any:
        return connection.ops.adapt_datetimefield_value(now() + timedelta(seconds=LEASE_SECONDS))

    @contextmanager
    def _cursor(self) -> Iterator[tuple[Any, Any]]:
        with self._lock:
            if self._connection is not None and self._connection.settings_dict["NAME"] != connections.settings[ALIAS]["NAME"]:
                self._close()
            if self._connection is None:
                self._connection = private_connection("queue")
            try:
                with self._connection.cursor() as cursor:
                    yield self._connection, cursor
            except Error:
                self._close()
                raise

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _first(cursor: Any) -> Any:
    """Return the first row. All are fetched: SQLite commits an UPDATE … RETURNING only when its last row was read."""
    rows = cursor.fetchall()
    return rows[0] if rows else None


store = QueueStore()
"""The store of this process."""
