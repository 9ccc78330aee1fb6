"""Clocks whose truth is known: random histories of drift, steps, pauses, delay and loss, and what would be read of them."""

from dataclasses import dataclass

import numpy as np

from consumers.clocks.edges import Readings

S = 10**9


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


def random_clock(rng, start_ns, length_ns, *, ppm=0.0, around=0.0, steps=0, step_ns=(10**3, 10**12), forward=False):
    """Return a clock that wanders within `ppm` around `around`, and steps so often."""
    pieces = [(0, around + rng.uniform(-ppm, ppm))]
    pieces += [(int(rng.integers(1, length_ns)), around + rng.uniform(-ppm, ppm)) for _ in range(rng.integers(0, 6))]
    found = []
    for _ in range(steps):
        by = int(np.exp(rng.uniform(*np.log(step_ns))))
        found.append((int(rng.integers(2, length_ns - 2)), by if forward or rng.random() < 0.5 else -by))
    return clock(start_ns, length_ns, pieces, found)


def with_ahead(base, ahead):
    """Return the clock that shows `base` plus what `ahead`, of the same true times, shows."""
    at = np.unique(np.concatenate([base.at, ahead.at]))
    return Clock(at, base.read(at) + ahead.read(at))


def local(rng, base, other, length_ns, interval_ns):
    """Return Readings of `other` between two reads of `base`, not known to be steady, and their true times."""
    took = rng.integers(200, 3000, length_ns // interval_ns + 1)
    took[rng.random(len(took)) < 0.03] *= 100  # the reader was put aside
    start = np.sort(rng.integers(0, length_ns - 10**6, len(took)))
    start = start[np.concatenate([[True], np.diff(start) > 10**6])]
    took = took[: len(start)]
    middle = start + (took * rng.random(len(took))).astype(np.int64)
    x0, x1, y = base.read(start), base.read(start + took), other.read(middle)
    none = np.zeros(len(x0), np.int64)
    return Readings(x0, x1, y - x1, y - x0, none - 1, none), middle


def pings(rng, guest, host, length_ns, every_ns):
    """Return (t0, t1, t2, t3) of bursts whose ways take long on one side or the other, some lost, and their true times."""
    rows, when = [], []
    for burst in np.arange(10**6, length_ns - S // 2, every_ns):
        at = int(burst + rng.integers(0, every_ns // 4))
        for _ in range(10):
            there, host_took, back = (int(v) for v in rng.lognormal((11.5, 9, 11.5), (1.0, 0.5, 1.0)))
            if at + there + host_took + back >= length_ns:
                break
            times = np.array([at, at + there, at + there + host_took, at + there + host_took + back])
            (t0, t3), (t1, t2) = guest.read(times[[0, 3]]), host.read(times[[1, 2]])
            if rng.random() > 0.1:
                rows.append((t0, t1, t2, t3))
                when.append(int(times[0]))
            at = int(times[3]) + int(rng.integers(1000, 50_000))
    return np.array(rows, np.int64).reshape(-1, 4), np.array(when, np.int64)
