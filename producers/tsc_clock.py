"""The CPU's own counter, read: x86-64's time stamp counter, arm64's virtual counter; `bpf_programs/counter.c` reads it.

It is what the trace clock `x86-tsc` shows (kernel/trace/trace_clock.c, arch/x86/kernel/trace_clock.c). Its rate is not
told here, it follows from the readings. What is taken for granted is that the rate is one: on x86 the CPU says so of
itself (`constant_tsc` and `nonstop_tsc` in /proc/cpuinfo), or the kernel trusts it as its clock. That the counters of
two CPUs agree is not: they are read one after the other, and what they differ by is part of the bracket.
"""

import ctypes
import math
import platform
from pathlib import Path
from typing import Final, NamedTuple

from producers import native
from schemas.errors import AccessError

_TRIES: Final = 5
_TICKS_MAX: Final = (1 << 63) - 1
_STEADY: Final = frozenset({"constant_tsc", "nonstop_tsc"})
_CLOCKSOURCE: Final = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
_CPUINFO: Final = Path("/proc/cpuinfo")


class TscReading(NamedTuple):
    """The counter was at `ticks` within `bracket_ns / 2` of CLOCK_MONOTONIC's `monotonic_ns`, on `cpu`."""

    monotonic_ns: int
    ticks: int
    bracket_ns: int
    cpu: int


class _Counted(ctypes.Structure):
    # `struct counted` of counter.c.
    _fields_ = (
        ("before_ns", ctypes.c_int64),
        ("after_ns", ctypes.c_int64),
        ("ticks", ctypes.c_uint64),
        ("cpu", ctypes.c_int64),
    )


def spanning(one: TscReading, other: TscReading, again: TscReading) -> TscReading | None:
    """Return the reading that holds for two CPUs: its bracket has in it what their counters differ by.

    `one` and `again` are of the first CPU, before and behind `other`. None where that CPU's counter did not go on,
    or too little to tell its rate.
    """
    ran_ns, ticks = again.monotonic_ns - one.monotonic_ns, again.ticks - one.ticks
    unsure_ns = (one.bracket_ns + again.bracket_ns) / 2
    if ran_ns <= unsure_ns or ticks <= 0:
        return None
    slowest, fastest = ticks / (ran_ns + unsure_ns), ticks / (ran_ns - unsure_ns)
    ahead = other.ticks - one.ticks - ticks * (other.monotonic_ns - one.monotonic_ns) / ran_ns
    unsure = (max(one.bracket_ns, again.bracket_ns) + other.bracket_ns) / 2 * fastest
    own = one.bracket_ns / 2 * fastest
    low, high = min(-own, ahead - unsure), max(own, ahead + unsure)
    middle = one.ticks + round((low + high) / 2)
    return one._replace(ticks=middle, bracket_ns=math.ceil((high - low) / slowest) + 2) if middle >= 0 else None


class TscClock:
    """Reads it.

    Raises:
        AccessError: the counter's rate may change, or what reads it was not built.
    """

    def __init__(self) -> None:
        if platform.machine() == "x86_64" and not _is_steady():
            raise AccessError("the rate of this CPU's counter may change (no constant_tsc and nonstop_tsc)")
        try:
            self._helper = native.load("counter")
        except OSError as e:
            raise AccessError(f"what reads it cannot be loaded: run `make bpf` (clang and lld); {e}") from None
        self._helper.counter_read.argtypes = [ctypes.c_uint32, ctypes.c_void_p]
        self._helper.counter_read.restype = None
        self._counted = _Counted()

    def read(self) -> TscReading | None:
        """Return the tightest of a few readings; None where the counter is beyond what a table holds."""
        found = self._counted
        self._helper.counter_read(_TRIES, ctypes.byref(found))
        if found.ticks > _TICKS_MAX:
            return None
        before_ns, after_ns = found.before_ns, found.after_ns
        return TscReading((before_ns + after_ns) // 2, found.ticks, after_ns - before_ns, found.cpu)


def _is_steady() -> bool:
    try:
        if _CLOCKSOURCE.read_text().strip() == "tsc":
            return True
    except OSError:
        pass  # then the CPU's word alone counts
    with _CPUINFO.open() as lines:
        flags = next((line for line in lines if line.startswith("flags")), "")
    return set(flags.split()) >= _STEADY
