"""Clocks whose truth is known: random histories of drift, steps, pauses, delay and loss, and what would be read of them."""

from dataclasses import dataclass

import numpy as np

from consumers.clocks.edges import Readings

S = 10**9
#: A clock is not set twice within so long, and an agent that is told of it has read it within half of that.
APART_NS = 10**7
_IN_BURST = 10


@dataclass
class Clock:
    """Shows `shown` at the true times `at`, straight between them; a step is two entries at times 1 ns apart."""

    at: np.ndarray
    shown: np.ndarray

    def read(self, true_ns):
        true_ns = np.asarray(true_ns, np.int64)
        k = np.clip(np.searchsorted(self.at, true_ns, side="right") - 1, 0, len(self.at) - 2)
        rise, run = (self.shown[k + 1] - self.shown[k]).astype(float), (self.at[k + 1] - self.at[k]).astype(float)
        return self.shown[k] + np.floor((true_ns - self.at[k]) * (rise / run)).astype(np.int64)

    def when(self, shown_ns):
        """Return all true times at which it began to show `shown_ns`, rising."""
        rise = self.shown[1:] - self.shown[:-1]
        k = np.flatnonzero((self.shown[:-1] <= shown_ns) & (shown_ns < self.shown[1:]))
        return self.at[k] + ((shown_ns - self.shown[k]) * ((self.at[k + 1] - self.at[k]) / rise[k])).astype(np.int64)


@dataclass
class Halted:
    """A clock of a machine whose time is `machine`: it stands still while that does, and goes back with it."""

    base: Clock
    machine: Clock

    def read(self, true_ns):
        return self.base.read(self.machine.read(true_ns))


@dataclass
class Counter:
    """Counts `hz` ticks in each second that `base` shows."""

    base: Clock
    hz: int

    def read(self, true_ns):
        whole, rest = np.divmod(self.base.read(true_ns), S)
        return whole * self.hz + rest * self.hz // S


def halts(rng, length_ns, restores):
    """Return the time of a machine that is stopped now and then, and the true time at which it goes back, if so."""
    pieces, steps = [(0, 0.0)], []
    for _ in range(rng.integers(0, 3)):
        at, took = int(rng.integers(1, length_ns)), int(np.exp(rng.uniform(*np.log((10**4, 10**11)))))
        pieces += [(at, -1e6), (min(at + took, length_ns - 1), 0.0)]
    back = int(rng.integers(length_ns // 3, length_ns - length_ns // 3)) if restores else length_ns
    if restores:
        steps = [(back, -int(rng.integers(1, length_ns // 6)))]
    return clock(0, length_ns, pieces, steps), back


def clock(start_ns, length_ns, pieces, steps=()):
    """Return a clock that begins at `start_ns`; `pieces` are (true time, ppm from there on), `steps` (true time, ns)."""
    changes = sorted({0, length_ns, *(at for at, _ in pieces), *(at + d for at, _ in steps for d in (0, 1))})
    rates, jumps = dict(pieces), {at + 1: by for at, by in steps}
    at, shown, rate = [0], [start_ns], rates.get(0, 0.0)
    for end in changes[1:]:
        took = end - at[-1]
        shown.append(shown[-1] + took + round(took * rate * 1e-6) + jumps.get(end, 0))
        at.append(end)
        rate = rates.get(end, rate)
    return Clock(np.array(at, np.int64), np.array(shown, np.int64))


def random_steps(rng, length_ns, count, *, forward=False):
    """Return (true time, by how much) of `count` steps of 1 us to 17 min, at least `APART_NS` from each other."""
    found = []
    for at in np.sort(rng.integers(2, length_ns - 2, count)).tolist():
        by = int(np.exp(rng.uniform(*np.log((10**3, 10**12)))))
        by = by if forward or rng.random() < 0.5 else -by
        if not found or at - found[-1][0] > APART_NS:
            found.append((at, by))
    return found


def random_clock(rng, start_ns, length_ns, *, ppm=0.0, around=0.0, steps=()):
    """Return a clock that wanders within `ppm` around `around`, and makes these steps."""
    pieces = [(0, around + rng.uniform(-ppm, ppm))]
    pieces += [(int(rng.integers(1, length_ns)), around + rng.uniform(-ppm, ppm)) for _ in range(rng.integers(0, 6))]
    return clock(start_ns, length_ns, pieces, steps)


def with_ahead(base, ahead):
    """Return the clock that shows `base` plus what `ahead`, of the same true times, shows."""
    at = np.unique(np.concatenate([base.at, ahead.at]))
    return Clock(at, base.read(at) + ahead.read(at))


def moments(rng, length_ns, interval_ns, told=()):
    """Return when readings begin and end: one in each `interval_ns` on average, and one soon behind each time `told`."""
    start = np.sort(rng.integers(0, length_ns - 10**6, length_ns // interval_ns + 1))
    start = start[np.concatenate([[True], np.diff(start) > 10**6])]
    if len(told):
        soon = np.sort(told) + rng.integers(20_000, APART_NS // 2, len(told))
        soon = soon[soon < length_ns - 10**6]
        near = (start[:, None] > soon - 10**6) & (start[:, None] < soon + 10**6)
        start = np.sort(np.concatenate([start[~near.any(axis=1)], soon]))
    took = rng.integers(200, 3000, len(start))
    took[rng.random(len(took)) < 0.03] *= 100  # the reader was put aside
    return start, start + took


def local(rng, base, other, start, end):
    """Return Readings of `other` between two reads of `base`, not known to be steady, and their true times."""
    middle = start + ((end - start) * rng.random(len(start))).astype(np.int64)
    x0, x1, y = base.read(start), base.read(end), other.read(middle)
    none = np.zeros(len(x0), np.int64)
    return Readings(x0, x1, y - x1, y - x0, none - 1, none), middle


def pings(rng, guest, host, length_ns, every_ns):
    """Return (t0, t1, t2, t3) of bursts whose ways take long on one side or the other, some lost, and their true times."""
    burst = np.arange(10**6, length_ns - S // 2, every_ns)
    shape = len(burst), _IN_BURST
    ways = [rng.lognormal(mean, sigma, shape).astype(np.int64) for mean, sigma in ((11.5, 1.0), (9, 0.5), (11.5, 1.0))]
    whole = sum(ways) + rng.integers(1000, 50_000, shape)
    first = (burst + rng.integers(0, every_ns // 4, len(burst)))[:, None] + np.cumsum(whole, axis=1) - whole
    times = first[..., None] + np.cumsum([np.zeros(shape, np.int64), *ways], axis=0).transpose(1, 2, 0)
    times = times.reshape(-1, 4)
    times = times[(times[:, 3] < length_ns) & (rng.random(len(times)) > 0.1)]
    times = times[np.argsort(times[:, 0], kind="stable")]
    ends, middle = guest.read(times[:, [0, 3]]), host.read(times[:, 1:3])
    return np.column_stack([ends[:, 0], middle, ends[:, 1]]), times[:, 0]
