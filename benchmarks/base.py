"""What every benchmark takes and gives: options in, rows of the table out."""

import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Options(NamedTuple):
    """The command line."""

    quick: bool = False
    captures: Path | None = None
    soak_s: float = 0.0
    histories: int = 0


class Reach(NamedTuple):
    """What a figure is to reach; `inclusive` False means that the bound itself is not enough."""

    bound: float
    at_least: bool = False
    inclusive: bool = True

    def __str__(self) -> str:
        sign = (">" if self.at_least else "<") + ("=" if self.inclusive else "")
        return f"{sign} {self.bound:g}"

    def met(self, value: float) -> bool:
        """Return whether `value` reaches it."""
        if value == self.bound:
            return self.inclusive
        return (value > self.bound) == self.at_least


class Row(NamedTuple):
    """One line of the table: repeated measurements of one figure. Judged by the median."""

    what: str
    values: list[float]
    unit: str
    reach: Reach | None
    how: str


class Skipped(Exception):  # noqa: N818 - not an error
    """This benchmark cannot run here; the text says why."""


def log(text: str) -> None:
    """Say on stderr what is going on; the table on stdout comes last."""
    print(text, file=sys.stderr, flush=True)


def percentile(values: list[float], percent: float) -> float:
    """Return the smallest of `values` that `percent` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="hypocenter-bench-") as name:
        yield Path(name)
