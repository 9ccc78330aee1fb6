"""A counter of ticks as a clock: its times become ns of a nominal frequency, outwards, and an edge bounds the rest.

The nominal frequency is only the unit in which such an edge reckons, and needs to be right within the kind's limit:
what the counter does beside it is a difference that grows, as between any two clocks. It is fitted to the readings, and
to be sure that it is no work of a step, two stretches between readings at least must agree on it, and most of them.
"""

from typing import Final, NamedTuple

import numpy as np

from consumers.clocks.index import FAR_NS, Ints
from consumers.clocks.track import Track

NS_PER_S: Final = 1_000_000_000
#: Slower counters than the slowest of arm64, and faster ones than multiplication in 64 bits allows.
HZ_MIN: Final = 1_000_000
HZ_MAX: Final = 9_000_000_000
#: A stretch says what the rate was if the readings at its ends leave no more of it open.
_UNSURE_MAX: Final = 1e-4
#: Stretches agree whose rates differ by no more: CLOCK_MONOTONIC may be slewed in one of them, and not in the other.
_AGREE: Final = 8e-4


def frequency_hz(x0_ns: Ints, x1_ns: Ints, ticks: Ints) -> int | None:
    """Return the nominal frequency of a counter that showed `ticks` between these times of a clock; None if not known.

    Where at most every other stretch between readings has a step in it, the counter's rate differs from it by less than
    1400 ppm and what the clock is slewed by, at most 500 ppm.
    """
    middle = x0_ns + (x1_ns - x0_ns) // 2
    took, grown = np.diff(middle).astype(np.float64), np.diff(ticks).astype(np.float64)
    width = (x1_ns - x0_ns).astype(np.float64)
    good = np.flatnonzero((took > 0) & (grown > 0) & (width[1:] + width[:-1] <= took * _UNSURE_MAX))
    rates = np.sort(grown[good] / took[good])
    if not len(rates):
        return None
    rate = float(rates[len(rates) // 2])
    agree = np.count_nonzero(np.abs(rates / rate - 1) <= _AGREE)
    hz = round(rate * NS_PER_S)
    return hz if agree >= 2 and 2 * agree > len(rates) and HZ_MIN <= hz <= HZ_MAX else None


def ns_of(ticks: Ints, hz: int) -> Ints:
    """Return how many whole ns of the nominal frequency `ticks` are."""
    most = min(FAR_NS, FAR_NS // NS_PER_S * hz)
    whole, rest = np.divmod(np.clip(ticks, -most, most), hz)
    found: Ints = whole * NS_PER_S + rest * NS_PER_S // hz
    return found


def ticks_of(ns: Ints, hz: int) -> Ints:
    """Return how many whole ticks there are in so many ns of the nominal frequency."""
    most = min(FAR_NS, FAR_NS // hz * NS_PER_S)
    whole, rest = np.divmod(np.clip(ns, -most, most), NS_PER_S)
    found: Ints = whole * hz + rest * hz // NS_PER_S
    return found


class Counted(NamedTuple):
    """One direction between a clock and a counter of `hz` ticks in a second; `track` has the counter's times in ns.

    `from_ticks`: the counter is the first of the two.
    """

    track: Track
    hz: int
    from_ticks: bool

    def apply(self, first: Ints, last: Ints) -> tuple[Ints, Ints, Ints]:
        """Return as `Track.apply`, what is the counter's in ticks; times without an answer are of no use."""
        if self.from_ticks:
            return self.track.apply(ns_of(first, self.hz), ns_of(last + 1, self.hz) + 1)
        low, high, states = self.track.apply(first, last)
        return ticks_of(low, self.hz), ticks_of(high, self.hz) + 1, states
