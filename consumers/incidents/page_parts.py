"""The page of a stored incident as parts, before anybody writes it as text or HTML.

What guests have written stands in it as it is: whoever writes the page makes it harmless.
"""

import shlex
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from consumers import render
from consumers.incidents import wording
from consumers.incidents.around import Around
from consumers.incidents.incident import Incident, State
from consumers.incidents.page import NAMES, SHAPES, length_text, sentence
from consumers.incidents.page_query import query, records_text
from consumers.incidents.page_timeline import Told
from consumers.incidents.questions import About, Answered, ask, shown_ns, shown_utc
from consumers.incidents.stored import VERSIONS_MAX, Stored, Version
from consumers.incidents.utc import Utc
from consumers.reports.report import Report, Seconds
from consumers.verdict.conditions import of_report
from consumers.verdict.verdict import Evidence, Missing, Owner, Record, Verdict

_S: Final = 1_000_000_000
_CPUS_MAX: Final = 8
#: Of a version only the kind's name is stored.
_KINDS: Final[dict[str, str]] = {str(kind): name for kind, name in NAMES.items()}
_ARTICLES: Final = ("a ", "the ")


class Item(NamedTuple):
    """A paragraph under a label; `codes` are commands to paste."""

    label: str
    text: str
    codes: tuple[str, ...] = ()


class RawLine(NamedTuple):
    """One line as the kernel wrote it."""

    seq: int
    at: str
    caller: str
    text: str


class RawReport(NamedTuple):
    """One report; `dropped` is how many of its lines are not kept."""

    title: str
    lines: tuple[RawLine, ...]
    dropped: int


class Page(NamedTuple):
    """Everything that is told of one incident, in the order in which it is read."""

    title: str
    told: tuple[str, ...]
    verdict: tuple[Item, ...]
    missing: tuple[Item, ...]
    questions: tuple[Answered, ...]
    timeline: Told
    reports: tuple[RawReport, ...]
    raw: str
    versions: tuple[Item, ...]


def page(stored: Stored, around: Around, told: Told, lake: str) -> Page:
    """Return the page of an incident of the lake in the directory `lake`."""
    incident, verdict = stored.incident, stored.verdict
    known = (*around.machines, *incident.source[:2], around.host_boot)
    names = render.short_ids(each for each in (*known, *(record.machine for record in _records(verdict))) if each)
    boots = {incident.source.machine: incident.source.boot_id, around.host: around.host_boot}
    about = About(stored, around, told, names)
    return Page(
        _title(stored),
        (f"{sentence(incident)} {_said(verdict)}", f"{_began(stored, around, names)} {_state(stored)}"),
        tuple(_verdict(stored, names, boots, lake)),
        () if verdict is None else tuple(_missing(verdict.missing)),
        tuple(ask(about)),
        told._replace(note=about.short(told.note)),
        tuple(_reports(incident)),
        query(
            lake,
            of_report(incident)._replace(first=incident.first_place, last=incident.last_place),
            boots[incident.source.machine],
        ),
        tuple(_versions(stored.versions)),
    )


def _title(stored: Stored) -> str:
    incident, whose = stored.incident, stored.whose
    cpus = f" on CPU {', '.join(map(str, incident.cpus[:_CPUS_MAX]))}" if incident.cpus else ""
    cpus += " ..." if len(incident.cpus) > _CPUS_MAX else ""
    where = f"VM {whose.vm}" if whose.vm else f"machine {incident.source.machine}"
    return f"{NAMES[incident.kind]}{cpus} in {incident.source.layer} of {where}, {length_text(incident.duration)}"


def _began(stored: Stored, around: Around, names: dict[str, str]) -> str:
    host = f" on host {names.get(stored.whose.host, stored.whose.host)}" if stored.whose.host else ""
    if isinstance(around.since, Utc):
        bound = shown_ns(around.since.bound_ns)
        return f"It began at {shown_utc(around.since.ns)} UTC (within {bound}){host}."
    return f"Its first line came at {shown_utc(stored.opened_ns)} UTC{host}; when it began does not compare with UTC."


def _said(verdict: Verdict | None) -> str:
    if verdict is None:
        return "It was not judged yet."
    # A task's name stays as it is.
    told = f"{verdict.sentence}."
    if told.startswith(_ARTICLES):
        told = told[0].upper() + told[1:]
    if verdict.owner is Owner.UNDETERMINED:
        return told
    shared = f" and {verdict.shared}" if verdict.shared is not None else ""
    return f"{told} The owner is {verdict.owner}{shared}, with {verdict.confidence} confidence."


def _state(stored: Stored) -> str:
    incident = stored.incident
    match incident.state:
        case State.OPEN:
            return "It goes on."
        case State.STALE:
            return "Nothing more was heard of it, which is no end."
        case State.ENDED if incident.joined:
            return f"It turned out to be part of incident {incident.joined}."
        case State.ENDED if incident.ended_by == "displaced":
            return "Nobody saw its end; it made room, because its machine had more incidents than are followed."
    how = {"end-line": "a line that says so", "progress": "a sign of life", "reboot": "a reboot"}
    how["shutdown"] = "the end of its VM"
    shown = f" ({incident.proof})" if incident.proof else ""
    return f"It is over, by {how.get(incident.ended_by, incident.ended_by)}{shown}."


def _records(verdict: Verdict | None) -> Iterable[Record]:
    return () if verdict is None else (record for found in verdict.evidence for record in found.records)


def _verdict(stored: Stored, names: dict[str, str], boots: dict[str, str], lake: str) -> Iterator[Item]:
    verdict, key = stored.verdict, stored.incident.id
    if verdict is None:
        yield Item("owner", "not judged yet; the alerter judges 1, 5, 15 and 60 s after the first line, and at the end")
        return
    row = f"row {verdict.row} of rules {verdict.rules}" if verdict.row != "-" else f"no row of rules {verdict.rules}"
    yield Item("owner", f"{verdict.owner}, confidence {verdict.confidence}, {row}")
    if verdict.shared is not None:
        yield Item("shared with", f"{verdict.shared}, which explains as much")
    if verdict.beside:
        yield Item("also true", f"rows that name {', '.join(verdict.beside)}")
    yield Item("the row", wording.row_words(verdict))
    seen: set[str] = set()
    for found in sorted(verdict.evidence, key=lambda each: each.against):
        yield _evidence(found, names, boots, lake, seen)
    if verdict.owner is not Owner.UNDETERMINED and not any(found.against for found in verdict.evidence):
        yield Item("against", "nothing that was found speaks against it")
    reasons: dict[str, list[str]] = {}
    for other in verdict.rejected:
        reasons.setdefault(other.reason, []).append(other.owner)
    for reason, owners in reasons.items():
        yield Item("not", f"{', '.join(owners)}: {reason}")
    again = f"hypocenter verdict --lake {shlex.quote(lake)} --incident {shlex.quote(key)}"
    yield Item("again", "what the rules and rows of now say:", (again,))


# Each command once: several pieces of evidence are of the same rows.
def _evidence(found: Evidence, names: dict[str, str], boots: dict[str, str], lake: str, seen: set[str]) -> Item:
    codes = dict.fromkeys(query(lake, record, boots.get(record.machine, "")) for record in found.records)
    where = "; ".join(dict.fromkeys(records_text(record, names) for record in found.records))
    new = tuple(code for code in codes if code not in seen)
    seen.update(codes)
    text = f"{found.id}: {found.text}" + (f" [{where}]" if where else "")
    return Item("against" if found.against else "evidence", text, new)


# By how to get it: one remedy may bring several things.
def _missing(missing: Iterable[Missing]) -> Iterator[Item]:
    by_remedy: dict[str, list[Missing]] = {}
    for each in missing:
        by_remedy.setdefault(each.remedy, []).append(each)
    for remedy, mine in by_remedy.items():
        what = "; ".join(dict.fromkeys(each.text for each in mine))
        label = ", ".join(dict.fromkeys(each.id for each in mine))
        yield Item(label, f"{what}. To get it: {remedy}" if remedy else what)


def _reports(incident: Incident) -> Iterator[RawReport]:
    reports = (
        incident.reports
        if any(each is incident.root for each in incident.reports)
        else [incident.root, *incident.reports]
    )
    for report in sorted(reports, key=lambda each: (each is not incident.root, each.place)):
        first = report.ts_ns
        lines = tuple(
            RawLine(line.place, "" if line.ts_ns is None else f"{line.ts_ns / _S:.6f}", line.caller, line.text)
            for line in report.lines
        )
        about = [f"at {first / _S:.6f} s"] if first is not None else []
        about += [length_text(report.duration)] if report.duration is not None else []
        about += [f"shape {report.shape}: {SHAPES[report.shape]}"] if report.shape is not None else []
        about += ["damaged"] if report.corrupted else []
        yield RawReport(f"{_role(report, incident)}: {', '.join(about)}", lines, report.dropped_lines)


def _role(report: Report, incident: Incident) -> str:
    where = "position" if incident.vm else "seq"
    return f"{NAMES[report.kind]}, {where} {report.place}{' (root)' if report is incident.root else ''}"


# Versions in which nothing of this changed are one line.
def _versions(versions: tuple[Version, ...]) -> Iterator[Item]:
    if len(versions) > VERSIONS_MAX:
        yield Item("...", "older versions are left out")
        versions = versions[-VERSIONS_MAX:]
    groups: list[list[Version]] = []
    for each in versions:
        if groups and _same(groups[-1][0]) == _same(each):
            groups[-1].append(each)
        else:
            groups.append([each])
    for group in groups:
        first, last = group[0], group[-1]
        number = f"v{first.number}" if first is last else f"v{first.number} to v{last.number}"
        owner = "not judged" if last.owner is None else f"{last.owner}, {last.confidence}, row {last.row}"
        length = None if last.duration_high_s is None else Seconds(last.duration_low_s or 0.0, last.duration_high_s)
        state = f"{last.state} ({last.ended_by})" if last.ended_by else last.state
        many = f"{last.reports} report{'' if last.reports == 1 else 's'}"
        what = f"{_KINDS.get(last.kind, last.kind)}, {length_text(length)}, {many}"
        yield Item(number, f"{shown_utc(first.arrival_ns)}  {state}; {owner}; {what}")


def _same(version: Version) -> tuple[object, ...]:
    return (version.state, version.ended_by, version.owner, version.confidence, version.row, version.kind)
