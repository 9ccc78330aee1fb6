"""Times and bounds of a timeline as people read them."""

from typing import Final

from consumers.clocks.graph import COUNTERS, REALTIME, Node
from consumers.render import utc
from consumers.timeline.build import Timeline
from consumers.timeline.entries import Entry, Kind

NOT_COMPARABLE: Final = "not comparable"
_UNITS: Final = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"), (1, "ns"))


def head(found: Timeline) -> str:
    """Return whose timeline it is, of which time and on which clock."""
    window = found.window
    if window.axis is None:
        clock = "no clock was read: everything stands where it arrived, in UTC"
    else:
        boot = window.axis.boot_id[:8]
        clock = f"on the clock {window.axis.clock} of {window.axis.machine}, boot {boot}"
    took, start = seconds(found.until_ns - window.start_ns), at(window.start_ns, window.axis)
    return f"{found.scope.title}: {took} s from {start} on, {clock}"


def cut(found: Timeline) -> str:
    """Return the sentence that says that rows were left out."""
    return (
        f"only the first {len(found.entries):,} rows: there are at least {found.left_out:,} more; "
        "narrow it with --since and --until, or raise --limit"
    )


def at(ns: int, axis: Node | None) -> str:
    """Return a time of the clock `axis`: in UTC, or in seconds."""
    if axis is None or axis.clock == REALTIME:
        return f"{utc(ns)}.{ns % 1_000_000_000 // 1000:06d}"
    return seconds(ns)


def bound(entry: Entry) -> str:
    """Return how exactly it is known when `entry` was, rounded up."""
    if entry.bound_ns is None:
        return NOT_COMPARABLE
    ns = entry.bound_ns
    size, unit = next((each for each in _UNITS if ns >= each[0]), _UNITS[-1])
    return f"±{-(-ns * 10 // size) / 10:g} {unit}"


def own_time(entry: Entry) -> str:
    """Return the entry's own time and the name of its clock."""
    if entry.ts_ns is None:
        return "" if entry.kind is Kind.BLIND else "arrived"
    if entry.clock == REALTIME:
        return f"{at(entry.ts_ns, None)[11:]} {entry.clock}"
    return f"{entry.ts_ns if entry.clock in COUNTERS else seconds(entry.ts_ns)} {entry.clock}"


def seconds(ns: int) -> str:
    """Return a number of ns in seconds, to the us."""
    return f"{'-' if ns < 0 else ''}{abs(ns) // 1_000_000_000}.{abs(ns) % 1_000_000_000 // 1000:06d}"
