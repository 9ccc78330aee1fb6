"""What an incident says as a whole, computed from its reports: root, times, lengths, CPUs and victims.

The root is the report whose stall began first, not the one that was printed first. Starts are known to about a second;
among those that close, one that only waits for other CPUs is a victim. What began behind a panic is none of its causes.
"""

from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

from consumers.incidents import lengths
from consumers.incidents.incident import Incident
from consumers.incidents.joining import SLACK_NS, family, since_ns, waits_for_others
from consumers.reports.report import Kind, Report, Seconds

VICTIMS_MAX: Final = 32
STANDING_MAX: Final = 64
CPUS_MAX: Final = 256
#: Of which no line says the end, and a sign of life of the CPU or task alone does.
_NO_END_LINE: Final = frozenset((Kind.SOFT_LOCKUP, Kind.SCX_LOCKUP, Kind.HUNG_TASK, Kind.SCX_STALL))
_NO_STALLS: Final = (Kind.PANIC, Kind.CLOCKSOURCE_UNSTABLE)
_PLACE: Final = attrgetter("place")


@dataclass(slots=True)
class Folded:
    """What remains of reports that were dropped, lengths that others measured, and whether a host told of a panic.

    `standing` has the families of dropped reports which a sign of life ends, and when the newest of each came: they are
    known again, and nothing is over before they go on.
    """

    cpus: set[int] = field(default_factory=set)
    victims: list[str] = field(default_factory=list)
    printed: Seconds | None = None
    measured: dict[str, Seconds] = field(default_factory=dict)
    panicked: bool = False
    standing: dict[str, int] = field(default_factory=dict)

    def add(self, report: Report) -> None:
        """Take over what the incident says of a report that it will no longer hold."""
        self.add_cpus(report)
        name = "" if report.kind is Kind.PANIC else _victim(report)
        if name and name not in self.victims and len(self.victims) < VICTIMS_MAX:
            self.victims.append(name)
        if report.duration is not None and (self.printed is None or report.duration.high > self.printed.high):
            self.printed = report.duration
        key, heard_ns = family(report), max(report.ts_ns or 0, report.last_ts_ns or 0)
        if report.kind in _NO_END_LINE and heard_ns and (key in self.standing or len(self.standing) < STANDING_MAX):
            self.standing[key] = max(self.standing.get(key, 0), heard_ns)

    def add_cpus(self, report: Report) -> None:
        """Take over the CPUs that a report accuses: it will not keep all of them."""
        if report.kind is Kind.PANIC:
            return
        self.cpus.update(sorted(set(report.cpus) - self.cpus)[: CPUS_MAX - len(self.cpus)])

    def to_dict(self) -> dict[str, Any]:
        """Return it as values of JSON."""
        return {
            "cpus": sorted(self.cpus),
            "victims": self.victims,
            "printed": self.printed,
            "measured": self.measured,
            "panicked": self.panicked,
            "standing": self.standing,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Folded":
        """Return what `to_dict` gave."""
        printed = None if value["printed"] is None else Seconds(*value["printed"])
        measured = {name: Seconds(*each) for name, each in value["measured"].items()}
        later = value.get("panicked", False), dict(value.get("standing", {}))  # what older programs did not write
        return cls(set(value["cpus"]), list(value["victims"]), printed, measured, *later)


# The report whose stall began first; without times the first that does not wait for others.
def _root(reports: list[Report], starts: list[int | None]) -> Report:
    every = list(zip(starts, reports, strict=True))
    panics = [pair for pair in every if pair[1].kind is Kind.PANIC]
    panic_ns = min((start for start, _ in panics if start is not None), default=None)
    stalls = [pair for pair in every if pair[1].kind not in _NO_STALLS and _before(pair[0], panic_ns)]
    stalls = stalls or panics or every
    timed = [start for start, _ in stalls if start is not None]
    if timed:
        latest = min(timed) + SLACK_NS
        stalls = [pair for pair in stalls if pair[0] is not None and pair[0] <= latest]
    # One stack after the other is read only until one does not wait.
    first = [each for _, each in stalls if not each.corrupted] or [each for _, each in stalls]
    first.sort(key=_PLACE)
    return next((each for each in first if not waits_for_others(each)), first[0])


def _before(start: int | None, panic_ns: int | None) -> bool:
    return start is None or panic_ns is None or start < panic_ns


def summarise(incident: Incident, folded: Folded) -> None:
    """Set every field of `incident` that follows from its reports."""
    reports = incident.reports
    began = [since_ns(each) for each in reports]
    root = incident.root = _root(reports, began)
    incident.kind, incident.task, incident.pid = root.kind, root.task, root.pid
    last_place, cpus, victims = incident.last_place, set(folded.cpus), dict.fromkeys(folded.victims)
    starts, first, ends = [], [], []
    panicked, structured, corrupted = folded.panicked, True, incident.skipped > 0
    # One walk: all of this is done again for every report of a storm.
    for start, each in zip(began, reports, strict=True):
        last_place = max(last_place, each.place, each.last_place)
        # Who finds that all is over is no victim, and its CPU not accused.
        involved = each is root or each.kind is not Kind.PANIC
        cpus.update(each.cpus if involved else ())
        if each.kind is Kind.PANIC:
            panicked = True
        elif start is not None:
            starts.append(start)
        if each.ts_ns is not None:
            first.append(each.ts_ns)
        if each.last_ts_ns is not None:
            ends.append(each.last_ts_ns)
        if involved and each is not root and each.task is not None:
            victims[_victim(each)] = None
        structured = structured and each.structured
        corrupted = corrupted or each.corrupted
    victims.pop(_victim(root), None)
    incident.last_place = last_place
    incident.since_ns = min(starts or first, default=None)
    incident.until_ns = max(ends + first, default=None)
    incident.cpus = tuple(sorted(cpus)[:CPUS_MAX])
    incident.victims = tuple(victims)[:VICTIMS_MAX]
    incident.panicked, incident.structured, incident.corrupted = panicked, structured, corrupted
    found = lengths.known(reports, began)
    printed = [each for each in (found.get(lengths.PRINTED), folded.printed) if each is not None]
    if printed:
        found[lengths.PRINTED] = max(printed, key=lambda each: (each.high, each.low))
    incident.lengths = found | folded.measured
    incident.duration, incident.duration_from = lengths.used(incident.lengths)


def _victim(report: Report) -> str:
    return "" if report.task is None else f"{report.task}:{report.pid}"
