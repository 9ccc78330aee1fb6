"""One incident while it is held: what is remembered beside it, its state as JSON, and how long its texts may be."""

import json
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

from consumers.incidents import codec
from consumers.incidents.incident import Incident
from consumers.incidents.joining import awaits_answer, family, related, since_ns
from consumers.incidents.summary import Folded
from consumers.reports.report import Kind, Report

_FRAMES_MAX: Final = 16
_REPORT_CPUS_MAX: Final = 32
_NOTES_MAX: Final = 8
_LINE_SIZE_MAX: Final = 160
_WORD_SIZE_MAX: Final = 80
_WORDS: Final = ("task", "flavor", "module", "taint", "release", "hardware", "holder")


@dataclass(slots=True)
class Held:
    """An incident, what remains of dropped reports, and signs of life.

    `unclosed` has the keys of reports that still grow, and of each a checksum of what was last told of it.
    """

    incident: Incident
    folded: Folded = field(default_factory=Folded)
    proofs: dict[str, int] = field(default_factory=dict)
    unclosed: dict[str, int] = field(default_factory=dict)
    ended_ns: int | None = None


def told(incident: Incident) -> tuple[Any, ...]:
    """Return what somebody is to be told when it changes; the newest record alone is no news."""
    root = incident.root
    whose = incident.kind, incident.cpus, incident.task, incident.pid, incident.victims, incident.since_ns
    seen = len(incident.reports), len(incident.start_lines), incident.dropped_start_lines, incident.state
    about = root.shape, root.frames, root.module, incident.panicked, incident.corrupted
    return *whose, *seen, *about, tuple(sorted(incident.lengths.items()))


def fingerprint(report: Report, *, root: bool) -> int:
    """Return a checksum of what an incident says of a report that still grows; of the root, its stack too."""
    # Plain values, which have their text at once: this is done with every line.
    length, shape = report.duration and tuple(report.duration), report.shape and str(report.shape)
    said = report.cpus, length, report.task, report.pid, shape, report.ended, report.corrupted
    return crc32(repr((*said, report.frames if root else None, report.module if root else None)).encode())


def key_of(report: Report) -> str:
    """Return what tells a report from every other of its source, and is known with its start line."""
    return f"{report.kind}/{report.place}/{family(report)}"


def joins(held: Held, report: Report, *, whole: bool) -> bool:
    """Return whether `report`, which is in no incident, belongs to this one."""
    start = since_ns(report, whole=whole)
    if held.ended_ns is not None and start is not None and start > held.ended_ns:
        return False
    return any(related(each, report, whole=whole) for each in held.incident.reports)


def belongs(held: Held, report: Report) -> bool:
    """Return whether `report`, which is in this incident and whole, rightly is."""
    start = since_ns(report)
    if held.ended_ns is not None and start is not None and start > held.ended_ns:
        return False
    for each in held.incident.reports:
        if each is report:
            continue
        one, new = (each, report) if each.place <= report.place else (report, each)
        if related(one, new, whole=True):
            return True
    return family(report) in held.folded.standing


def knows(held: Held, name: str) -> bool:
    """Return whether a report of family `name` is in this incident, or was."""
    return name in held.folded.standing or any(family(each) == name for each in held.incident.reports)


def wanted(held: Held, key: str) -> bool:
    """Return whether a sign of life says something about the incident: what is remembered has a bound."""
    if key in held.folded.standing:
        return True
    incident = held.incident
    what, _, which = key.partition(":")
    if what == "cpu":
        return int(which) in incident.cpus or incident.kind is Kind.CLOCKSOURCE_UNSTABLE
    if what == "task":
        return any(str(each.pid) == which for each in incident.reports)
    return any(each.flavor == which for each in incident.reports)


def replace(incident: Incident, key: str, report: Report) -> None:
    """Put `report` where another object for the same stands."""
    if any(each is report for each in incident.reports):
        return
    for i, each in enumerate(incident.reports):
        if key_of(each) == key:
            incident.reports[i] = report
            if incident.root is each:
                incident.root = report


def trim(report: Report, lines_max: int) -> None:
    """Cut a whole report down to what a page and a verdict need of it."""
    kept = report.lines[:lines_max] + [each for each in report.lines[lines_max:] if awaits_answer(each.text)][:2]
    report.dropped_lines += len(report.lines) - len(kept)
    report.cpus = report.cpus[:_REPORT_CPUS_MAX]
    report.lines[:] = [line._replace(text=_clipped(line.text, _LINE_SIZE_MAX)) for line in kept]
    report.frames = tuple(_clipped(each, _WORD_SIZE_MAX) for each in report.frames[:_FRAMES_MAX])
    report.notes = tuple(_clipped(each, _LINE_SIZE_MAX) for each in report.notes[:_NOTES_MAX])
    for name in _WORDS:
        if value := getattr(report, name):
            setattr(report, name, _clipped(value, _LINE_SIZE_MAX))


# At most `size_max` bytes of JSON.
def _clipped(text: str, size_max: int) -> str:
    text = text[:size_max]
    while len(json.dumps(text)) - 2 > size_max:
        text = text[: len(text) * 3 // 4]
    return text


def to_dict(held: Held) -> dict[str, Any]:
    """Return it as values of JSON. Of reports that still grow most is left out, because their assembly has it."""
    value = codec.to_dict(held.incident)
    for report, each in zip(held.incident.reports, value["reports"], strict=True):
        if key_of(report) in held.unclosed:
            each |= {"lines": [], "cpus": report.cpus[:1], "notes": (), "frames": ()}
    folded, unclosed = held.folded.to_dict(), held.unclosed
    return {"incident": value, "folded": folded, "proofs": held.proofs, "unclosed": unclosed, "ended_ns": held.ended_ns}


def from_dict(value: dict[str, Any]) -> Held:
    """Return what `to_dict` gave."""
    parts = codec.from_dict(value["incident"]), Folded.from_dict(value["folded"]), dict(value["proofs"])
    return Held(*parts, dict(value["unclosed"]), value["ended_ns"])
