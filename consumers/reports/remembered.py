"""What an assembler of reports remembers between lines, as JSON values: open reports, and which lines it has seen."""

from collections import deque
from typing import Any, Final
from zlib import crc32

from consumers.reports.codec import from_json, to_json
from consumers.reports.frames import Frame
from consumers.reports.opened import Opened
from consumers.reports.report import Line
from consumers.reports.shape import CpuRow

#: Lines remembered while a report is open, and start lines remembered always.
LINES_MAX: Final = 512
STARTS_MAX: Final = 32


class Seen:
    """Says which lines came before: records by their number, text by its time and content (two consoles, a replay).

    Text without times is the same only where it follows itself.
    """

    def __init__(self) -> None:
        self._lines: deque[int] = deque(maxlen=LINES_MAX)
        self._starts: deque[int] = deque(maxlen=STARTS_MAX)
        self._known: set[int] = set()

    def again(self, line: Line, *, opens: bool) -> bool:
        """Return whether `line` was seen, and remember it; `opens`: for longer than until all is quiet."""
        key = _key(line)
        if line.ts_ns is None and not line.structured:
            seen = bool(self._lines) and self._lines[-1] == key
        else:
            seen = key in self._known or key in self._starts
        if seen:
            return True
        if len(self._lines) == LINES_MAX:
            self._known.discard(self._lines[0])
        self._lines.append(key)
        self._known.add(key)
        if opens and (line.structured or line.ts_ns is not None):
            self._starts.append(key)
        return False

    def forget_lines(self) -> None:
        """Forget all but the start lines: nothing is open."""
        self._lines.clear()
        self._known.clear()

    def to_json(self) -> list[list[int]]:
        """Return this as JSON values."""
        return [list(self._lines), list(self._starts)]

    @classmethod
    def from_json(cls, value: list[list[int]]) -> "Seen":
        """Return what `to_json` gave."""
        self = cls()
        self._lines.extend(value[0])
        self._starts.extend(value[1])
        self._known = set(self._lines)
        return self


def opened_to_json(each: Opened) -> dict[str, Any]:
    """Return an open report as JSON values."""
    values: dict[str, Any] = {name: getattr(each, name) for name in Opened.__slots__}
    values["report"] = to_json(each.report)
    values |= {name: list(values[name]) for name in ("callers", "awaited")}
    values |= {name: [list(part) for part in values[name]] for name in ("rows", "stack")}
    return values


def opened_from_json(values: dict[str, Any]) -> Opened:
    """Return the open report that `opened_to_json` made `values` of."""
    values = dict(values)
    values["report"] = from_json(values["report"])
    values["rows"] = [CpuRow(*row) for row in values["rows"]]
    values["stack"] = [Frame(*frame) for frame in values["stack"]]
    return Opened(**values)


def _key(line: Line) -> int:
    if line.structured:
        return line.place
    return -1 - crc32(f"{line.ts_ns} {line.text}".encode("utf-8", "replace"))
