"""How long an incident lasted: every length that is known, and the one that is used.

`printed` is the longest that a report names, `span` from the start of the first stall to the last report of one.
Printed lengths are cut to whole seconds, so a span counts as longer only from a second on. Others measure too:
`counter` is what the kernel's own counters say, `heartbeat` the gap between two signs of life.
"""

from collections.abc import Sequence
from operator import attrgetter, itemgetter
from typing import Final

from consumers.incidents.joining import S
from consumers.reports.report import Kind, Report, Seconds

PRINTED: Final = "printed"
SPAN: Final = "span"
_SPAN_LONGER_S: Final = 1.0
_HIGH_LOW, _START = attrgetter("high", "low"), itemgetter(0)


def known(reports: Sequence[Report], starts: Sequence[int | None]) -> dict[str, Seconds]:
    """Return what the reports themselves tell, `printed` and `span`; `starts` is when the stall of each began, ns."""
    stalls = [pair for pair in zip(starts, reports, strict=True) if pair[1].kind is not Kind.PANIC]
    found = {}
    printed = [each.duration for _, each in stalls if each.duration is not None]
    if printed:
        found[PRINTED] = max(printed, key=_HIGH_LOW)
    timed = [pair for pair in stalls if pair[0] is not None]
    if len(timed) > 1:
        last_ns = max(each.ts_ns or 0 for _, each in timed)
        _, first = min(timed, key=_START)
        gap_s = (last_ns - (first.ts_ns or 0)) / S
        own = first.duration or Seconds(0.0, 0.0)
        found[SPAN] = Seconds(round(gap_s + own.low, 6), round(gap_s + own.high, 6))
    return found


def used(lengths: dict[str, Seconds]) -> tuple[Seconds | None, str]:
    """Return the longest of `lengths` and its name; without any, None and an empty name."""
    best, name = lengths.get(PRINTED), PRINTED if PRINTED in lengths else ""
    for each, value in sorted(lengths.items()):
        if best is None or value.high > best.high + (_SPAN_LONGER_S if name == PRINTED else 0.0):
            best, name = value, each
    return best, name
