"""Bytes that are held for clients in this process: bounded in all, and for each owner."""

from collections import Counter

SHARE = 4
"""One owner may have this part of a budget: a quarter."""


class Budget:
    """How much of `most` bytes is in use, and by whom. Belongs to one event loop."""

    __slots__ = ("_of_owner", "each", "most", "used")

    def __init__(self, most: int, share: int = SHARE) -> None:
        self.most = most
        self.each = most // share
        self.used = 0
        self._of_owner: Counter[str] = Counter()

    def fits(self, owner: str, size: int) -> bool:
        """Tell whether an owner may hold so much more."""
        return self.used + size <= self.most and self._of_owner[owner] + size <= self.each

    def take(self, owner: str, size: int) -> bool:
        """Hold so much more for an owner, if it fits."""
        if not self.fits(owner, size):
            return False
        self.add(owner, size)
        return True

    def add(self, owner: str, size: int) -> None:
        """Hold so much more for an owner, which is there already: whoever adds it looks at `over` and `over_share`."""
        self.used += size
        self._of_owner[owner] += size

    def give_back(self, owner: str, size: int) -> None:
        """It is held no more."""
        self.used -= size
        left = self._of_owner[owner] - size
        if left > 0:
            self._of_owner[owner] = left
        else:
            del self._of_owner[owner]

    @property
    def over(self) -> bool:
        """Tell whether more is held than may be."""
        return self.used > self.most

    def over_share(self, owner: str) -> bool:
        """Tell whether an owner holds more than it may."""
        return self._of_owner[owner] > self.each
