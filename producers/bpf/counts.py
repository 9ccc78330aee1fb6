"""What BPF programs count and measure: a sample of all of them at an interval. The surface `bpf` opens it.

At each interval every program has a record of its sums; a CPU or a histogram has one when it changed since the record
before, so where the sums go on and it has none, it did not. All numbers count from the load, which `loaded_ns` names.
Source: `bpf_programs/record.h`; Documentation/admin-guide/sysctl/kernel.rst (bpf_stats_enabled).
"""

import time
from pathlib import Path
from typing import Any, Final

from producers.bpf.program import Counts, Program
from producers.registry import Opening
from producers.source import Source
from producers.state_source import StateSource
from schemas import limits
from schemas.state import Record
from schemas.stream import Stream
from schemas.surfaces import SURFACES

SURFACE: Final = "bpf-counts"
COUNTS: Final = "bpf_counts"
HISTOGRAMS: Final = "bpf_histograms"
_STATS: Final = Path("/proc/sys/kernel/bpf_stats_enabled")


def source(opening: Opening, programs: list[Program], interval_s: float) -> Source:
    """Return the source of samples of `programs`, which are loaded until it is closed."""
    stream = Stream(*opening.identity, SURFACE, "", SURFACES[SURFACE].clock)
    known = opening.known.get(stream)
    return StateSource(stream, known.next if known else 0, Sampler(programs).sample, interval_s=interval_s)


class Sampler:
    """Samples of `programs`, each with what changed since the one before."""

    def __init__(self, programs: list[Program]) -> None:
        self._programs = programs
        self._counts: dict[str, list[Counts]] = {}
        self._histograms: dict[str, dict[str, list[int]]] = {}

    def sample(self) -> list[Record]:
        """Return the records of one sample of all programs."""
        return [record for program in self._programs for record in self._of(program)]

    def _of(self, program: Program) -> list[Record]:
        now_ns = time.monotonic_ns()
        counts, measured = program.counts(), program.measures()
        about = {"program": program.name, "loaded_ns": program.loaded_ns}
        plain = {name: _bounded(slots[0]) for name, slots in measured.items() if len(slots) == 1}
        sums = Counts(*(sum(values) for values in zip(*counts, strict=True)))
        found = [Record(COUNTS, now_ns, about | {"cpu": None} | _fields(sums) | _runs(program) | {"measures": plain})]
        before = self._counts.get(program.name, [Counts(0, 0, 0, 0)] * len(counts))
        found += [
            Record(COUNTS, now_ns, about | {"cpu": cpu} | _fields(each))
            for cpu, (each, earlier) in enumerate(zip(counts, before, strict=True))
            if each != earlier
        ]
        histograms = {name: _trimmed(slots) for name, slots in measured.items() if len(slots) > 1}
        known = self._histograms.get(program.name, {})
        found += [
            Record(HISTOGRAMS, now_ns, about | {"measure": name, "slots": slots})
            for name, slots in histograms.items()
            if slots != known.get(name, [])
        ]
        self._counts[program.name], self._histograms[program.name] = counts, histograms
        return found


def _fields(counts: Counts) -> dict[str, Any]:
    return {name: _bounded(value) for name, value in counts._asdict().items()}


# None where the kernel did not measure: no run of a program takes no time.
def _runs(program: Program) -> dict[str, Any]:
    runs = program.runs()
    timed = runs.runs > 0 or _STATS.read_text(encoding="ascii").strip() == "1"
    return {
        "runs": _bounded(runs.runs) if timed else None,
        "run_ns": _bounded(runs.run_ns) if timed else None,
        "recursion_misses": _bounded(runs.recursion_misses),
    }


# The highest slots are empty: a wait of 2^40 ns is a quarter of an hour.
def _trimmed(slots: list[int]) -> list[int]:
    last = max((slot for slot, count in enumerate(slots) if count), default=-1)
    return [_bounded(count) for count in slots[: last + 1]]


def _bounded(value: int) -> int:
    return min(value, limits.INT64_MAX)
