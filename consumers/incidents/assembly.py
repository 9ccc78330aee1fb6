"""Reports become incidents: one failure of one boot is one incident, from its first line to its proven end.

A report joins what it overlaps in time (`joining.py`). That is decided at its start line, so that the first page goes
out at once, and once more with the whole report: then it may leave again for an incident of its own, or take its own
into an older one. An incident ends by a line that says so, by progress, or by a reboot; of one that is only silent for
three times its re-report interval is said that it is `stale`. Times are printk's, given by the caller.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from consumers.incidents import codec
from consumers.incidents.incident import Incident, Source, StartLine, State
from consumers.incidents.joining import S, awaits_answer, family, related, repeat_ns, since_ns
from consumers.incidents.progress import Progress, settled
from consumers.incidents.summary import Folded, summarise
from consumers.reports.report import Kind, Report, Seconds

#: What has ended may still get lines of the same stall; what is stale may wake.
_ENDED_KEPT_NS: Final = 60 * S
_STALE_KEPT_NS: Final = 3600 * S
_STALE_AFTER: Final = 3
_FRAMES_MAX: Final = 16
_NOTES_MAX: Final = 8
_LINE_SIZE_MAX: Final = 160
_WORD_SIZE_MAX: Final = 80
_WORDS: Final = ("task", "flavor", "module", "taint", "release", "hardware", "holder")


class Limits(NamedTuple):
    """Bounds of one source. With the defaults `state()` stays below 256 KiB."""

    open_max: int = 6
    reports_max: int = 8
    start_lines_max: int = 192
    lines_max: int = 4
    first_lines_max: int = 40


@dataclass(slots=True)
class _Held:
    incident: Incident
    folded: Folded = field(default_factory=Folded)
    proofs: dict[str, int] = field(default_factory=dict)
    unclosed: set[str] = field(default_factory=set)
    ended_ns: int | None = None


class IncidentAssembler:
    """The incidents of one boot of one source. Every method that may change some returns those that it changed."""

    def __init__(self, source: Source, limits: Limits | None = None) -> None:
        self._source = source
        self._limits = limits or Limits()
        self._held: list[_Held] = []

    @property
    def incidents(self) -> list[Incident]:
        """Those that are held: open, stale, or ended a short time ago."""
        return [held.incident for held in self._held]

    def apply(self, changes: Iterable[tuple[str, Report]], now_ns: int | None) -> list[Incident]:
        """Take what the assembly of reports gave; `now_ns` is printk's newest time.

        A report is changed in place while its lines come: give the changes of one line at a time, or what follows
        from them depends on how the lines were cut into batches.
        """
        changed: list[_Held] = []
        for what, report in changes:
            if what == "opened":
                changed += self._opened(report)
            else:
                changed += self._grown(report, closed=what == "closed")
        found = _distinct(changed)
        return found if now_ns is None else _distinct([*changed, *self._ticked(now_ns)])

    def tick(self, now_ns: int) -> list[Incident]:
        """Mark as stale what was silent for long, and forget what is over for long."""
        return _distinct(self._ticked(now_ns))

    def progress(self, proof: Progress) -> list[Incident]:
        """Take a sign of life; incidents end of which nothing stands still any more."""
        changed = []
        for held in self._held:
            if held.incident.state is State.ENDED:
                continue
            held.proofs |= {key: value for key, value in proof.entries() if _wanted(held.incident, key)}
            if settled(held.incident.reports, held.proofs):
                self._end(held, "progress", proof.at_ns)
                changed.append(held)
        return _distinct(changed)

    def measured(self, incident_id: str, name: str, length: Seconds) -> list[Incident]:
        """Take a length that something else tells: `counter` or `heartbeat`."""
        for held in self._held:
            if held.incident.id == incident_id and held.folded.measured.get(name) != length:
                held.folded.measured[name] = length
                return _distinct([held] if self._summarise(held) else [])
        return []

    def rebooted(self) -> list[Incident]:
        """Say that this boot is over: all that had not ended ends by it. `panicked` says whether that was why."""
        changed = [held for held in self._held if held.incident.state is not State.ENDED]
        for held in changed:
            self._end(held, "reboot", held.incident.until_ns)
        self._held = []
        return _distinct(changed)

    def state(self) -> dict[str, Any]:
        """Return everything as values of JSON. Reports that still grow go without lines: their assembly has those."""
        if not self._held:
            return {}
        return {"held": [_held_to_dict(held) for held in self._held]}

    @classmethod
    def restore(cls, source: Source, state: dict[str, Any], limits: Limits | None = None) -> "IncidentAssembler":
        """Return the assembler that gave `state`."""
        made = cls(source, limits)
        made._held = [_held_from_dict(each) for each in state.get("held", [])]
        return made

    def _opened(self, report: Report) -> list[_Held]:
        found = self._found(report, whole=False)
        if found is None:
            return [*self._make_room(), self._new(report)]
        self._add(found, report)
        return [found]

    def _found(self, report: Report, *, whole: bool, but: _Held | None = None) -> _Held | None:
        fits = [held for held in self._held if held is not but and _joins(held, report, whole=whole)]
        own = family(report)
        return min(fits, key=lambda held: not any(family(each) == own for each in held.incident.reports), default=None)

    def _new(self, report: Report) -> _Held:
        key = json.dumps([*self._source, family(report), report.place])
        name = hashlib.sha256(key.encode()).hexdigest()[:20]
        kind, place = report.kind, report.place
        where = (name, self._source, kind, kind, place, place, report.ts_ns, report.ts_ns)
        incident = Incident(*where, None, "", (), None, None, (), report, [report], version=0)
        incident.start_lines.append(StartLine(place, kind))
        held = _Held(incident, unclosed={_key(report)})
        self._held.append(held)
        self._summarise(held)
        return held

    def _add(self, held: _Held, report: Report) -> None:
        incident = held.incident
        incident.reports.append(report)
        held.unclosed.add(_key(report))
        if len(incident.start_lines) < self._limits.start_lines_max:
            incident.start_lines.append(StartLine(report.place, report.kind))
            incident.start_lines.sort()
        else:
            incident.dropped_start_lines += 1
        if incident.state is not State.OPEN:
            incident.state, incident.ended_by, held.ended_ns = State.OPEN, "", None
        self._summarise(held)
        self._drop(held)

    # The first report and the root stay, and the newest.
    def _drop(self, held: _Held) -> None:
        incident = held.incident
        while len(incident.reports) > self._limits.reports_max:
            spare = [each for each in incident.reports[1:-1] if each is not incident.root]
            closed = [each for each in spare if _key(each) not in held.unclosed]
            gone = (closed or spare)[0]
            incident.reports = [each for each in incident.reports if each is not gone]
            incident.dropped_reports += 1
            held.unclosed.discard(_key(gone))
            held.folded.add(gone)

    def _grown(self, report: Report, *, closed: bool) -> list[_Held]:
        key = _key(report)
        held = next((each for each in self._held if key in each.unclosed), None)
        if held is None:
            return self._late_end(report, key)
        _replace(held.incident, key, report)
        if closed:
            held.unclosed.discard(key)
            first = report is held.incident.reports[0]
            _trim(report, self._limits.first_lines_max if first else self._limits.lines_max)
            moved = self._settle(held, report)
            if held not in self._held:
                return [held, *moved]
            changed = [*([held] if self._summarise(held) else []), *moved]
            for each in (held, *moved):
                if each.incident.state is not State.ENDED and settled(each.incident.reports, each.proofs):
                    self._end(each, "end-line", each.incident.until_ns)
                    changed.append(each)
            return changed
        return [held] if self._summarise(held) else []

    # Of some kinds the end comes long after the report was closed.
    def _late_end(self, report: Report, key: str) -> list[_Held]:
        for held in self._held:
            if held.incident.state is not State.ENDED and any(_key(each) == key for each in held.incident.reports):
                _replace(held.incident, key, report)
                self._summarise(held)
                if settled(held.incident.reports, held.proofs):
                    self._end(held, "end-line", held.incident.until_ns)
                    return [held]
        return []

    # Now that all of it is known: does it belong where it is?
    def _settle(self, held: _Held, report: Report) -> list[_Held]:
        incident = held.incident
        if len(incident.reports) == 1 and not incident.dropped_reports:
            older = self._found(report, whole=True, but=held)
            if older is None or older.incident.first_place > report.place:
                return []
            self._held.remove(held)
            self._end(held, "joined", incident.until_ns)
            incident.joined = older.incident.id
            self._add(older, report)
            older.unclosed.discard(_key(report))
            return [older]
        if report is incident.reports[0] or _belongs(held, report):
            return []
        incident.reports = [each for each in incident.reports if each is not report]
        incident.start_lines = [each for each in incident.start_lines if each != (report.place, report.kind)]
        other = self._found(report, whole=True, but=held)
        if other is None:
            gone = self._make_room()
            other = self._new(report)
        else:
            gone = []
            self._add(other, report)
        other.unclosed.discard(_key(report))
        return [*gone, other]

    def _make_room(self) -> list[_Held]:
        if len(self._held) < self._limits.open_max:
            return []
        order = (State.ENDED, State.STALE, State.OPEN)
        gone = min(self._held, key=lambda held: order.index(held.incident.state))
        self._held.remove(gone)
        if gone.incident.state is not State.OPEN:
            return []
        gone.incident.state = State.STALE
        gone.incident.version += 1
        return [gone]

    def _end(self, held: _Held, by: str, at_ns: int | None) -> None:
        held.ended_ns = at_ns
        held.incident.state, held.incident.ended_by = State.ENDED, by
        held.incident.version += 1

    def _ticked(self, now_ns: int) -> list[_Held]:
        changed = []
        for held in list(self._held):
            incident = held.incident
            if incident.until_ns is None:
                continue
            quiet_ns = now_ns - max(incident.until_ns, held.ended_ns or 0)
            longest = _STALE_AFTER * max(repeat_ns(each) for each in incident.reports)
            if incident.state is State.OPEN and quiet_ns > longest:
                incident.state = State.STALE
                incident.version += 1
                changed.append(held)
            kept_ns = _ENDED_KEPT_NS if incident.state is State.ENDED else max(_STALE_KEPT_NS, longest)
            if incident.state is not State.OPEN and quiet_ns > kept_ns:
                self._held.remove(held)
        return changed

    # Returns whether anything of it changed that somebody is to be told; the newest record alone is no news.
    def _summarise(self, held: _Held) -> bool:
        incident = held.incident
        before = _told(incident)
        summarise(incident, held.folded)
        if incident.version and _told(incident) == before:
            return False
        incident.version += 1
        return True


def _told(incident: Incident) -> tuple[Any, ...]:
    root = incident.root
    whose = incident.kind, incident.cpus, incident.task, incident.pid, incident.victims, incident.since_ns
    seen = len(incident.reports), len(incident.start_lines), incident.dropped_start_lines, incident.state
    about = root.shape, root.frames, root.module, incident.panicked, incident.corrupted
    return *whose, *seen, *about, tuple(sorted(incident.lengths.items()))


def _key(report: Report) -> str:
    return f"{report.kind}/{report.place}/{family(report)}"


def _distinct(changed: list[_Held]) -> list[Incident]:
    return list({held.incident.id: held.incident for held in changed}.values())


def _joins(held: _Held, report: Report, *, whole: bool) -> bool:
    start = since_ns(report, whole=whole)
    if held.ended_ns is not None and start is not None and start > held.ended_ns:
        return False
    return any(related(each, report, whole=whole) for each in held.incident.reports)


def _belongs(held: _Held, report: Report) -> bool:
    start = since_ns(report)
    if held.ended_ns is not None and start is not None and start > held.ended_ns:
        return False
    for each in held.incident.reports:
        if each is report:
            continue
        one, new = (each, report) if each.place <= report.place else (report, each)
        if related(one, new, whole=True):
            return True
    return False


# Whether a sign of life says something about the incident: what is remembered has a bound.
def _wanted(incident: Incident, key: str) -> bool:
    what, _, which = key.partition(":")
    if what == "cpu":
        return int(which) in incident.cpus or incident.kind is Kind.CLOCKSOURCE_UNSTABLE
    if what == "task":
        return any(str(each.pid) == which for each in incident.reports)
    return any(each.flavor == which for each in incident.reports)


def _replace(incident: Incident, key: str, report: Report) -> None:
    for i, each in enumerate(incident.reports):
        if each is not report and _key(each) == key:
            incident.reports[i] = report
            if incident.root is each:
                incident.root = report


def _trim(report: Report, lines_max: int) -> None:
    kept = report.lines[:lines_max] + [each for each in report.lines[lines_max:] if awaits_answer(each.text)][:2]
    report.dropped_lines += len(report.lines) - len(kept)
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


def _held_to_dict(held: _Held) -> dict[str, Any]:
    value = codec.to_dict(held.incident)
    for report, each in zip(held.incident.reports, value["reports"], strict=True):
        if _key(report) in held.unclosed:
            each["lines"] = []
    folded, unclosed = held.folded.to_dict(), sorted(held.unclosed)
    return {"incident": value, "folded": folded, "proofs": held.proofs, "unclosed": unclosed, "ended_ns": held.ended_ns}


def _held_from_dict(value: dict[str, Any]) -> _Held:
    parts = codec.from_dict(value["incident"]), Folded.from_dict(value["folded"]), dict(value["proofs"])
    return _Held(*parts, set(value["unclosed"]), value["ended_ns"])
