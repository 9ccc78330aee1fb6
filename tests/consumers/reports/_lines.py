"""Lines for tests: of captures, of texts with prefixes, and made by hand."""

from pathlib import Path

from consumers.reports.kmsg_record import kmsg_line
from consumers.reports.prefix import text_lines
from consumers.reports.report import Line

CAPTURES = Path(__file__).parent / "captures"
S = 10**9


def capture(name):
    """Return the kernel's lines of a dump of /dev/kmsg."""
    records = [raw for raw in (CAPTURES / name).read_bytes().split(b"\n") if raw and not raw.startswith(b" ")]
    return [line for raw in records if (line := kmsg_line(raw)) is not None]


def text(data):
    """Return the lines of a pasted log."""
    return [line for place, raw in enumerate(data.encode().split(b"\n"), 1) for line in text_lines(place, raw)]


def record(place, ts_s, words, caller=""):
    """Return one record of the kernel."""
    return Line(place, round(ts_s * S), caller, words, structured=True)


def records(lines, first=100):
    """Return records of the kernel, numbered from `first`: each (seconds, text) or (seconds, text, caller)."""
    return [record(first + i, *each) for i, each in enumerate(lines)]
