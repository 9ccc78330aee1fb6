"""How many pings a guest sends its host: a burst ends as soon as another trip is not likely to be quicker.

Pings are paced by nothing but their answers, because paced ones take several times as long. What counts of a burst is
its quickest trip alone (`consumers/clocks/pings.py`), and in a guest that does nothing else each one is what it costs.
"""

from collections import deque
from typing import Final

PINGS_MAX: Final = 20
#: As quick as this times the quickest of the last bursts is quick enough.
_QUICK: Final = 1.25
_BURSTS: Final = 12


class Burst:
    """The bursts of one connection, one after the other; `over`: the newest has all its answers, or none has begun."""

    def __init__(self) -> None:
        self._before: deque[int] = deque(maxlen=_BURSTS)  # the quickest trip of each burst
        self._quickest_ns = 0
        self._sent = PINGS_MAX
        self.over = True

    def begin(self) -> None:
        """Begin another burst; its first ping is sent."""
        if self._quickest_ns:
            self._before.append(self._quickest_ns)
        self._quickest_ns, self._sent, self.over = 0, 1, False

    def answered(self, trip_ns: int) -> bool:
        """Take the time that a ping of this burst was under way; return whether another one is to be sent."""
        self._quickest_ns = min(trip_ns, self._quickest_ns) if self._quickest_ns else trip_ns
        if self._sent >= PINGS_MAX or (self._before and trip_ns <= min(self._before) * _QUICK):
            self._sent, self.over = PINGS_MAX, True
            return False
        self._sent += 1
        return True
