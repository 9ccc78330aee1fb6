"""The timeline around an incident, of its VM with the hosts or of its machine, and which rows of it text shows.

It is that of `consumers/timeline/`. Where printk's clock compares with no CLOCK_REALTIME, the window is when its lines
came to the log, and every row stands where it arrived.
"""

import datetime as dt
import shlex
from collections.abc import Sequence
from typing import Final, NamedTuple

from consumers.export.scope import When
from consumers.incidents.around import BEFORE_NS, BEHIND_NS, Around
from consumers.incidents.incident import Incident
from consumers.incidents.stored import Stored
from consumers.incidents.utc import Utc
from consumers.lake.storage import Storage
from consumers.timeline.build import Choice, Timeline, build
from consumers.timeline.entries import Entry, Kind
from schemas.errors import UsageError

#: Rows that are read; a page in text shows fewer.
ROWS_MAX: Final = 1000
#: Of the text of a row so much is kept.
TEXT_CHARS_MAX: Final = 4_000
_S: Final = 1_000_000_000
_WARNING, _ERROR = 4, 3


class Told(NamedTuple):
    """The timeline, or why there is none; `note` says what its times are worth, `command` shows all of it."""

    timeline: Timeline | None
    note: str
    command: str


def told(storage: Storage, stored: Stored, around: Around, lake: str) -> Told:
    """Return the timeline around an incident.

    Raises:
        StorageError: the disk refuses, or an object is damaged.
    """
    window, note = _window(stored, around)
    vm, machine = around.vm or None, stored.incident.source.machine
    whose = f"--vm {shlex.quote(vm)}" if vm else f"--machine {shlex.quote(machine)}"
    times = " ".join(f"--{name} {_utc(ns)}" for name, ns in zip(("since", "until"), window, strict=True))
    command = f"hypocenter timeline --lake {shlex.quote(lake)} {whose} {times}"
    since, until = (When("arrival_ns", ns) for ns in window)
    try:
        found = build(storage, Choice(vm, None if vm else machine, since, until), ROWS_MAX)
    except UsageError as e:
        return Told(None, f"there is none: {e}", command)
    for entry in found.entries:
        more = len(entry.text) - TEXT_CHARS_MAX
        if more > 0:
            entry.text = f"{entry.text[:TEXT_CHARS_MAX]}… ({more:,} characters more)"
    return Told(found, note, command)


# In UTC: by the clocks where they compare, else by when the lines came.
def _window(stored: Stored, around: Around) -> tuple[tuple[int, int], str]:
    since, until = around.since, around.until
    if isinstance(since, Utc) and isinstance(until, Utc):
        return (since.ns - BEFORE_NS, until.ns + BEHIND_NS), ""
    took_ns = 0 if around.at is None else around.at.until_ns - around.at.since_ns
    came = [each.arrival_ns for each in around.arrivals] or [stored.opened_ns]
    why = since if isinstance(since, str) else until
    note = f"the kernel's clock does not compare with UTC ({why}): this is the time in which its lines came to the log"
    return (min(came) - took_ns - BEFORE_NS, max(came) + BEHIND_NS), note


def shown(found: Timeline, incident: Incident, limit: int) -> tuple[list[Entry], int]:
    """Return at most `limit` rows of a timeline, in its order, and how many more there are.

    Lines of the incident stand in its reports already: of these its start lines are told. What says that something was
    wrong goes before what does not, and what is near the incident's begin and end before what is far.
    """
    starts = {each.place for each in incident.start_lines}
    kept = [entry for entry in found.entries if not _of_report(entry, incident) or entry.position in starts]
    edges = [entry.at_ns for entry in kept if _of_report(entry, incident)]
    whole = found.window.start_ns, found.until_ns
    ranked = sorted(range(len(kept)), key=lambda i: (_rank(kept[i], incident, whole), _far(kept[i], edges), i))
    chosen = sorted(ranked[:limit])
    return [kept[i] for i in chosen], len(found.entries) - len(chosen) + found.left_out


def _of_report(entry: Entry, incident: Incident) -> bool:
    stream, source = entry.stream, incident.source
    mine = stream[:2] == source[:2] and stream.surface == "kmsg" and entry.kind is Kind.RECORD
    return mine and incident.first_place <= entry.position <= incident.last_place


def _rank(entry: Entry, incident: Incident, whole: tuple[int, int]) -> int:
    if _of_report(entry, incident) or entry.kind in (Kind.LOSS, Kind.DEAD_LETTER):
        return 0
    if entry.kind is Kind.BLIND:
        # A stream that was not watched at all is told by the questions.
        return 4 if (entry.at_ns, entry.until_at_ns) == whole else 1
    level = 9 if entry.level is None else entry.level
    if level <= _ERROR or entry.stream.surface == "qmp":
        return 1
    if level <= _WARNING or entry.stream.layer not in ("guest-kernel", "guest-userspace"):
        return 2
    return 3


def _far(entry: Entry, edges: Sequence[int]) -> int:
    return min((abs(entry.at_ns - edge) for edge in edges), default=0)


def _utc(ns: int) -> str:
    at = dt.datetime.fromtimestamp(ns // _S, dt.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{ns % _S // 1_000_000:03d}"
