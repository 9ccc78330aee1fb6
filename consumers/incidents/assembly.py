"""Reports become incidents: one failure of one boot is one incident, from its first line to its proven end.

A report joins what it overlaps in time (`joining.py`). That is decided at its start line, so that the first page goes
out at once, and once more with the whole report: then it may leave again for an incident of its own, or take its own
into an older one. An incident ends by a line that says so, by progress, or by a reboot; of one that is only silent for
three times its re-report interval is said that it is `stale`. Times are printk's, given by the caller.
"""

import hashlib
import json
from bisect import insort
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from consumers.incidents.held import Held, belongs, fingerprint, joins, key_of, knows, replace, told, trim, wanted
from consumers.incidents.held import from_dict as held_of_json
from consumers.incidents.held import to_dict as held_json
from consumers.incidents.incident import Incident, Source, StartLine, State
from consumers.incidents.joining import REPEAT_NS_MIN, S, family, repeat_ns
from consumers.incidents.progress import Progress, settled
from consumers.incidents.summary import summarise
from consumers.reports.report import Report, Seconds

#: What has ended may still get lines of the same stall; what is stale may wake.
_ENDED_KEPT_NS: Final = 60 * S
_STALE_KEPT_NS: Final = 3600 * S
_STALE_AFTER: Final = 3
#: Whose place another takes.
_ROOM: Final = (State.ENDED, State.STALE, State.OPEN)


class Limits(NamedTuple):
    """Bounds of one source. With the defaults `state()` stays below 256 KiB. The newest of `open_max` takes more."""

    open_max: int = 6
    reports_max: int = 8
    start_lines_max: int = 192
    lines_max: int = 4
    first_lines_max: int = 40


class IncidentAssembler:
    """The incidents of one boot of one source. Every method that may change some returns those that it changed."""

    def __init__(self, source: Source, limits: Limits | None = None) -> None:
        self._source = source
        self._limits = limits or Limits()
        self._held: list[Held] = []
        self._ticked_s: int | None = None  # once a second is enough
        self.opened = 0  # since this was made

    @property
    def incidents(self) -> list[Incident]:
        """Those that are held: open, stale, or ended a short time ago."""
        return [held.incident for held in self._held]

    def apply(self, changes: Iterable[tuple[str, Report]], now_ns: int | None) -> list[Incident]:
        """Take what the assembly of reports gave; `now_ns` is printk's newest time.

        A report is changed in place while its lines come: give the changes of one line at a time, or what follows
        from them depends on how the lines were cut into batches.
        """
        changed: list[Held] = []
        for what, report in changes:
            if what == "opened":
                changed += self._opened(report)
            else:
                changed += self._grown(report, closed=what == "closed")
        if now_ns is not None and now_ns // S != self._ticked_s:
            changed += self._ticked(now_ns)
        return _distinct(changed)

    def tick(self, now_ns: int) -> list[Incident]:
        """Mark as stale what was silent for long, and forget what is over for long."""
        return _distinct(self._ticked(now_ns))

    def progress(self, proof: Progress) -> list[Incident]:
        """Take a sign of life; incidents end of which nothing stands still any more."""
        changed = []
        for held in self._held:
            if held.incident.state is State.ENDED:
                continue
            held.proofs |= {key: value for key, value in proof.entries() if wanted(held, key)}
            if settled(held.incident.reports, held.proofs, held.folded.standing):
                held.incident.proof = proof.record
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

    def panicked(self, incident_id: str) -> list[Incident]:
        """Take that its host told of a panic, which belongs to this incident."""
        for held in self._held:
            if held.incident.id == incident_id and not held.folded.panicked:
                held.folded.panicked = True
                return _distinct([held] if self._summarise(held) else [])
        return []

    def left_out(self, count: int) -> list[Incident]:
        """Take that `count` records were not read: what had not ended may lack lines, and reports that grow do."""
        going = [held for held in self._held if held.incident.state is not State.ENDED]
        for held in going:
            held.incident.skipped += count
            for report in held.incident.reports:
                report.corrupted = report.corrupted or key_of(report) in held.unclosed
        return _distinct([held for held in going if self._summarise(held)])

    def rebooted(self) -> list[Incident]:
        """Say that this boot is over: all that had not ended ends by it. `panicked` says whether that was why."""
        changed = [held for held in self._held if held.incident.state is not State.ENDED]
        for held in changed:
            self._end(held, "reboot", held.incident.until_ns)
        self._held = []
        return _distinct(changed)

    def relink(self, reports: Iterable[Report]) -> None:
        """Take these objects for the reports that still grow: after a restart their assembly has made them anew."""
        for report in reports:
            key = key_of(report)
            for held in self._held:
                if key in held.unclosed:
                    replace(held.incident, key, report)

    def state(self) -> dict[str, Any]:
        """Return everything as values of JSON.

        Of reports that still grow most is left out, because their assembly has it: `relink` after `restore`.
        """
        if not self._held:
            return {}
        return {"held": [held_json(held) for held in self._held], "ticked_s": self._ticked_s}

    @classmethod
    def restore(cls, source: Source, state: dict[str, Any], limits: Limits | None = None) -> "IncidentAssembler":
        """Return the assembler that gave `state`."""
        made = cls(source, limits)
        made._held = [held_of_json(each) for each in state.get("held", [])]
        made._ticked_s = state.get("ticked_s")
        return made

    def _opened(self, report: Report) -> list[Held]:
        found = self._found(report, whole=False) or self._crowded()
        if found is None:
            return [self._new(report)]
        self._add(found, report)
        return [found]

    def _found(self, report: Report, *, whole: bool, but: Held | None = None) -> Held | None:
        fits = [held for held in self._held if held is not but and joins(held, report, whole=whole)]
        if len(fits) < 2:
            return fits[0] if fits else None
        own = family(report)
        return min(fits, key=lambda held: not knows(held, own))

    def _new(self, report: Report) -> Held:
        self._make_room()
        key = json.dumps([*self._source, family(report), report.place])
        name = hashlib.sha256(key.encode()).hexdigest()[:20]
        kind, place = report.kind, report.place
        where = (name, self._source, kind, kind, place, place, report.ts_ns, report.ts_ns)
        incident = Incident(*where, None, "", (), None, None, (), report, [report], version=0)
        incident.start_lines.append(StartLine(place, kind))
        held = Held(incident, unclosed={key_of(report): 0})
        self._held.append(held)
        self.opened += 1
        self._summarise(held)
        return held

    def _add(self, held: Held, report: Report) -> None:
        incident = held.incident
        incident.reports.append(report)
        held.unclosed[key_of(report)] = 0
        if len(incident.start_lines) < self._limits.start_lines_max:
            insort(incident.start_lines, StartLine(report.place, report.kind))
        else:
            incident.dropped_start_lines += 1
        if incident.state is not State.OPEN:
            incident.state, incident.ended_by, incident.proof, held.ended_ns = State.OPEN, "", "", None
        self._summarise(held)
        self._drop(held)

    # The first report and the root stay, and the newest.
    def _drop(self, held: Held) -> None:
        incident = held.incident
        while len(incident.reports) > self._limits.reports_max:
            spare = [each for each in incident.reports[1:-1] if each is not incident.root]
            gone = spare[0]
            if len(held.unclosed) < len(incident.reports):
                gone = next((each for each in spare if key_of(each) not in held.unclosed), gone)
            incident.reports = [each for each in incident.reports if each is not gone]
            incident.dropped_reports += 1
            held.unclosed.pop(key_of(gone), None)
            held.folded.add(gone)

    def _grown(self, report: Report, *, closed: bool) -> list[Held]:
        key = key_of(report)
        held = next((each for each in self._held if key in each.unclosed), None)
        if held is None:
            return self._late_end(report, key)
        replace(held.incident, key, report)
        if not closed:
            return [held] if self._is_news(held, key, report) and self._summarise(held) else []
        held.unclosed.pop(key, None)
        moved = self._settle(held, report)
        self._shorten(report)
        if held not in self._held:
            return [held, *moved]
        changed = [*([held] if self._summarise(held) else []), *moved]
        for each in (held, *moved):
            reports, standing = each.incident.reports, each.folded.standing
            if each.incident.state is not State.ENDED and settled(reports, each.proofs, standing):
                # What lost a report that was not its own is over by what ended it before.
                by = "end-line" if settled(reports, {}, standing) else "progress"
                self._end(each, by, each.incident.until_ns)
                changed.append(each)
        return changed

    # Most lines of a stack change nothing that an incident says.
    def _is_news(self, held: Held, key: str, report: Report) -> bool:
        now, before = fingerprint(report, root=report is held.incident.root), held.unclosed[key]
        held.unclosed[key] = now
        if now != before:
            return True
        incident = held.incident
        incident.last_place = max(incident.last_place, report.last_place)
        if report.last_ts_ns is not None:
            incident.until_ns = max(incident.until_ns or 0, report.last_ts_ns)
        return False

    # A whole report keeps what a page needs of it.
    def _shorten(self, report: Report) -> None:
        for held in self._held:
            if any(each is report for each in held.incident.reports):
                held.folded.add_cpus(report)
                first = report is held.incident.reports[0]
                trim(report, self._limits.first_lines_max if first else self._limits.lines_max)

    # Of some kinds the end comes long after the report was closed. Without one it is a report that was dropped.
    def _late_end(self, report: Report, key: str) -> list[Held]:
        if not report.ended:
            return []
        for held in self._held:
            if held.incident.state is not State.ENDED and any(key_of(each) == key for each in held.incident.reports):
                replace(held.incident, key, report)
                self._summarise(held)
                if settled(held.incident.reports, held.proofs, held.folded.standing):
                    self._end(held, "end-line", held.incident.until_ns)
                    return [held]
        return []

    # Now that all of it is known: does it belong where it is?
    def _settle(self, held: Held, report: Report) -> list[Held]:
        incident = held.incident
        if len(incident.reports) == 1 and not incident.dropped_reports:
            older = self._found(report, whole=True, but=held)
            if older is None or older.incident.first_place > report.place:
                return []
            self._held.remove(held)
            self._end(held, "joined", incident.until_ns)
            incident.joined = older.incident.id
            self._add(older, report)
            older.unclosed.pop(key_of(report), None)
            return [older]
        if report is incident.reports[0] or belongs(held, report):
            return []
        other = self._found(report, whole=True, but=held) or self._crowded()
        if other is held:
            return []
        incident.reports = [each for each in incident.reports if each is not report]
        incident.start_lines = [each for each in incident.start_lines if each != (report.place, report.kind)]
        if other is None:
            other = self._new(report)
        else:
            self._add(other, report)
        other.unclosed.pop(key_of(report), None)
        return [other]

    # Nothing that is open goes for another: the kernel would say it again, as new, and nobody would see it end. So many
    # failures at once mostly have one cause; the newest incident takes what would be one more.
    def _crowded(self) -> Held | None:
        going = [held for held in self._held if held.incident.state is State.OPEN]
        return going[-1] if len(going) >= self._limits.open_max else None

    def _make_room(self) -> None:
        if len(self._held) >= self._limits.open_max:
            over = min(self._held, key=lambda held: _ROOM.index(held.incident.state))
            self._held.remove(over)

    def _end(self, held: Held, by: str, at_ns: int | None) -> None:
        held.ended_ns = at_ns
        held.incident.state, held.incident.ended_by = State.ENDED, by
        held.incident.version += 1

    def _ticked(self, now_ns: int) -> list[Held]:
        self._ticked_s = now_ns // S
        changed = []
        for held in list(self._held):
            incident = held.incident
            if incident.until_ns is None:
                continue
            quiet_ns = now_ns - max(incident.until_ns, held.ended_ns or 0)
            if quiet_ns <= _STALE_AFTER * REPEAT_NS_MIN:
                continue
            longest = _STALE_AFTER * max(repeat_ns(each) for each in incident.reports)
            if incident.state is State.OPEN and quiet_ns > longest:
                incident.state = State.STALE
                incident.version += 1
                changed.append(held)
            kept_ns = _ENDED_KEPT_NS if incident.state is State.ENDED else max(_STALE_KEPT_NS, longest)
            if incident.state is not State.OPEN and quiet_ns > kept_ns:
                self._held.remove(held)
        return changed

    # Returns whether anything of it changed that somebody is to be told.
    def _summarise(self, held: Held) -> bool:
        incident = held.incident
        before = told(incident)
        summarise(incident, held.folded)
        if incident.version and told(incident) == before:
            return False
        incident.version += 1
        return True


def _distinct(changed: list[Held]) -> list[Incident]:
    return list({held.incident.id: held.incident for held in changed}.values())
