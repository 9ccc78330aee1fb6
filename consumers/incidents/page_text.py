"""The page of an incident as text for a terminal: nothing in it moves a cursor, turns text or has no end."""

import io
import textwrap
from collections.abc import Iterable, Iterator
from typing import Final, TextIO

from consumers import render
from consumers.incidents.incident import Incident
from consumers.incidents.page_parts import Item, Page, RawReport
from consumers.incidents.page_timeline import shown
from consumers.render import printable
from consumers.timeline.build import Timeline
from consumers.timeline.entries import Order
from consumers.timeline.shown import at, bound, head

WIDTH: Final = 116
_LABEL: Final = 13
#: Of a line of a kernel log, and of all lines of a report, so much is shown.
LINE_CHARS_MAX: Final = 400
LINES_MAX: Final = 60
_PARAGRAPH_CHARS_MAX: Final = 4_000
_NAME_CHARS_MAX: Final = 64
_MARKS: Final = {Order.KNOWN: "", Order.UNDETERMINED: "~", Order.ARRIVAL: "?"}
_COLUMNS: Final = ("at", "bound", "", "layer", "stream", "what")


def write(page: Page, incident: Incident, rows_max: int, out: TextIO) -> None:
    """Write the page, with at most `rows_max` rows of its timeline."""
    out.write(f"{_cut(page.title, _PARAGRAPH_CHARS_MAX)}\nincident {printable(incident.id)}\n\n")
    out.writelines(line + "\n" for line in _wrapped(" ".join(page.told), "", ""))
    _write_items("VERDICT", page.verdict, out)
    if page.missing:
        _write_items("MISSING, AND HOW TO GET IT", page.missing, out)
    _write_heading("SEVEN QUESTIONS", out)
    for number, (question, lines) in enumerate(page.questions, 1):
        out.write(f"{number}. {_cut(question, LINE_CHARS_MAX)}\n")
        for line in lines:
            out.writelines(each + "\n" for each in _wrapped(line, "   - ", "     "))
    _write_timeline(page, incident, rows_max, out)
    _write_heading("RAW REPORT", out)
    for report in page.reports:
        out.writelines(line + "\n" for line in _raw(report))
    out.write(f"all of its lines, and what came between:\n  {printable(page.raw)}\n")
    _write_items("VERSIONS", page.versions, out)


def _write_heading(title: str, out: TextIO) -> None:
    out.write(f"\n{title}\n{'-' * len(title)}\n")


# A command stands in one line, to be copied.
def _write_items(title: str, items: Iterable[Item], out: TextIO) -> None:
    _write_heading(title, out)
    for item in items:
        label = f"{_cut(item.label, _NAME_CHARS_MAX):{_LABEL}}"
        out.writelines(line + "\n" for line in _wrapped(item.text, label, " " * _LABEL))
        out.writelines(f"{' ' * _LABEL}$ {printable(code)}\n" for code in item.codes)


def _write_timeline(page: Page, incident: Incident, rows_max: int, out: TextIO) -> None:
    _write_heading("TIMELINE", out)
    found = page.timeline.timeline
    if page.timeline.note:
        out.writelines(line + "\n" for line in _wrapped(page.timeline.note, "", ""))
    if found is None:
        return
    for note in (head(found), *found.notes):
        out.writelines(line + "\n" for line in _wrapped(note, "", "  "))
    entries, more = shown(found, incident, rows_max)
    rows = [
        (
            at(entry.at_ns, found.window.axis)[11:] if _in_utc(found) else at(entry.at_ns, found.window.axis),
            bound(entry),
            _MARKS[entry.order],
            entry.stream.layer,
            "/".join(part for part in (entry.stream.surface, entry.stream.instance) if part),
            entry.text,
        )
        for entry in entries
    ]
    table = io.StringIO()
    render.print_rows(_COLUMNS, rows, "table", table, whole="the command below")
    out.write("\n" + table.getvalue())
    told = f"{more:,} more rows, the report's own lines among them, by:" if more else "the same as a list:"
    out.write(f"{told}\n  {printable(page.timeline.command)}\n")


def _in_utc(found: Timeline) -> bool:
    return found.window.axis is None or found.window.axis.clock == "realtime"


def _raw(report: RawReport) -> Iterator[str]:
    yield _cut(report.title, _PARAGRAPH_CHARS_MAX)
    for line in report.lines[:LINES_MAX]:
        caller = f" {_cut(line.caller, _NAME_CHARS_MAX)}" if line.caller else ""
        yield f"  {line.seq:>8} [{line.at:>14}]{caller} {_cut(line.text, LINE_CHARS_MAX)}".rstrip()
    more = len(report.lines) - LINES_MAX
    hidden = max(0, more) + report.dropped
    if hidden:
        yield f"  ... and {hidden:,} lines more"
    yield ""


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        _cut(text, _PARAGRAPH_CHARS_MAX),
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
    ) or [first.rstrip()]


def _cut(text: str, chars_max: int) -> str:
    more = len(text) - chars_max
    return printable(text[:chars_max]) + (f"… ({more:,} characters more)" if more > 0 else "")
