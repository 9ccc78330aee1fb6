"""A report while its lines still come, and what all who add to it need: limits, numbers, texts cut to size."""

from dataclasses import dataclass, field
from typing import Final

from consumers.reports.frames import Frame
from consumers.reports.report import Line, Report
from consumers.reports.shape import CpuRow

#: Size of the lines kept of one report, as JSON; more are counted. And of a line, a note, a name.
LINES_SIZE_MAX: Final = 6 << 10
LINE_SIZE_MAX: Final = 512
NOTE_SIZE_MAX: Final = 160
NAME_SIZE_MAX: Final = 64
#: CPUs that one report accuses, rows of CPUs and notes that are kept of it.
CPUS_MAX: Final = 256
ROWS_MAX: Final = 64
NOTES_MAX: Final = 12
#: Longest number that is read: what a guest prints may be longer than any integer of ours.
NUMBER_CHARS_MAX: Final = 18
_ESCAPED: Final = 6  # bytes that a character can take as JSON, `\u0000`


@dataclass(slots=True)
class Opened:
    """A report and what is needed to go on with it; `heard_ns`: when its newest line came that the grammar knows."""

    report: Report
    row: str
    callers: list[str] = field(default_factory=list)
    heard_ns: int | None = None
    passed: int = 0  # lines of the log since the newest that the grammar knows
    attached: int = 0
    size: int = 0
    rows: list[CpuRow] = field(default_factory=list)
    stack: list[Frame] = field(default_factory=list)
    section: str = ""
    awaited: list[int] = field(default_factory=list)  # CPUs that were asked for a backtrace and gave none yet
    gapped: bool = False
    described: bool = False  # a line of the body has come

    def note(self, text: str) -> None:
        """Add `text` to the report's notes, once."""
        text = clipped(text, NOTE_SIZE_MAX)
        if text not in self.report.notes and len(self.report.notes) < NOTES_MAX:
            self.report.notes = (*self.report.notes, text)


def clipped(text: str, size_max: int) -> str:
    """Return as much of `text` as takes `size_max` bytes as JSON."""
    return text[:size_max] if _plain(text[:size_max]) else text[: size_max // _ESCAPED]


def note_of(line: Line) -> Line:
    """Return `line` with as much of its text as a note has."""
    return line._replace(text=clipped(line.text, NOTE_SIZE_MAX))


def size_of(text: str) -> int:
    """Return how many bytes `text` takes as JSON, at most."""
    return len(text) * (1 if _plain(text) else _ESCAPED)


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def cpu_list(text: str) -> tuple[int, ...]:
    """Return the CPUs of a kernel's list, `0-3,7`, at most `CPUS_MAX`."""
    if not text:
        return ()
    if text.isdigit():
        only = number(text)
        return () if only is None else (only,)
    found: list[int] = []
    for part in text[: CPUS_MAX * 8].split(","):
        low, _, high = part.partition("-")
        first = number(low)
        last = number(high) if high else first
        if first is not None and last is not None:
            found += range(first, min(last, first + CPUS_MAX) + 1)
    return tuple(found[:CPUS_MAX])


def name_of(text: str | None) -> str | None:
    """Return a task's name, cut to size."""
    return None if text is None else clipped(text, 2 * NAME_SIZE_MAX)


def number(text: str | None) -> int | None:
    """Return the decimal number, None for none or one that no kernel prints."""
    if not text or len(text) > NUMBER_CHARS_MAX:
        return None
    try:
        return int(text)
    except ValueError:
        return None
