"""The kombu transport `switchyard-db://` (a virtual transport: exchanges are kept in memory, queues are rows)."""
# mypy: allow-untyped-calls

from collections.abc import Callable
from queue import Empty
from typing import Any

from django.db import DatabaseError, InterfaceError, connections
from kombu.transport import virtual
from kombu.utils.json import dumps, loads

from apps.common.clock import monotonic
from apps.common.queue.bell import Listener, bell
from apps.common.queue.connection import ALIAS
from apps.common.queue.store import store

POLL_SECONDS = 0.25
"""How often a consumer looks on SQLite: other processes cannot wake it."""
LISTEN_POLL_SECONDS = 2.0
"""The same on PostgreSQL, where NOTIFY wakes it."""


class QoS(virtual.QoS):
    """Acknowledges by deleting the row, gives unread messages back by ending their leases."""

    def ack(self, delivery_tag: str) -> None:
        """Delete the message; a failure leaves it to its lease, and another worker."""
        try:
            store.delete(int(delivery_tag))
        finally:
            super().ack(delivery_tag)
            bell.ring()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Delete the message or, with `requeue`, let anyone take it."""
        try:
            if requeue:
                store.release([int(delivery_tag)])
            else:
                store.delete(int(delivery_tag))
        finally:
            super().ack(delivery_tag)
            bell.ring()

    def restore_unacked(self) -> list[Any]:
        """Give back every message that was delivered and not acknowledged."""
        self._flush()
        store.release([int(tag) for tag in self._delivered])
        self._delivered.clear()
        return []


class Channel(virtual.Channel):
    """A channel over the queue's table."""

    QoS = QoS
    body_encoding = "utf-8"
    supports_fanout = False

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        store.put(queue, dumps(message))

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        lease = store.lease(queue)
        if lease is None:
            raise Empty
        payload: dict[str, Any] = loads(lease.body)
        payload["properties"]["delivery_tag"] = str(lease.id)
        return payload

    def _size(self, queue: str) -> int:
        return store.size(queue)

    def _purge(self, queue: str) -> int:
        return store.purge(queue)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Return the next message, or None; without acknowledgements it is deleted as it is handed out."""
        message = super().basic_get(queue, no_ack=False, **kwargs)
        if message is not None and no_ack:
            message.ack()
        return message

    def basic_consume(self, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **kwargs: Any) -> None:
        """Have `callback` called with each message; without acknowledgements it is deleted as it is handed out."""

        def deliver(message: Any) -> Any:
            message.ack()
            return callback(message)

        super().basic_consume(queue, False, deliver if no_ack else callback, consumer_tag, **kwargs)


class Transport(virtual.Transport):
    """The transport; a consumer sleeps on the bell of its process."""

    Channel = Channel
    driver_type = SCHEME = "switchyard-db"
    driver_name = "django"
    connection_errors: Any = (DatabaseError, InterfaceError, *virtual.Transport.connection_errors)
    implements = virtual.Transport.implements.extend(asynchronous=False, exchange_type=frozenset(["direct"]), heartbeats=False)

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self._listener: Listener | None = None
        self._interrupted = bell.interrupted

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:
        """Deliver one message; wait at most `timeout` seconds for it. Raises TimeoutError, also when called off."""
        deadline = None if timeout is None else monotonic() + timeout
        poll = self._poll_seconds()
        while True:
            seen = bell.rung
            store.maintain()
            try:
                self._cycle_all().get(self._deliver, timeout=timeout)
                return
            except Empty:
                pass
            if bell.interrupted != self._interrupted:
                self._interrupted = bell.interrupted
                raise TimeoutError
            left = poll if deadline is None else min(poll, deadline - monotonic())
            if left <= 0:
                raise TimeoutError
            bell.wait(seen, left)

    def close_connection(self, connection: Any) -> None:
        """Close the channels, which gives back what they hold."""
        if self._listener is not None:
            self._listener.stop()
            self._listener = None
        super().close_connection(connection)

    def driver_version(self) -> str:
        """Return the version that kombu shows."""
        from django import get_version

        return get_version()

    def _cycle_all(self) -> Any:
        return self.cycle

    def _poll_seconds(self) -> float:
        if connections[ALIAS].vendor != "postgresql":
            return POLL_SECONDS
        if self._listener is None or not self._listener.is_alive():
            self._listener = Listener()
            self._listener.start()
        return LISTEN_POLL_SECONDS
