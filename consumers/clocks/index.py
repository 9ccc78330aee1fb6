"""Where on a clock's axis which segment of readings holds: one, none, or more than one because the clock went back."""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

#: Beyond any time (the year 2116), and far enough from the ends of 64 bits for two to be added.
FAR_NS: Final = 1 << 62
#: States that are no segment.
UNREAD: Final = -1
STEPPED: Final = -2
TWICE: Final = -3
REASONS: Final = {
    UNREAD: "nobody read both clocks around this time",
    STEPPED: "one of the clocks was set, stopped or restored around this time, between two readings",
    TWICE: "the clock showed this time more than once, because it went back",
}


class Range(NamedTuple):
    """From `first_ns` to `last_ns`, both included: the segment `state`, or STEPPED where a step left it open."""

    first_ns: int
    last_ns: int
    state: int


class Index:
    """Answers for any time which of `ranges` hold there."""

    def __init__(self, ranges: list[Range]) -> None:
        events: list[tuple[int, int, int]] = []
        for each in ranges:
            first_ns, last_ns = max(each.first_ns, 1 - 2 * FAR_NS), min(each.last_ns, 2 * FAR_NS - 2)
            if first_ns <= last_ns:
                events += [(first_ns, 1, each.state), (last_ns + 1, -1, each.state)]
        starts, states = [-2 * FAR_NS], [UNREAD]
        active: dict[int, int] = {}
        for at, change, state in sorted(events):
            active[state] = active.get(state, 0) + change
            if not active[state]:
                del active[state]
            now = _state(active)
            if at == starts[-1]:
                states[-1] = now
            elif now != states[-1]:
                starts.append(at)
                states.append(now)
            # What was set at the same moment may be as it was before it.
            if len(states) > 1 and states[-1] == states[-2]:
                del starts[-1], states[-1]
        self._starts: Ints = np.array(starts, np.int64)
        self._states: Ints = np.array(states, np.int64)

    def states(self, first_ns: Ints, last_ns: Ints) -> Ints:
        """Return the segment that alone holds from `first_ns` to `last_ns`, else why there is none."""
        low = np.searchsorted(self._starts, first_ns, side="right") - 1
        high = np.searchsorted(self._starts, last_ns, side="right") - 1
        state, other = self._states[low], self._states[high]
        apart = np.where(state < 0, state, np.where(other < 0, other, STEPPED))
        return np.where(low == high, state, apart)


def _state(active: dict[int, int]) -> int:
    if not active:
        return UNREAD
    if len(active) == 1:
        return next(iter(active))
    # A step that leaves open which times passed is no second time as long as no two segments have it.
    return TWICE
