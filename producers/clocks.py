"""The surface `clocks`: this machine's clocks read together, at every interval and whenever somebody sets one.

Nothing is compared here: a reading says what the clocks were, and within how many ns of each other; which times of one
clock are which of another is worked out where it is asked (`consumers/clocks/`).
"""

import contextlib
import logging
import os
from functools import reduce
from typing import Final

from producers import clock_readings, kmsg, tsc_clock
from producers.clock_steps import ClockSteps
from producers.printk_clock import PrintkClock, PrintkReading, spanning
from producers.printk_log import PrintkLog
from producers.registry import Opening
from producers.source import Source
from producers.state_source import StateSource
from producers.tsc_clock import TscClock, TscReading
from schemas.config import ClocksConfig
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

    def __init__(self, steps: ClockSteps, printk: PrintkClock | PrintkLog | None, tsc: TscClock | None) -> None:
        self._steps = steps
        self._printk = printk if isinstance(printk, PrintkClock) else None
        self._kernel_log = printk if isinstance(printk, PrintkLog) else None
        self._tsc = tsc
        self._taken = 0

    def sample(self) -> list[Record]:
        stepped = self._steps.stepped()
        clocks = clock_readings.read_all_clocks()
        fields = {**clocks._asdict(), "tsc": None, "cause": "step" if stepped else "interval"}
        fields |= {"slew_ppb": clock_readings.slew_ppb(), **self._of_cpus()}
        if self._kernel_log is not None:
            reading, how = self._kernel_log.read()
            fields |= _printk_fields([reading], how)
        self._taken += 1
        return [Record(READINGS, clocks.boottime_ns, fields)]

    def close(self) -> None:
        for each in (self._kernel_log, self._printk, self._steps):
            if each is not None:
                each.close()

    def fileno(self) -> int:
        return self._steps.fileno() if self._kernel_log is None else self._kernel_log.fileno()

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


def _printk_fields(found: list[PrintkReading | None], how: str = _PERF_EVENT) -> dict[str, int | str]:
    good = [reading for reading in found if reading is not None]
    if not good:
        return {}
    reading = reduce(spanning, good)
    fields: dict[str, int | str] = {
        "printk_ns": reading.printk_ns,
        "printk_monotonic_ns": reading.monotonic_ns,
        "printk_bracket_ns": reading.bracket_ns,
        "how": how,
    }
    return fields if reading.cpu < 0 else fields | {"printk_cpu": reading.cpu}


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
    config = opening.config.clocks
    sampler = _Sampler(steps, _printk_clock(steps, config), _tsc_clock())
    where = (stream, known.next if known else 0, sampler.sample)
    return [StateSource(*where, interval_s=config.interval_s, fileno_of=sampler.fileno, on_close=sampler.close)]


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
        refused = e
    else:
        return ", printk's own by a perf event"
    try:
        os.close(kmsg.open_device(kmsg.DEVICE))
    except AccessError as e:
        return f"; not printk's own: {refused}; {e}"
    return f", bounds of printk's own by when its records are read ({refused})"


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
def _printk_clock(steps: ClockSteps, config: ClocksConfig) -> PrintkClock | PrintkLog | None:
    try:
        return PrintkClock()
    except AccessError as e:
        refused = e
    try:
        found = PrintkLog(steps.fileno(), config.interval_s, marker=config.printk_marker)
    except AccessError as e:
        log.warning("clocks: printk's own is not read: %s; %s", refused, e)
        return None
    if found.refused:
        log.warning("clocks: no marker can be written to the kernel log: %s", found.refused)
    how = "a record that is written for each reading" if found.marks else "when its records can be read"
    log.warning("clocks: printk's own is known by %s: %s", how, refused)
    return found


def _tsc_clock() -> TscClock | None:
    try:
        return TscClock()
    except AccessError as e:
        log.warning("clocks: the CPU's counter is not read: %s", e)
        return None
