"""What large answers may cost: how many values one may hold, and how much memory all of them may hold together.

Parsing cannot be interrupted and makes up to 35 bytes of objects from one byte of JSON, so that the size of an answer
bounds neither its time nor its memory. Small messages (64 kB) are exempt and never counted.
"""

import asyncio
import gc
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, ref

import orjson

from apps.common.errors import UpstreamProtocolError, UpstreamTooLarge

SMALL = 64 * 1024
"""A message of so many bytes is parsed without being counted."""
MOST_VALUES = 1_000_000
"""Objects, arrays, members and elements of one message: at most 80 ms and 100 MB to build, the most costly kinds included.
4 MB of rows of a table have half as many; what stands inside of strings (images, texts, JSON in a text) does not count."""
VALUE_BYTES = 96
"""Memory for each of them, at the worst."""
FREE = 1024 * 1024
"""What an answer holds up to here is not counted against the budgets."""
READING_BYTES = 256 * 1024 * 1024
"""All bodies over FREE that are being read, together: sixteen answers of the usual largest size."""
KEPT_BYTES = 512 * 1024 * 1024
"""All large answers that were read and have not left the gateway's pipeline, text and parsed values together."""
SHARES = 2
"""One endpoint takes at most this part of a budget (a half), so that a slow or hostile one leaves room to the others."""
WAIT_SECONDS = 10.0
"""For room; then the answer is refused."""

_QUOTED_OR_NOT = bytes(set(range(256)) - set(b'"{[,:'))
_BLOCK = 64 * 1024


def values_in(raw: bytes | bytearray) -> int:
    """Return how many values JSON text holds: never fewer than it has, more only as long as that is below the limit.

    Counts what begins or parts values; where that alone is over the limit, again without the insides of strings. Takes
    about 1 ms per MB, 10 ms where there are many strings. Text that is no JSON gives any number.
    """
    rough = raw.count(b",") + raw.count(b":") + raw.count(b"{") + raw.count(b"[")
    if rough <= MOST_VALUES:
        return rough
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    signs = raw.translate(None, _QUOTED_OR_NOT)
    strings = signs.count(b'"') // 2
    if strings > MOST_VALUES:
        return strings
    total = inside = 0
    for start in range(0, len(signs), _BLOCK):
        parts = signs[start : start + _BLOCK].split(b'"')
        total += sum(map(len, parts[inside::2]))
        inside ^= (len(parts) - 1) & 1
    return total


def weigh(raw: bytes | bytearray) -> int:
    """Return the memory in bytes that a message and its values take, rather too much; UpstreamTooLarge for too many values."""
    values = values_in(raw)
    if values > MOST_VALUES:
        raise UpstreamTooLarge(f"The answer holds more than {MOST_VALUES:,} values, which is the most that is read.")
    # A text with one character beyond ASCII takes up to four bytes for each of its characters.
    text = 1 if raw.isascii() and b"\\u" not in raw else 4
    return len(raw) * (1 + text) + values * VALUE_BYTES


def load(raw: bytes | bytearray | memoryview) -> Any:
    """Return the JSON value of a message that has been weighed, or is small; UpstreamProtocolError for what is not JSON."""
    pause = len(raw) > SMALL and gc.isenabled()
    if pause:
        # A collection for every 700 new containers would look at all of them again and take most of the time.
        gc.disable()
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise UpstreamProtocolError("The server's answer is not JSON.") from None
    finally:
        if pause:
            gc.enable()


class Hold:
    """A part of a budget; it goes back on `release`, at the latest when nobody refers to it any more."""

    __slots__ = ("_budget", "owner", "size")

    def __init__(self, budget: "Budget", owner: object, size: int) -> None:
        self._budget = budget
        self.owner = owner
        self.size = size

    def release(self) -> None:
        """Give it back; again is nothing."""
        size, self.size = self.size, 0
        if size:
            self._budget.give(self.owner, size)

    def __del__(self) -> None:
        self.release()


@dataclass(slots=True, eq=False)
class _Waiter:
    owner: object
    size: int
    granted: "asyncio.Future[Hold]"


class Budget:
    """Bytes that all answers on one event loop share. Taken in order of asking; who is over its share waits aside."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        self._owners: dict[object, int] = {}
        self._waiting: deque[_Waiter] = deque()
        self._loop = ref(asyncio.get_running_loop())
        self._thread = threading.get_ident()

    async def take(self, owner: object, size: int) -> Hold:
        """Return a hold on `size` bytes (at most the owner's share); UpstreamTooLarge when there is no room for 10 s."""
        waiter = _Waiter(owner, min(size, self.most // SHARES), asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._grant()
        if waiter.granted.done():
            return waiter.granted.result()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await asyncio.shield(waiter.granted)
        except BaseException as error:
            if waiter.granted.done():
                waiter.granted.result().release()
            else:
                self._waiting.remove(waiter)
                self._grant()
            if isinstance(error, TimeoutError):
                raise UpstreamTooLarge(
                    "The answer is large, and other large answers hold all the memory set aside for them. Try again later."
                ) from None
            raise

    def give(self, owner: object, size: int) -> None:
        """Take `size` bytes back, from whatever thread."""
        if threading.get_ident() == self._thread:
            self._given(owner, size)
            return
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._given, owner, size)

    def _given(self, owner: object, size: int) -> None:
        self.used -= size
        left = self._owners[owner] - size
        if left:
            self._owners[owner] = left
        else:
            del self._owners[owner]
        self._grant()

    def _grant(self) -> None:
        """Let in who is next, unless there is no room at all."""
        share = self.most // SHARES
        for waiter in list(self._waiting):
            if self.used + waiter.size > self.most:
                return
            held = self._owners.get(waiter.owner, 0)
            if held + waiter.size > share:
                continue
            self._waiting.remove(waiter)
            self.used += waiter.size
            self._owners[waiter.owner] = held + waiter.size
            waiter.granted.set_result(Hold(self, waiter.owner, waiter.size))


@dataclass(slots=True)
class Memory:
    """The budgets of one event loop; a process has one loop that serves calls."""

    reading: Budget = field(default_factory=lambda: Budget(READING_BYTES))
    kept: Budget = field(default_factory=lambda: Budget(KEPT_BYTES))
    _busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Do one long piece of work on the loop; the next may begin when everybody else has had as long."""
        await self._busy.acquire()
        started = time.monotonic()
        try:
            yield
        finally:
            worked = time.monotonic() - started
            # Twice: uvloop counts from when this step of the loop began.
            asyncio.get_running_loop().call_later(2 * worked, self._busy.release)


_memories: WeakKeyDictionary[asyncio.AbstractEventLoop, Memory] = WeakKeyDictionary()


def memory() -> Memory:
    """Return the running loop's budgets."""
    loop = asyncio.get_running_loop()
    found = _memories.get(loop)
    if found is None:
        found = _memories[loop] = Memory()
    return found


async def load_large(raw: bytes, owner: object) -> tuple[Any, Hold | None]:
    """Return the JSON value of a message over SMALL and the hold that must live as long as it does (None below FREE).

    Waits for room. Raises UpstreamTooLarge, UpstreamProtocolError.
    """
    ours = memory()
    async with ours.turn():
        weight = weigh(raw)
        if weight <= FREE:
            return load(raw), None
    hold = await ours.kept.take(owner, weight)
    try:
        async with ours.turn():
            return load(raw), hold
    except BaseException:
        hold.release()
        raise
