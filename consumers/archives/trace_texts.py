"""Small texts of tracefs that archives have copies of: the clocks, a ring's counters, the name of an event."""

import re
from typing import Final

from consumers.archives.trace import UNKNOWN_CLOCK
from schemas import limits

_CLOCK: Final = re.compile(r"\[([\w.:-]{1,60})\]", re.ASCII)
#: A clock of trace-cmd's own: the pages have what this clock of the kernel counts, its reader converts that.
_CONVERTED: Final = {"tsc2nsec": "x86-tsc"}
#: Counters in `per_cpu/cpuN/stats` of events that were never written, and the reasons of their losses.
_DROPPED: Final = {"dropped events": "dropped-events", "commit overrun": "commit-overrun"}
_COUNTER: Final = re.compile(r"^([a-z ]+): (\d{1,18})$", re.MULTILINE)
_NAME: Final = re.compile(r"^name:[ \t]*(\S{1,128})[ \t]*$", re.MULTILINE)


def current_clock(text: str) -> str:
    """Return the clock that the text of `trace_clock` has in brackets, `unknown` where it has none."""
    match = _CLOCK.search(text)
    return clock(match[1]) if match else UNKNOWN_CLOCK


def clock(name: str) -> str:
    """Return the clock that pages stamped by the clock `name` count, `unknown` where it has no name."""
    return _CONVERTED.get(name, name) or UNKNOWN_CLOCK


def dropped(stats: str) -> dict[str, int]:
    """Return the events that the text of `per_cpu/cpuN/stats` counts as never written, by reason."""
    counters = dict(_COUNTER.findall(stats))
    return {reason: int(counters[name]) for name, reason in _DROPPED.items() if counters.get(name, "0") != "0"}


def event(text: str, system: str) -> tuple[str, str] | None:
    """Return `system:name` and the text of a `format` file that describes an event of `system`.

    None where it says no name, or is too long for a description: such events are rows of `trace_unknown`.
    """
    match = _NAME.search(text)
    return (f"{system}:{match[1]}", text) if match and len(text.encode()) <= limits.TRACE_FORMAT_BYTES_MAX else None
