"""Memory of a serving process: large buffers go back to the system when they are free, and cyclic garbage goes when memory has grown.

The collector's own thresholds count objects. A dead request with megabytes in it is a few dozen of them, so that its turn may never come:
a clock looks at what the process holds as well. The young generations come first, as they are small; all of them (which walks everything
but what is frozen, and holds the event loop meanwhile) only where that was not enough, and for a hundredth of the time at most.
"""

import asyncio
import contextlib
import ctypes
import gc
import os
import time
from collections.abc import Callable

LOOK_SECONDS = 2.0
YOUNG_BYTES, FULL_BYTES = 32 * 1024 * 1024, 192 * 1024 * 1024
"""Growth since the last collection of the young generations, and of all, from which on the next is due."""
CALM_LOOKS = 5
"""Looks without growth after which all is collected once more: what is free by then lies between what was in use, and is given back."""
PART = 100
"""A full collection that took a second is followed by the next after so many at the earliest."""
MAPPED_BYTES = 128 * 1024
"""Blocks of this size and more are mapped one by one, and unmapped when they are freed (glibc)."""
KEPT_BYTES = 8 * 1024 * 1024
"""Free memory at the heap's end that is kept for the next blocks (glibc)."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def resident_bytes() -> int:
    """Return the memory that the process holds; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as facts:
            return int(facts.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def keep_blocks_apart() -> None:
    """Have large blocks mapped by themselves: among small ones they leave holes that nobody can give back. glibc alone."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, MAPPED_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, KEPT_BYTES)


def give_back() -> None:
    """Give the free pages of the heap back to the system. glibc alone."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Collector:
    """Collects cyclic garbage when the process has grown. Belongs to one event loop."""

    def __init__(self, held: Callable[[], int] = resident_bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._held = held
        self._clock = clock
        self._young = self._full = held()
        self._not_before = 0.0
        self._calm = CALM_LOOKS
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._tick)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> int:
        """Collect what is due; return the oldest generation that was collected, or -1."""
        held = self._held()
        self._young, self._full = min(self._young, held), min(self._full, held)
        if held - self._young < YOUNG_BYTES and held - self._full < FULL_BYTES:
            self._calm += 1
            return self._collect() if self._calm == CALM_LOOKS else -1
        self._calm = 0
        gc.collect(1)
        held = self._young = self._held()
        if held - self._full < FULL_BYTES or self._clock() < self._not_before:
            return 1
        return self._collect()

    def _collect(self) -> int:
        began = self._clock()
        gc.collect()
        give_back()
        ended = self._clock()
        self._not_before = ended + PART * (ended - began)
        self._young = self._full = self._held()
        return 2

    def _tick(self) -> None:
        self.look()
        self.start()
