"""The surface `clocks`: this machine's clocks read together, at every interval and whenever somebody sets one.

Nothing is compared here: a reading says what the clocks were, and within how many ns of each other; which times of one
clock are which of another is worked out where it is asked (`consumers/clocks/`).
"""

import contextlib
import logging
import os
from functools import reduce
from typing import Final

from producers import clock_readings
from producers.clock_steps import ClockSteps
from producers.printk_clock import PrintkClock, PrintkReading, spanning
from producers.registry import Opening
from producers.source import Source
from producers.state_source import StateSource
from schemas.errors import AccessError
from schemas.state import Record
from schemas.stream import Stream
from schemas.surfaces import surface

log = logging.getLogger(__name__)
NAME: Final = "clocks"
READINGS: Final = "clock_readings"
_PERF_EVENT: Final = "perf-event"


class _Sampler:
    """Takes readings; printk's clock is read on two CPUs, others each time, so that clocks that differ show it."""

    def __init__(self, steps: ClockSteps, printk: PrintkClock | None) -> None:
        self._steps = steps
        self._printk = printk
        self._taken = 0

    def sample(self) -> list[Record]:
        stepped = self._steps.stepped()
        clocks = clock_readings.read_all_clocks()
        fields = {**clocks._asdict(), "tsc": None, "cause": "step" if stepped else "interval"}
        fields |= {"slew_ppb": clock_readings.slew_ppb(), **self._printk_fields()}
        self._taken += 1
        return [Record(READINGS, clocks.boottime_ns, fields)]

    def close(self) -> None:
        self._steps.close()
        if self._printk is not None:
            self._printk.close()

    def _printk_fields(self) -> dict[str, int | str]:
        reading = self._read_printk(self._printk) if self._printk is not None else None
        if reading is None:
            return {}
        return {
            "printk_ns": reading.printk_ns,
            "printk_monotonic_ns": reading.monotonic_ns,
            "printk_bracket_ns": reading.bracket_ns,
            "printk_cpu": reading.cpu,
            "how": _PERF_EVENT,
        }

    def _read_printk(self, printk: PrintkClock) -> PrintkReading | None:
        try:
            allowed = os.sched_getaffinity(0)
        except OSError:  # forbidden: then where we are
            return printk.read()
        cpus = sorted(allowed)
        pair = {cpus[(self._taken + i) % len(cpus)] for i in range(2)}
        try:
            found = [_read_on(printk, cpu) for cpu in sorted(pair)]
        finally:
            _go_to(allowed)
        good = [reading for reading in found if reading is not None]
        return reduce(spanning, good) if good else None


def _read_on(printk: PrintkClock, cpu: int) -> PrintkReading | None:
    _go_to({cpu})
    return printk.read()


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
    sampler = _Sampler(steps, _printk_clock())
    interval_s = opening.config.clocks.interval_s
    where = (stream, known.next if known else 0, sampler.sample)
    return [StateSource(*where, interval_s=interval_s, fileno_of=steps.fileno, on_close=sampler.close)]


def check() -> str:
    """Return which clocks are read, and whether printk's is one of them.

    Raises:
        AccessError: the kernel does not tell when a clock is set.
    """
    _steps().close()
    names = "realtime, monotonic, monotonic_raw, boottime, tai"
    try:
        PrintkClock().close()
    except AccessError as e:
        return f"{names}; not printk's own: {e}"
    return f"{names}, printk's own by a perf event"


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
