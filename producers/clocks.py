"""Several clocks read together: each reading lies between two readings of CLOCK_MONOTONIC; see clock_gettime(2)."""

import time
from typing import Final, NamedTuple

_TRIES: Final = 5


class ClockReading(NamedTuple):
    """The clocks at one moment, in ns: all read within `bracket_ns` of each other, the tightest of a few tries."""

    realtime_ns: int
    monotonic_ns: int
    boottime_ns: int
    bracket_ns: int


def read_clocks() -> ClockReading:
    """Return the tightest of a few readings."""
    return min((_read_once() for _ in range(_TRIES)), key=lambda reading: reading.bracket_ns)


def _read_once() -> ClockReading:
    before = time.monotonic_ns()
    realtime = time.time_ns()
    boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    after = time.monotonic_ns()
    return ClockReading(realtime, (before + after) // 2, boottime, after - before)
