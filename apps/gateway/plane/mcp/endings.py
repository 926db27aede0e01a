"""Which sessions of the initialize era were ended before their tokens expire, and log levels of those that go on: bounded, and for each
principal first, so that nobody's sessions cost another's.
"""

import time
from collections.abc import Iterator, Mapping
from heapq import heappop, heappush

MOST_ENDED = 65_536
"""Ended sessions that are known one by one."""
LEVELS = 10_000
"""Sessions that have a log level of their own."""
SHARE = 16
"""One principal may have this part of either: 4,096 and 625."""


class Ended:
    """Sessions that were ended, until they would have expired.

    Of a principal with more of them than are kept the one that expires first is forgotten; from then on every session of this principal
    that expires no later counts as ended. So what was ended stays ended, at the price that its oldest sessions begin anew.
    """

    def __init__(self, gone: Mapping[str, int] | None = None, floors: Mapping[str, int] | None = None) -> None:
        self._sids: dict[str, int] = dict(gone or {})
        self._of: dict[str, list[tuple[int, str]]] = {}
        """Principal → its ended sessions, the one that expires first on top."""
        self.floors: dict[str, int] = dict(floors or {})
        """Principal → the time until which its sessions count as ended when they expire no later."""
        self._sweep_at = 2 * len(self._sids) + 1024

    def __len__(self) -> int:
        return len(self._sids)

    @property
    def known(self) -> Mapping[str, int]:
        """Return those that are known one by one, with the time when they expire."""
        return self._sids

    def add(self, sid: str, expires: int, principal: str) -> None:
        """Remember that a session was ended."""
        now = int(time.time())
        if expires <= now or sid in self._sids:
            return
        if len(self._sids) >= self._sweep_at or len(self._sids) >= MOST_ENDED:
            self._sweep(now)
        mine = self._of.setdefault(principal, [])
        self._forget_expired(mine, now)
        while len(mine) >= MOST_ENDED // SHARE:
            self._forget_first(principal, mine)
        self._sids[sid] = expires
        heappush(mine, (expires, sid))

    def holds(self, sid: str, principal: str, expires: int) -> bool:
        """Tell whether a session was ended."""
        return sid in self._sids or (bool(self.floors) and expires <= self.floors.get(principal, 0))

    def _forget_expired(self, mine: list[tuple[int, str]], now: int) -> None:
        while mine and mine[0][0] <= now:
            self._sids.pop(heappop(mine)[1], None)

    def _forget_first(self, principal: str, mine: list[tuple[int, str]]) -> None:
        expires, sid = heappop(mine)
        self._sids.pop(sid, None)
        self.floors[principal] = max(expires, self.floors.get(principal, 0))

    def _sweep(self, now: int) -> None:
        """Drop what has expired; where that is not enough, an eighth of whoever has most. Done once in many times, as it takes a while."""
        self._sids = {sid: expires for sid, expires in self._sids.items() if expires > now}
        self.floors = {principal: expires for principal, expires in self.floors.items() if expires > now}
        for principal, mine in tuple(self._of.items()):
            self._forget_expired(mine, now)
            if not mine:
                del self._of[principal]
        if len(self._sids) >= MOST_ENDED and self._of:
            principal, mine = max(self._of.items(), key=lambda one: len(one[1]))
            for _ in range(len(mine) // 8 + 1):
                self._forget_first(principal, mine)
        self._sweep_at = max(1024, 2 * len(self._sids))


class Levels:
    """Log levels of sessions; beyond the bound a principal's own oldest give way, then the oldest of whoever has most."""

    def __init__(self) -> None:
        self._levels: dict[str, tuple[str, str]] = {}
        self._of: dict[str, dict[str, None]] = {}
        """Principal → its sessions, the oldest level first."""

    def __len__(self) -> int:
        return len(self._levels)

    def __iter__(self) -> Iterator[str]:
        return iter(self._levels)

    def get(self, sid: str) -> str | None:
        """Return a session's level."""
        found = self._levels.get(sid)
        return found[0] if found is not None else None

    def set(self, sid: str, level: str, principal: str) -> None:
        """Remember a session's level."""
        self.drop(sid)
        if len(self._of.get(principal, ())) >= LEVELS // SHARE:
            self.drop(next(iter(self._of[principal])))
        elif len(self._levels) >= LEVELS:
            most = max((len(mine), principal) for principal, mine in self._of.items())[1]
            self.drop(next(iter(self._of[most])))
        self._levels[sid] = (level, principal)
        self._of.setdefault(principal, {})[sid] = None

    def drop(self, sid: str) -> None:
        """Forget a session's level."""
        found = self._levels.pop(sid, None)
        if found is not None:
            mine = self._of[found[1]]
            del mine[sid]
            if not mine:
                del self._of[found[1]]
