"""Readings of two clocks to an edge: segments where no step was found, and the rates within each, in both directions.

What is taken for granted, and nothing else:
- the rate of one clock against the other is within the kind's limit;
- while adjtimex(2) says the same steady rate at both ends (`steady`), rates differ by no more than STEADY_PPB within
  BLOCK readings;
- the first clock of the two is never set; it goes back with its machine only, which then shows a time before the last
  one read, or another `part`;
- between two readings next to each other there is at most one step. One that shows (no difference fits both within
  the limits of the rate) ends a segment, and the time between the two belongs to none. One that does not show
  is allowed for where the kind's clocks can step at all, at most one in BLOCK readings where the rate is measured.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from consumers.clocks.index import FAR_NS, STEPPED, Index, Ints, Range
from consumers.clocks.track import Floats, Segment, Track

PPB: Final = 1e-9
#: By how much rates that the kernel steers equally may differ: oscillators with the temperature, rounding.
STEADY_PPB: Final = 5_000
BLOCK: Final = 64
#: A machine restored to an older state of itself is read again within so long.
JUMP_NS: Final = 60_000_000_000


class Kind(NamedTuple):
    """How two clocks can differ: their rates by at most `rate_ppb_max`, and whether one `steps` against the other."""

    name: str
    rate_ppb_max: int
    steps: bool


#: CLOCK_REALTIME, _TAI and _BOOTTIME run with CLOCK_MONOTONIC, apart from steps (kernel/time/timekeeping.c).
SAME_RATE: Final = Kind("same-rate", 1, steps=True)
#: CLOCK_MONOTONIC is slewed by up to 500 ppm, CLOCK_MONOTONIC_RAW is not; neither is ever set (adjtimex(2)).
SLEWED: Final = Kind("slewed", 500_000, steps=False)
#: printk's clock neither; it counts the same or another oscillator, with a calibration of its own.
PRINTK: Final = Kind("printk", 1_000_000, steps=False)
#: A counter of the CPU, in ns of a fitted frequency (`ticks.py`); a suspended, moved or restored machine's may be set.
TICKS: Final = Kind("ticks", 1_900_000, steps=True)
#: Two machines: each may be slewed, the guest may be paused and restored, the host suspended.
MACHINES: Final = Kind("machines", 1_000_000, steps=True)


@dataclass(frozen=True, slots=True)
class Readings:
    """In the order in which they were taken: what a reading says stands in `track.py`.

    `steady` is a number that stays the same while the rate does, below 0 where nobody knows; where `part`
    changes one of the clocks is known to have been stopped or restored.
    """

    x0_ns: Ints
    x1_ns: Ints
    lo_ns: Ints
    hi_ns: Ints
    steady: Ints
    part: Ints

    def take(self, rows: Ints) -> "Readings":
        """Return those at `rows`."""
        names = self.__dataclass_fields__
        return Readings(*(getattr(self, name)[rows] for name in names))

    def mirrored(self) -> "Readings":
        """Return the same, said of the second clock's times."""
        return Readings(
            self.x0_ns + self.lo_ns, self.x1_ns + self.hi_ns, -self.hi_ns, -self.lo_ns, self.steady, self.part
        )


def joined(parts: list[Readings]) -> Readings:
    """Return the readings of all parts, one behind the other."""
    names = Readings.__dataclass_fields__
    return Readings(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class Edge(NamedTuple):
    """Two clocks: `forward` from the first to the second, `backward` the other way.

    `readings` are those that were used; `starts` where each segment begins among them. `hz` is the nominal frequency
    of the second clock where that is a counter: all here is in ns of it.
    """

    kind: Kind
    forward: Track
    backward: Track
    readings: Readings
    starts: list[int]
    hz: int | None = None


def make_edge(readings: Readings, kind: Kind, hz: int | None = None) -> Edge:
    """Return what `readings`, at least one, say of two clocks of this kind."""
    kept, starts = _split(readings, kind)
    used = readings.take(np.array(kept, np.int64))
    mirrored = used.mirrored()
    forward = _track(used, mirrored, starts, kind, steps=False)
    return Edge(kind, forward, _track(mirrored, used, starts, kind, steps=True), used, starts, hz)


# Which readings are used, and with which of these a segment begins. Of two that overlap the tighter one says more.
def _split(readings: Readings, kind: Kind) -> tuple[list[int], list[int]]:
    columns = (readings.x0_ns, readings.x1_ns, readings.lo_ns, readings.hi_ns, readings.part)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    kept, starts = [0], [0]
    for number in range(1, len(rows)):
        one, two = rows[kept[-1]], rows[number]
        if _apart(one, two, kind):
            starts.append(len(kept))
        elif two[0] <= one[1] or two[0] + two[2] <= one[1] + one[3]:
            if two[3] - two[2] < one[3] - one[2] and _behind(rows, kept, starts, two):
                kept[-1] = number
            continue
        kept.append(number)
    return kept, starts


# Whether `two` may take the place of the last one kept: it must stand clear of the one before.
def _behind(rows: list[tuple[int, ...]], kept: list[int], starts: list[int], two: tuple[int, ...]) -> bool:
    if len(kept) - 1 == starts[-1]:
        return True
    before = rows[kept[-2]]
    return two[0] > before[1] and two[0] + two[2] > before[1] + before[3]


def _apart(one: tuple[int, ...], two: tuple[int, ...], kind: Kind) -> bool:
    x0, _, lo, hi, part = one
    if part != two[4] or two[1] < x0:
        return True
    room = 2 + (two[1] - x0) * kind.rate_ppb_max // 1_000_000_000
    return two[2] > hi + room or two[3] < lo - room


# `steps`: the clock whose times these are may have been set, not only stopped.
def _track(readings: Readings, mirrored: Readings, starts: list[int], kind: Kind, *, steps: bool) -> Track:
    ends = [*starts[1:], len(readings.x0_ns)]
    segments, ranges = [], []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        part = readings.take(np.arange(start, end))
        segments.append(_segment(part, kind))
        # The outermost readings themselves may have been taken before or behind a step.
        first, last = int(part.x1_ns[0]), int(part.x0_ns[-1])
        if number:
            ranges += _hole(readings, mirrored, start, kind, steps=steps)
        # Clocks that never step go on as they were; if readings contradict each other these are none.
        if not kind.steps and len(starts) == 1:
            first, last = -FAR_NS, FAR_NS
        ranges.append(Range(first, last, number))
    return Track(Index(ranges), segments)


# What a step in front of reading `start` leaves open: which times the clock still showed before, or already behind it.
def _hole(readings: Readings, mirrored: Readings, start: int, kind: Kind, *, steps: bool) -> list[Range]:
    last, first = int(readings.x0_ns[start - 1]), int(readings.x1_ns[start])
    between = Range(last + 1, first - 1, STEPPED)
    if first > last and not steps and readings.part[start] == readings.part[start - 1]:
        return [between]
    elapsed = int(mirrored.x1_ns[start]) - int(mirrored.x0_ns[start - 1])
    if elapsed <= 0:
        # The second clock went back: how long it took the first one shows, if that did not go back as well.
        elapsed = 0 if first > last else JUMP_NS
    own = int(readings.x1_ns[start - 1]) - last + first - int(readings.x0_ns[start])
    wide = elapsed + elapsed * kind.rate_ppb_max // 999_000_000 + own + 2
    return [
        between,
        Range(last + 1, last + wide, STEPPED),
        Range(first - wide, first - 1, STEPPED),
    ]


def _segment(readings: Readings, kind: Kind) -> Segment:
    limit = kind.rate_ppb_max * PPB * (1 + 2e-3)  # seen from the other clock a rate is that much another
    at_ns = readings.x0_ns + (readings.x1_ns - readings.x0_ns) // 2
    reach = readings.x1_ns - at_ns
    slack = 1 + np.ceil(reach * limit).astype(np.int64)
    lo, hi = readings.lo_ns - slack, readings.hi_ns + slack
    rate_max = np.full(len(at_ns) + 1, limit)
    rate_min = -rate_max
    if kind.rate_ppb_max > STEADY_PPB:
        for start, end in _steady_runs(readings.steady):
            low, high = _measured(at_ns[start:end], lo[start:end], hi[start:end], kind)
            inner = slice(start + 1, end)
            rate_min[inner] = np.maximum(low, -limit)
            rate_max[inner] = np.minimum(high, limit)
            if not _fits(at_ns[start:end], lo[start:end], hi[start:end], rate_min[inner], rate_max[inner]):
                rate_min[inner], rate_max[inner] = -limit, limit
    return Segment(at_ns, lo, hi, reach, rate_min, rate_max, kind.steps)


# Stretches of readings, at most BLOCK intervals long, over which the rate was steady.
def _steady_runs(steady: Ints) -> list[tuple[int, int]]:
    changes = np.flatnonzero(np.diff(steady)) + 1
    bounds = [0, *changes.tolist(), len(steady)]
    return [
        (at, min(at + BLOCK + 1, end))
        for start, end in pairwise(bounds)
        if steady[start] >= 0
        for at in range(start, end - 1, BLOCK)
    ]


# The slowest and the fastest rate that readings of a steady stretch allow. Where a step too small to be found may lie
# between two of them, the rate is what both sides of that place say, and the widest of any place that it may be in: of
# those alone beside which the rates between all other readings can be as near each other as steady ones are.
def _measured(at_ns: Ints, lo: Ints, hi: Ints, kind: Kind) -> tuple[float, float]:
    wander = STEADY_PPB * PPB
    if not kind.steps:
        took = float(at_ns[-1] - at_ns[0])
        return float(lo[-1] - hi[0]) / took - wander, float(hi[-1] - lo[0]) / took + wander
    places = len(at_ns) - 1
    slow, fast = np.full((2, places), -np.inf), np.full((2, places), np.inf)
    before, behind = (at_ns[1:-1] - at_ns[0]).astype(np.float64), (at_ns[-1] - at_ns[1:-1]).astype(np.float64)
    slow[0, 1:], fast[0, 1:] = (lo[1:-1] - hi[0]) / before, (hi[1:-1] - lo[0]) / before
    slow[1, :-1], fast[1, :-1] = (lo[-1] - hi[1:-1]) / behind, (hi[-1] - lo[1:-1]) / behind
    slowest, fastest = slow.max(axis=0), fast.min(axis=0)
    took_each = np.diff(at_ns).astype(np.float64)
    spread = _most_of_others((lo[1:] - hi[:-1]) / took_each) + _most_of_others((lo[:-1] - hi[1:]) / took_each)
    here = (slowest - wander <= fastest) & (spread <= wander)
    if not here.any():
        return -np.inf, np.inf
    return float(slowest[here].min()) - wander, float(fastest[here].max()) + wander


# By place the greatest of all the other values, -inf where there is none.
def _most_of_others(values: Floats) -> Floats:
    most = int(values.argmax())
    others = np.full(len(values), values[most])
    others[most] = np.delete(values, most).max(initial=-np.inf)
    return others


# Whether a difference within these rates goes through all readings: else the rate was not as steady as it was said.
def _fits(at_ns: Ints, lo: Ints, hi: Ints, rate_min: Floats, rate_max: Floats) -> bool:
    took = np.diff(at_ns)
    slowest, fastest = lo[:-1] + rate_min * took, hi[:-1] + rate_max * took
    return bool(np.all(rate_min <= rate_max) and np.all(slowest <= hi[1:]) and np.all(fastest >= lo[1:]))
