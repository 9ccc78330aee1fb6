"""The surface `clocks`: this machine's clocks read together, at every interval and whenever somebody sets one.

Nothing is compared here: a reading says what the clocks were, and within how many ns of each other; which times of one
clock are which of another is worked out where it is asked (`consumers/clocks/`).
"""

import contextlib
import logging
import os
from functools import reduce
from typing import Final

from producers import clock_readings, tsc_clock
from producers.clock_steps import ClockSteps
from producers.printk_clock import PrintkClock, PrintkReading, spanning
from producers.registry import Opening
from producers.source import Source
from producers.state_source import StateSource
from producers.tsc_clock import TscClock, TscReading
from schemas.errors import AccessError
from schemas.state import Record
from schemas.stream import Stream
from schemas.surfaces import surface

log = logging.getLogger(__name__)
NAME: Final = "clocks"
READINGS: Final = "clock_readings"
_PERF_EVENT: Final = "perf-event"


class _Sampler:
    """Takes readings; what may differ between CPUs is read on two, others each time, so that it shows."""

    def __init__(self, steps: ClockSteps, printk: PrintkClock | None, tsc: TscClock | None) -> None:
        self._steps = steps
        self._printk = printk
        self._tsc = tsc
        self._taken = 0

    def sample(self) -> list[Record]:
        stepped = self._steps.stepped()
        clocks = clock_readings.read_all_clocks()
        fields = {**clocks._asdict(), "tsc": None, "cause": "step" if stepped else "interval"}
        fields |= {"slew_ppb": clock_readings.slew_ppb(), **self._of_cpus()}
        self._taken += 1
        return [Record(READINGS, clocks.boottime_ns, fields)]

    def close(self) -> None:
        self._steps.close()
        if self._printk is not None:
            self._printk.close()

    def _of_cpus(self) -> dict[str, int | str]:
        if self._printk is None and self._tsc is None:
            return {}
        try:
            allowed = os.sched_getaffinity(0)
        except OSError:  # forbidden: then where we are
            return {**_printk_fields([self._read_printk()]), **_tsc_fields([self._read_tsc()])}
        cpus = sorted(allowed)
        pair = sorted({cpus[(self._taken + i) % len(cpus)] for i in range(2)})
        printk, tsc = [], []
        try:
            for cpu in pair:
                _go_to({cpu})
                printk.append(self._read_printk())
                tsc.append(self._read_tsc())
            if len(pair) > 1 and self._tsc is not None:
                _go_to({pair[0]})
                tsc.append(self._read_tsc())
        finally:
            _go_to(allowed)
        return {**_printk_fields(printk), **_tsc_fields(tsc)}

    def _read_printk(self) -> PrintkReading | None:
        return None if self._printk is None else self._printk.read()

    def _read_tsc(self) -> TscReading | None:
        return None if self._tsc is None else self._tsc.read()


def _printk_fields(found: list[PrintkReading | None]) -> dict[str, int | str]:
    good = [reading for reading in found if reading is not None]
    if not good:
        return {}
    reading = reduce(spanning, good)
    return {
        "printk_ns": reading.printk_ns,
        "printk_monotonic_ns": reading.monotonic_ns,
        "printk_bracket_ns": reading.bracket_ns,
        "printk_cpu": reading.cpu,
        "how": _PERF_EVENT,
    }


# Of one CPU, or of one, another and the first again.
def _tsc_fields(found: list[TscReading | None]) -> dict[str, int]:
    good = [reading for reading in found if reading is not None]
    if not good or len(good) != len(found):
        return {}
    reading = tsc_clock.spanning(good[0], good[1], good[2]) if len(good) > 1 else good[0]
    if reading is None:
        return {}
    return {
        "tsc": reading.ticks,
        "tsc_monotonic_ns": reading.monotonic_ns,
        "tsc_bracket_ns": reading.bracket_ns,
        "tsc_cpu": reading.cpu,
    }


# Where it is forbidden, or the CPU has gone, the reading is one of wherever we are.
def _go_to(cpus: set[int]) -> None:
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, cpus)


def open_sources(opening: Opening) -> list[Source]:
    """Return the one source of this surface.

    Raises:
        AccessError: the kernel does not tell when a clock is set.
    """
    who = opening.identity
    stream = Stream(who.machine, who.boot_id, who.layer, NAME, "", surface(NAME).clock)
    known = opening.known.get(stream)
    steps = _steps()
    sampler = _Sampler(steps, _printk_clock(), _tsc_clock())
    interval_s = opening.config.clocks.interval_s
    where = (stream, known.next if known else 0, sampler.sample)
    return [StateSource(*where, interval_s=interval_s, fileno_of=steps.fileno, on_close=sampler.close)]


def check() -> str:
    """Return which clocks are read, and why printk's or the CPU's counter is not.

    Raises:
        AccessError: the kernel does not tell when a clock is set.
    """
    _steps().close()
    return f"realtime, monotonic, monotonic_raw, boottime, tai{_said_of_printk()}{_said_of_tsc()}"


def _said_of_printk() -> str:
    try:
        PrintkClock().close()
    except AccessError as e:
        return f"; not printk's own: {e}"
    return ", printk's own by a perf event"


def _said_of_tsc() -> str:
    try:
        TscClock()
    except AccessError as e:
        return f"; not the CPU's counter: {e}"
    return ", the CPU's counter"


def _steps() -> ClockSteps:
    try:
        return ClockSteps()
    except OSError as e:
        raise AccessError(f"nothing tells when a clock is set: {e}") from None


# Without it readings are of the other clocks alone; `check` says why.
def _printk_clock() -> PrintkClock | None:
    try:
        return PrintkClock()
    except AccessError as e:
        log.warning("clocks: printk's own is not read: %s", e)
        return None


def _tsc_clock() -> TscClock | None:
    try:
        return TscClock()
    except AccessError as e:
        log.warning("clocks: the CPU's counter is not read: %s", e)
        return None
