"""Which sessions go on after a restart, on one node: those of which nothing lived in the process's memory.

A session's token outlives its process; its log level and its subscriptions do not. A process that stops in good order leaves behind which
sessions cannot go on, and the next one takes that. Where nothing was left behind (a crash, a loss of power), no earlier session goes on:
nobody knows what is missing of it. Several processes keep what lives of a session in common and need none of this.
"""

import time
from collections.abc import Mapping

import msgspec


class LeftBehind(msgspec.Struct, frozen=True):
    """What one life of the process leaves to the next. Times are seconds since the epoch, of use until then."""

    lives: Mapping[str, int] = {}
    """Marks of the lives whose sessions go on."""
    gone: Mapping[str, int] = {}
    """Sessions that do not, though they are of such a life: ended ones, and those of which something lived."""
    floors: Mapping[str, int] = {}
    """Principals of whom sessions that expire no later do not go on (see `Ended`)."""

    def encode(self) -> bytes:
        """Return it as it is stored."""
        return msgspec.json.encode(self)


def read(stored: bytes) -> LeftBehind:
    """Return what is still of use of it; nothing where it is not what `encode` made."""
    try:
        found = msgspec.json.decode(stored, type=LeftBehind)
    except msgspec.MsgspecError:
        return LeftBehind()
    return LeftBehind(lives=_current(found.lives), gone=_current(found.gone), floors=_current(found.floors))


def _current(until: Mapping[str, int]) -> dict[str, int]:
    now = time.time()
    return {name: seconds for name, seconds in until.items() if seconds > now}
