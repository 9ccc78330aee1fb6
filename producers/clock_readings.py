"""Several clocks read together: all between two readings of CLOCK_MONOTONIC; see clock_gettime(2), adjtimex(2)."""

import ctypes
import time
from typing import Final, NamedTuple

_TRIES: Final = 5
#: The kernel keeps a frequency in ppm with 16 bits behind the point, and a tick in us, nominally 10 ms.
_FREQUENCY_UNIT: Final = 1 << 16
_TICK_US: Final = 10_000
_TICK_PPB_PER_US: Final = 100_000
#: Bits of `status`: an offset, or a frequency, is being taken from outside at this moment.
_STA_PPSTIME: Final = 0x0004
_STA_PPSFREQ: Final = 0x0002
_ADJ_OFFSET_SS_READ: Final = 0xA001
#: Longer than `struct timex` of any machine.
_TIMEX_BYTES: Final = 256


class ClockReading(NamedTuple):
    """The clocks at one moment, in ns: all read within `bracket_ns` of each other, the tightest of a few tries."""

    realtime_ns: int
    monotonic_ns: int
    boottime_ns: int
    bracket_ns: int


class AllClocks(NamedTuple):
    """As `ClockReading`, with what is wanted less often; `monotonic_ns` is the middle of the bracket."""

    realtime_ns: int
    monotonic_ns: int
    monotonic_raw_ns: int
    boottime_ns: int
    tai_ns: int
    bracket_ns: int


class _Timex(ctypes.Structure):
    # The fields of `struct timex` up to those that are used (include/uapi/linux/timex.h).
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time_s", ctypes.c_long),
        ("time_us", ctypes.c_long),
        ("tick", ctypes.c_long),
        ("rest", ctypes.c_char * _TIMEX_BYTES),
    )


_libc: Final = ctypes.CDLL(None)


def read_clocks() -> ClockReading:
    """Return the tightest of a few readings."""
    return min((_read_once() for _ in range(_TRIES)), key=lambda reading: reading.bracket_ns)


def read_all_clocks() -> AllClocks:
    """Return the tightest of a few readings of all clocks."""
    return min((_read_all_once() for _ in range(_TRIES)), key=lambda reading: reading.bracket_ns)


def slew_ppb() -> int | None:
    """Return by how many ppb CLOCK_MONOTONIC is being made faster than CLOCK_MONOTONIC_RAW, by order of adjtimex(2).

    None where that is not one steady number (an offset is being worked off), or may not be read.
    """
    state, single = _Timex(), _Timex()
    single.modes = _ADJ_OFFSET_SS_READ
    if _libc.adjtimex(ctypes.byref(state)) < 0 or _libc.adjtimex(ctypes.byref(single)) < 0:
        return None
    if state.offset or single.offset or state.status & (_STA_PPSTIME | _STA_PPSFREQ):
        return None
    ticks = int(state.tick) - _TICK_US
    return int(state.freq) * 1000 // _FREQUENCY_UNIT + ticks * _TICK_PPB_PER_US


def _read_once() -> ClockReading:
    before = time.monotonic_ns()
    realtime = time.time_ns()
    boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    after = time.monotonic_ns()
    return ClockReading(realtime, (before + after) // 2, boottime, after - before)


def _read_all_once() -> AllClocks:
    read = time.clock_gettime_ns
    before = time.monotonic_ns()
    realtime, raw = read(time.CLOCK_REALTIME), read(time.CLOCK_MONOTONIC_RAW)
    boottime, tai = read(time.CLOCK_BOOTTIME), read(time.CLOCK_TAI)
    after = time.monotonic_ns()
    return AllClocks(realtime, (before + after) // 2, raw, boottime, tai, after - before)
