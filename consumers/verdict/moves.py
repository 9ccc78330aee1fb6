"""Whom to ask about: what a line blames is often a victim, and the table is run on the one that it waited for."""

from dataclasses import replace
from typing import Final, NamedTuple

from consumers.incidents.incident import Incident
from consumers.reports.report import Kind, Report
from consumers.verdict.conditions import ALL_VCPUS, Case
from consumers.verdict.facts import Facts, holds
from consumers.verdict.text import Symptom, symptom, waits_for_cpu, waits_for_grace

_MOVES_MAX: Final = 4
#: So much of the time a vCPU must have been away at least to be the one that did not answer.
_AWAY_MIN: Final = 0.5
_AWAY: Final = "WST"


class Moved(NamedTuple):
    """The case to judge, None where nobody knows whom the blamed one waited for; `steps` are (row, what it says)."""

    case: Case | None
    steps: tuple[tuple[str, str], ...]


def follow(incident: Incident, facts: Facts) -> Moved:
    """Return the case of the one that was waited for, which is the incident's own where its root waited for nobody."""
    steps: list[tuple[str, str]] = []
    for _ in range(_MOVES_MAX):
        if symptom(incident) is Symptom.TASK:
            found = _of_task(incident)
            if found is None:
                break
            report, row, text = found
            steps.append((row, text))
            incident = _about(incident, report)
            continue
        if symptom(incident) is not Symptom.CPU or not waits_for_cpu(incident.root):
            break
        report_of = _silent_cpu(incident, facts)
        waiting = _cpus(incident.root.cpus)
        if report_of is None:
            steps.append(("C10", f"{waiting} waited for another CPU, and which did not answer is not known"))
            return Moved(None, tuple(steps))
        steps.append(("C10", f"{waiting} waited for {_cpus(report_of.cpus)}, which did not answer"))
        incident = _about(incident, report_of)
    cpus = incident.root.cpus if symptom(incident) is Symptom.CPU else ()
    return Moved(Case(incident, facts, cpus), tuple(steps))


# The same incident as that of another report; what was its root is one of its reports still.
def _about(incident: Incident, report: Report) -> Incident:
    others = (
        incident.reports
        if any(each is incident.root for each in incident.reports)
        else [*incident.reports, incident.root]
    )
    return replace(incident, root=report, kind=report.kind, cpus=report.cpus, reports=others)


def _of_task(incident: Incident) -> tuple[Report, str, str] | None:
    root = incident.root
    for report in incident.reports:
        if waits_for_grace(incident) and report.kind is Kind.RCU_STALL:
            return report, "S7", f"{root.task} waited for a grace period of RCU, which had stalled"
        if report is not root and report.pid is not None and root.holder == f"{report.task}:{report.pid}":
            return report, "S6", f"{root.task} waited for a lock that {report.task} held"
    return None


# The report of the CPU that did not answer, or an empty one of it where it printed none.
def _silent_cpu(incident: Incident, facts: Facts) -> Report | None:
    root = incident.root
    told = [each for each in incident.reports if each.cpus and each.cpus != root.cpus and not waits_for_cpu(each)]
    if len({each.cpus for each in told}) == 1:
        return told[0]
    cpu = _most_away(facts, set(root.cpus))
    return None if cpu is None or told else Report(root.kind, root.place, root.ts_ns, root.structured, cpus=(cpu,))


def _most_away(facts: Facts, waiting: set[int]) -> int | None:
    if not holds(facts.mapped) or ALL_VCPUS in facts.vcpus:
        return None
    others = {cpu: fact.value for cpu, fact in facts.vcpus.items() if cpu not in waiting}
    known = {cpu: shares for cpu, shares in others.items() if shares is not None}
    if not others or len(known) < len(others):
        return None
    most = max(sorted(known), key=lambda cpu: known[cpu].at_least(_AWAY))
    low = known[most].at_least(_AWAY)
    rest = [shares.at_most(_AWAY) for cpu, shares in known.items() if cpu != most]
    return most if low >= _AWAY_MIN and all(low > high for high in rest) else None


def _cpus(cpus: tuple[int, ...]) -> str:
    return f"CPU {', '.join(map(str, cpus))}" if cpus else "a CPU"
