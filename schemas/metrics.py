"""Metrics of every program: families as data, sums with a bounded set of labels, and Prometheus's text of them.

The bytes are version 0.0.4 of the text format (prometheus.io, "Exposition formats"). One thread counts, and
another one may take what is counted at any time.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Label sets of one family. A guest may invent names for ever; what comes beyond is summed up under `OTHER`.
LABEL_SETS_MAX: Final = 256
LABEL_CHARS_MAX: Final = 128
OTHER: Final = "other"

#: Values by those of the family's labels, in their order.
Values = Mapping[tuple[str, ...], float]


class Type(StrEnum):
    """How a family's values behave: they only grow, or also fall, or are counted into buckets."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Family(NamedTuple):
    """One metric: its name with the unit last (`_total` behind it for counters), what it says, its labels."""

    name: str
    type: Type
    help: str
    labels: tuple[str, ...] = ()


class Counts:
    """Sums by labels, of which there are never more than `LABEL_SETS_MAX` and one."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], float] = {}

    def add(self, labels: tuple[str, ...], count: float = 1) -> None:
        """Add `count` to the sum of `labels`; values are cut at `LABEL_CHARS_MAX`."""
        if labels not in self._sums:
            labels = tuple(label[:LABEL_CHARS_MAX] for label in labels)
            if labels not in self._sums and len(self._sums) >= LABEL_SETS_MAX:
                labels = (OTHER,) * len(labels)
        self._sums[labels] = self._sums.get(labels, 0) + count

    def taken(self) -> dict[tuple[str, ...], float]:
        """Return the sums as they are now; from any thread, because one call copies them."""
        return self._sums.copy()


class Histogram:
    """Counts of values up to each of `bounds`, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Enter one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> Iterable[str]:
        """Yield the lines of the family `name`."""
        total, counts = 0, list(self._counts)
        for bound, count in zip([*map(_number, self._bounds), "+Inf"], counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}\n'
        yield f"{name}_sum {_number(self._sum)}\n"
        yield f"{name}_count {total}\n"


def expose(found: Iterable[tuple[Family, float | Values | Histogram | None]]) -> bytes:
    """Return the text of `found`; of a family whose value is None nobody knows one now, and it has no sample."""
    return "".join(line for family, value in found for line in _lines(family, value)).encode("utf-8", "replace")


def _lines(family: Family, value: float | Values | Histogram | None) -> Iterable[str]:
    yield f"# HELP {family.name} {_escaped(family.help)}\n"
    yield f"# TYPE {family.name} {family.type}\n"
    if isinstance(value, Histogram):
        yield from value.lines(family.name)
    elif isinstance(value, Mapping):
        for labels, each in value.items():
            pairs = zip(family.labels, labels, strict=True)
            inner = ",".join(f'{name}="{_quoted(label)}"' for name, label in pairs)
            yield f"{family.name}{{{inner}}} {_number(each)}\n"
    elif value is not None:
        yield f"{family.name} {_number(value)}\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
