"""From samples of a vCPU's thread, and what else is known of its stays, to the shares of an interval.

Counters of /proc/PID/task/TID/schedstat say exactly how long it ran and waited between two samples; what remains it was
away, and the `state` of /proc/PID/task/TID/stat at both samples says how (proc(5), and sched-stats.rst of the kernel's
documentation). Of an interval of samples that lies in the window only in part, the two parts are taken for as unlike
as they can be.

A wait is counted only when it ends: until then `wait_ns` stands still, and then grows by more than the time between two
samples, which says how long it had gone on before the first of them. If that found it asleep, it did not wait then:
since Linux 6.12 the scheduler may count sleep so, where it moves a sleeper to another CPU.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from consumers.coverage import Span, watched
from consumers.verdict.shares import LETTERS, Shares, added

#: Less of an interval than this in a state of sleep is no time that has to be explained.
_REST_MIN: Final = 0.05
_ANY_REST: Final = "STH"
# State and counters of a sample are read one behind the other.
_APART_NS: Final = 1_000_000
_STOPPED: Final = frozenset("Tt")
_ASLEEP: Final = frozenset("SI")


class Sample(NamedTuple):
    """One sample; `None` is not known. Counters are since the thread began."""

    ts_ns: int
    state: str | None
    frozen: bool | None
    run_ns: int | None
    wait_ns: int | None
    timeslices: int | None = None


class Stay(NamedTuple):
    """From `since_ns` to `until_ns` it was one of `letters`."""

    since_ns: int
    until_ns: int
    letters: str


class Monitor(NamedTuple):
    """When the VMM said that the VM was paused, and when that it ran; neither where nobody asked it."""

    paused: tuple[Span, ...] = ()
    running: tuple[Span, ...] = ()


def account(samples: Sequence[Sample], stays: Sequence[Stay], monitor: Monitor, window: Span, error_ns: int) -> Shares:
    """Return the shares of `window`, whose ends are known within `error_ns`; all times are of one clock.

    A pause of the VM goes before `stays`, which are exact and do not overlap, and these before `samples`.
    """
    length_ns = window.until_ns - window.since_ns
    assert length_ns > 0
    exact: list[Stay] = []
    paused = watched(monitor.paused, *window).seen
    for stay in [*(Stay(*span, "T") for span in paused), *stays, *_long_waits(samples)]:
        exact += [Stay(*span, stay.letters) for span in _outside(_spans(exact), _clipped(stay, window))]
    parts: list[tuple[str, float]] = [(stay.letters, stay.until_ns - stay.since_ns) for stay in exact]
    covered = _spans(exact)
    doubtful_ns = 0
    for one, two in pairwise(samples):
        interval = Span(one.ts_ns, two.ts_ns)
        free = _outside(covered, _clipped(interval, window))
        if interval.since_ns < interval.until_ns and free:
            letters = _rest(one, two, runs=watched(monitor.running, *interval).answer == "yes")
            shares = _less(_between(one, two, letters), exact, interval)
            left_ns = sum(mass for _, mass in shares)
            parts += _parts(shares, sum(span.until_ns - span.since_ns for span in free), left_ns)
            covered += free
            guessed = two.timeslices is None or one.timeslices != two.timeslices
            guessed = guessed and not set(_ANY_REST) <= set(letters)
            if guessed and dict(shares).get(letters, 0) > _REST_MIN * (two.ts_ns - one.ts_ns):
                doubtful_ns = max(doubtful_ns, two.ts_ns - one.ts_ns)
    known_ns = sum(mass for _, mass in parts)
    parts.append((LETTERS, length_ns - known_ns))
    error = (2 * error_ns + doubtful_ns) / length_ns
    return added(((letters, mass / length_ns) for letters, mass in parts), min(1.0, error))


def split(shares: Shares, in_guest: float) -> Shares:
    """Return `shares` with the time on a CPU told apart, of which the share `in_guest` of all time was in the guest."""
    masses = dict(shares.masses)
    ran = masses.pop("GX", 0.0)
    guest = min(ran, in_guest)
    return added([*masses.items(), ("G", guest), ("X", ran - guest)], shares.error)


# Waits that went on when a sample was taken, as far as they reached back from it at least.
def _long_waits(samples: Sequence[Sample]) -> Iterator[Stay]:
    for one, two in pairwise(samples):
        before_ns = _before_ns(one, two)
        if before_ns > 0 and not _is_away(one):
            yield Stay(one.ts_ns - before_ns, one.ts_ns, "W")


# What was counted from `one` to `two`, and had gone on before.
def _before_ns(one: Sample, two: Sample) -> int:
    if one.run_ns is None or two.run_ns is None or one.wait_ns is None or two.wait_ns is None:
        return 0
    return two.wait_ns - one.wait_ns + max(two.run_ns - one.run_ns, 0) - (two.ts_ns - one.ts_ns)


def _is_away(sample: Sample) -> bool:
    return sample.state not in (None, "R")


# How long it was what between two samples, in ns.
def _between(one: Sample, two: Sample, rest: str) -> list[tuple[str, float]]:
    length_ns = two.ts_ns - one.ts_ns
    if one.run_ns is None or two.run_ns is None:
        return [(LETTERS, length_ns)]
    ran_ns = min(max(two.run_ns - one.run_ns, 0), length_ns)
    slept = _before_ns(one, two) > _APART_NS and _is_away(one)
    if one.wait_ns is None or two.wait_ns is None or slept:
        return [("GX", ran_ns), ("W" + rest, length_ns - ran_ns)]
    waited_ns = min(max(two.wait_ns - one.wait_ns, 0), length_ns - ran_ns)
    return [("GX", ran_ns), ("W", waited_ns), (rest, length_ns - ran_ns - waited_ns)]


# What a thread was that neither ran nor waited, by what it was found as at both ends.
def _rest(one: Sample, two: Sample, *, runs: bool) -> str:
    found = {letter for each in (one, two) for letter in _away(each, runs=runs)} or set(_ANY_REST)
    if two.state == "R" and two.timeslices is not None and one.timeslices == two.timeslices:
        # It did not get a CPU anew and is ready: it waits, uncounted, or runs where the tick is off and counts late.
        found |= set("GXW")
    return "".join(sorted(found, key=LETTERS.index))


def _away(sample: Sample, *, runs: bool) -> str:
    if sample.frozen or sample.state in _STOPPED:
        return "T"
    # A freezer's sleep is one of these two, and a VM that its VMM paused is asleep like an idle one.
    if sample.state == "D":
        return "S" if sample.frozen is False else "ST"
    if sample.state in _ASLEEP:
        return "SH" if sample.frozen is False and runs else "STH"
    return ""


# What remains of an interval's shares for the time that is not known exactly.
def _less(shares: list[tuple[str, float]], exact: Sequence[Stay], interval: Span) -> list[tuple[str, float]]:
    left = dict(shares)
    for stay in exact:
        span = _clipped(stay, interval)
        gone_ns = float(span.until_ns - span.since_ns)
        fits = sorted((each for each in left if set(stay.letters) <= set(each)), key=len)
        # What fits nowhere was not counted yet: that is in what counters know least of.
        for letters in (*fits, *sorted(set(left) - set(fits), key=len, reverse=True)):
            if gone_ns > 0:
                taken_ns = min(gone_ns, left[letters])
                left[letters], gone_ns = left[letters] - taken_ns, gone_ns - taken_ns
    return list(left.items())


# Of an interval of which only `taken_ns` count: how much of each was in there at least, and what the remainder can be,
# in which there is of none more than there was in all.
def _parts(shares: list[tuple[str, float]], taken_ns: float, length_ns: float) -> Iterator[tuple[str, float]]:
    left_ns = taken_ns
    spare: list[tuple[float, str]] = []
    for letters, mass in shares:
        certain = max(0.0, mass - (length_ns - taken_ns))
        left_ns -= certain
        spare.append((mass - certain, letters))
        yield letters, certain
    spare.sort()
    for i, (mass, _) in enumerate(spare):
        part_ns = min(mass, left_ns)
        left_ns -= part_ns
        yield "".join(dict.fromkeys(letter for _, letters in spare[i:] for letter in letters)), part_ns


def _spans(stays: Sequence[Stay]) -> list[Span]:
    return [Span(stay.since_ns, stay.until_ns) for stay in stays]


def _clipped(stay: Stay | Span, window: Span) -> Span:
    return Span(max(stay.since_ns, window.since_ns), min(stay.until_ns, window.until_ns))


# What of `span` lies in none of `covered`.
def _outside(covered: Sequence[Span], span: Span) -> list[Span]:
    return list(watched(covered, *span).blind) if span.since_ns < span.until_ns else []
