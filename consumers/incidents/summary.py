"""What an incident says as a whole, computed from its reports: root, times, lengths, CPUs and victims.

The root is the report whose stall began first, not the one that was printed first. Starts are known to about a second;
among those that close, one that only waits for other CPUs is a victim.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from consumers.incidents import lengths
from consumers.incidents.incident import Incident
from consumers.incidents.joining import SLACK_NS, since_ns, waits_for_others
from consumers.reports.report import Kind, Report, Seconds

VICTIMS_MAX: Final = 32
CPUS_MAX: Final = 256


@dataclass(slots=True)
class Folded:
    """What remains of reports that were dropped, and lengths that others measured."""

    cpus: set[int] = field(default_factory=set)
    victims: list[str] = field(default_factory=list)
    printed: Seconds | None = None
    measured: dict[str, Seconds] = field(default_factory=dict)

    def add(self, report: Report) -> None:
        """Take over what the incident says of a report that it will no longer hold."""
        self.add_cpus(report)
        name = _victim(report)
        if name and name not in self.victims and len(self.victims) < VICTIMS_MAX:
            self.victims.append(name)
        if report.duration is not None and (self.printed is None or report.duration.high > self.printed.high):
            self.printed = report.duration

    def add_cpus(self, report: Report) -> None:
        """Take over the CPUs that a report accuses: it will not keep all of them."""
        self.cpus.update(sorted(set(report.cpus) - self.cpus)[: CPUS_MAX - len(self.cpus)])

    def to_dict(self) -> dict[str, Any]:
        """Return it as values of JSON."""
        return {
            "cpus": sorted(self.cpus),
            "victims": self.victims,
            "printed": self.printed,
            "measured": self.measured,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Folded":
        """Return what `to_dict` gave."""
        printed = None if value["printed"] is None else Seconds(*value["printed"])
        measured = {name: Seconds(*each) for name, each in value["measured"].items()}
        return cls(set(value["cpus"]), list(value["victims"]), printed, measured)


def root_of(reports: list[Report]) -> Report:
    """Return the report whose stall began first; without times the first that does not wait for others."""
    stalls = [each for each in reports if each.kind not in (Kind.PANIC, Kind.CLOCKSOURCE_UNSTABLE)] or reports
    timed = [(start, each) for each in stalls if (start := since_ns(each)) is not None]
    if timed:
        earliest = min(start for start, _ in timed)
        stalls = [each for start, each in timed if start <= earliest + SLACK_NS]
    return min(stalls, key=lambda each: (each.corrupted, waits_for_others(each), each.place))


def summarise(incident: Incident, folded: Folded) -> None:
    """Set every field of `incident` that follows from its reports."""
    reports = incident.reports
    root = incident.root = root_of(reports)
    incident.kind, incident.task, incident.pid = root.kind, root.task, root.pid
    incident.last_place = max(incident.last_place, *(max(each.place, each.last_place) for each in reports))
    starts = [start for each in reports if each.kind is not Kind.PANIC and (start := since_ns(each)) is not None]
    starts = starts or [each.ts_ns for each in reports if each.ts_ns is not None]
    incident.since_ns = min(starts, default=None)
    ends = [end for each in reports for end in (each.ts_ns, each.last_ts_ns) if end is not None]
    incident.until_ns = max(ends, default=None)
    incident.cpus = tuple(sorted({cpu for each in reports for cpu in each.cpus} | folded.cpus)[:CPUS_MAX])
    names = [*folded.victims, *(_victim(each) for each in reports if each is not root)]
    own = _victim(root)
    incident.victims = tuple(dict.fromkeys(each for each in names if each and each != own))[:VICTIMS_MAX]
    found = lengths.known(reports)
    printed = [each for each in (found.get(lengths.PRINTED), folded.printed) if each is not None]
    if printed:
        found[lengths.PRINTED] = max(printed, key=lambda each: (each.high, each.low))
    incident.lengths = found | folded.measured
    incident.duration, incident.duration_from = lengths.used(incident.lengths)
    incident.panicked = any(each.kind is Kind.PANIC for each in reports)
    incident.structured = all(each.structured for each in reports)
    incident.corrupted = any(each.corrupted for each in reports)


def _victim(report: Report) -> str:
    return "" if report.task is None else f"{report.task}:{report.pid}"
