"""Holds the picture in force and tells those who wait for a change of it."""

import threading
from collections.abc import Callable

from apps.gateway.plane.snapshot import Snapshot


class SnapshotStore:
    """One reference, replaced whole: readers never wait and never see half a change. Written by one thread at a time."""

    def __init__(self) -> None:
        self.current = Snapshot()
        self.ready = False
        self._listeners: list[Callable[[Snapshot], None]] = []
        self._lock = threading.Lock()

    def swap(self, snapshot: Snapshot) -> None:
        """Put a new picture in force and ring the listeners (in the caller's thread)."""
        with self._lock:
            self.current = snapshot
            self.ready = True
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(snapshot)

    def subscribe(self, listener: Callable[[Snapshot], None]) -> Callable[[], None]:
        """Call `listener` after each change; returns what ends it. Listeners must return at once."""
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return end
