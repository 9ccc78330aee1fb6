"""Jiffies to seconds where nobody printed the kernel's HZ.

RCU prints lengths in jiffies (kernel/rcu/tree_stall.h). HZ is known from the guest's boot messages, or from two reports
of one stall; else a length is taken for what it most likely is: a stall reported at its timeout, 21 s upstream and 60 s
in distributions, again after three timeouts more. Where several readings remain the answer is a range.
"""

from functools import lru_cache
from typing import Final

from consumers.reports.report import Seconds

#: CONFIG_HZ of x86 and arm64 kernels, and of the rest that are still built.
HZ_USUAL: Final = (100, 250, 300, 1000)
_HZ_ALL: Final = (*HZ_USUAL, 128, 200, 256, 500, 1024)
_TIMEOUTS_S: Final = (21.0, 60.0)
#: A re-report comes after three timeouts; so many are looked at.
_REPORTS_MAX: Final = 10
#: How late a report may be: the check runs in the tick.
_LATE: Final = 0.02
# When a report comes at the soonest and how late it may be, of each timeout; by how many came before.
_DUE_S: Final = tuple(
    tuple((at_s, at_s * _LATE) for at_s in (timeout_s * (1 + 3 * nth) for timeout_s in _TIMEOUTS_S))
    for nth in range(_REPORTS_MAX)
)
_LEAST_TIMEOUT_S: Final = 3.0  # the smallest that the kernel accepts
_HZ_ERROR: Final = 0.05
_BOGOMIPS_LPJ: Final = 500_000


# Asked again with every line of a report.
@lru_cache(maxsize=256)
def seconds(jiffies: int, hz: int | None = None) -> Seconds:
    """Return how long `jiffies` are; `hz` None: not known."""
    if hz:
        return Seconds(jiffies / hz, jiffies / hz)
    readings = [jiffies / each for each in HZ_USUAL]
    for due in _DUE_S:
        found = [each for each in readings for at_s, late_s in due if 0 <= each - at_s <= late_s]
        # A first report is more likely than the tenth of another HZ, two of the same number are not told apart.
        if found:
            return Seconds(min(found), max(found))
    # Timeouts set by hand are whole seconds.
    whole = [each for each in readings if each >= _LEAST_TIMEOUT_S and each % 1 <= _LATE * max(1.0, each / 10)]
    found = whole or readings
    return Seconds(min(found), max(found))


def hz_from_two(jiffies: int, ts_ns: int, jiffies_later: int, ts_ns_later: int) -> int | None:
    """Return HZ from two reports of one stall, each its length in jiffies and its time; None where it is none."""
    passed_s = (ts_ns_later - ts_ns) / 1e9
    if passed_s <= 0 or jiffies_later <= jiffies:
        return None
    return _nearest((jiffies_later - jiffies) / passed_s)


def hz_from_lpj(bogomips: float, lpj: int) -> int | None:
    """Return HZ from the boot line of the delay loop (init/calibrate.c); None where it is none."""
    return _nearest(bogomips * _BOGOMIPS_LPJ / lpj) if lpj else None


def _nearest(value: float) -> int | None:
    best = min(_HZ_ALL, key=lambda each: abs(each - value))
    return best if abs(best - value) <= best * _HZ_ERROR else None
