"""From one clock's times to another's: readings of both, in segments between which one of them stepped.

A reading says: when the first clock showed a time within [x0, x1], the second was ahead of it by something within
[lo, hi]. Between two readings the difference moves at a rate within stated limits. From that follow a lower and an
upper limit of the difference at any time; nothing is smoothed, and nothing is assumed to be in the middle.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from consumers.clocks.index import Index, Ints

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Segment:
    """Readings between which no step was found, at the times `at_ns` of the first clock, rising.

    `lo_ns` and `hi_ns` are the limits of the difference there, `reach_ns` how far from `at_ns` the reading may have
    been. `rate_min` and `rate_max` are one longer than these: before the first reading, between each two, behind the
    last. `held`: a step too small to be found may lie between two readings, so either of the two may be the one
    that holds; else both do.
    """

    at_ns: Ints
    lo_ns: Ints
    hi_ns: Ints
    reach_ns: Ints
    rate_min: Floats
    rate_max: Floats
    held: bool

    def limits(self, x_ns: Ints) -> tuple[Ints, Ints]:
        """Return the lower and upper limit of the difference when the first clock shows `x_ns`."""
        last = len(self.at_ns) - 1
        gap = np.searchsorted(self.at_ns, x_ns, side="left")
        left, right = np.maximum(gap - 1, 0), np.minimum(gap, last)
        rates = self.rate_min[gap], self.rate_max[gap]
        sides = [self._from(left, rates, x_ns), self._from(right, rates, x_ns)]
        if not self.held:
            (low, high), (other_low, other_high) = sides
            return np.maximum(low, other_low), np.minimum(high, other_high)
        # Within a reading's own reach the step may be on its other side, and so in the next gap.
        before = np.where(x_ns <= self.at_ns[left] + self.reach_ns[left], np.maximum(left - 1, 0), left)
        behind = np.where(x_ns >= self.at_ns[right] - self.reach_ns[right], np.minimum(right + 1, last), right)
        gaps = np.array([np.maximum(gap - 1, 0), gap, np.minimum(gap + 1, last + 1)])
        rates = self.rate_min[gaps].min(axis=0), self.rate_max[gaps].max(axis=0)
        sides += [self._from(before, rates, x_ns), self._from(behind, rates, x_ns)]
        return np.minimum.reduce([side[0] for side in sides]), np.maximum.reduce([side[1] for side in sides])

    # The limits by one reading alone, outwards to whole ns.
    def _from(self, number: Ints, rates: tuple[Floats, Floats], x_ns: Ints) -> tuple[Ints, Ints]:
        away = (x_ns - self.at_ns[number]).astype(np.float64)
        slow, fast = rates[0] * away, rates[1] * away
        low = np.floor(np.minimum(slow, fast)).astype(np.int64)
        high = np.ceil(np.maximum(slow, fast)).astype(np.int64)
        return self.lo_ns[number] + low, self.hi_ns[number] + high


class Track(NamedTuple):
    """One direction between two clocks."""

    where: Index
    segments: list[Segment]

    def apply(self, first_ns: Ints, last_ns: Ints) -> tuple[Ints, Ints, Ints]:
        """Return between which times of the second clock those from `first_ns` to `last_ns` of the first lie.

        The third array is the state of each (`index`): below 0 it has no answer, and its times are as they were.
        """
        states = self.where.states(first_ns, last_ns)
        low, high = first_ns.copy(), last_ns.copy()
        for number in np.unique(states[states >= 0]):
            rows = np.flatnonzero(states == number)
            segment = self.segments[number]
            lows, highs = segment.limits(first_ns[rows])
            last_lows, last_highs = segment.limits(last_ns[rows])
            if segment.held:
                lows, last_highs = np.minimum(lows, last_lows), np.maximum(highs, last_highs)
            low[rows] += lows
            high[rows] += last_highs
        return low, high, states
