"""Whose turn it is when not all guests can be read: the one of whom least was read, sans-IO.

Start-time fair queuing with a bounded past: what was read of a guest is its place in the queue, and nobody is further
behind the front than some turns, so neither is a silence saved up for ever, nor a rush held against its guest for long.
"""

from collections.abc import Hashable
from heapq import heappop, heappush
from itertools import count
from typing import Final, Generic, TypeVar

#: How far behind him of whom most was read a guest may be.
CREDIT_BYTES: Final = 1 << 20

T = TypeVar("T", bound=Hashable)


class Turns(Generic[T]):
    """Who waits, and who has a turn."""

    def __init__(self) -> None:
        self._read: dict[T, int] = {}  # as was told
        self._place: dict[T, int] = {}
        self._front = 0
        self._waiting: dict[T, None] = {}
        self._queue: list[tuple[int, int, T]] = []
        self._turns: set[T] = set()
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._waiting)

    def may(self, who: T, read_bytes: int) -> bool:
        """Return whether `who`, of whom `read_bytes` came so far, may be read: it has a turn, or nobody else."""
        place = max(self._place.get(who, 0), self._front - CREDIT_BYTES) + read_bytes - self._read.get(who, 0)
        self._read[who], self._place[who] = read_bytes, place
        self._front = max(self._front, place)
        if who in self._turns:
            self._turns.remove(who)
            return True
        return not self._waiting and not self._turns

    def wait(self, who: T) -> None:
        """Enter that `who`, whom `may` was asked for, is to be read later."""
        if who not in self._waiting:
            self._waiting[who] = None
            heappush(self._queue, (self._place[who], next(self._numbers), who))

    def next(self, most: int) -> list[T]:
        """Return those whose turn it is now, at most so many, who wait no longer."""
        found: list[T] = []
        while self._queue and len(found) < most:
            who = heappop(self._queue)[2]
            if who in self._waiting:
                del self._waiting[who]
                self._turns.add(who)
                found.append(who)
        return found

    def give_up(self, who: T) -> None:
        """Take the turn of `who` back, who cannot be read after all."""
        self._turns.discard(who)

    def forget(self, who: T) -> None:
        """Forget `who`, who is gone."""
        self._turns.discard(who)
        self._waiting.pop(who, None)
        self._read.pop(who, None)
        self._place.pop(who, None)
