"""One VM as its monitor tells it: frames of the surface `qmp` in, changed incidents out. No file, socket or clock.

A panic and the firing of a watchdog are events. That a VM stays stopped is a length of time, which passes as records
and heartbeats of the stream say; who is stopped by a migration or a snapshot for less is nobody's business. That it
stopped at all must be confirmed by a run state that means so, because a VM that moved away says STOP as well.
Source: QEMU's qapi/run-state.json (events, RunState) and qapi/block-core.json (BLOCK_IO_ERROR).
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from consumers.incidents import codec
from consumers.incidents.incident import Incident, Source, StartLine, State
from consumers.reports.report import Kind, Line, Report, Seconds
from schemas import heartbeat
from schemas.errors import BadInputError
from schemas.frame import Frame
from schemas.state import Record, unpack
from schemas.surfaces import HEARTBEAT_ENCODING, SURFACES

SURFACE: Final = "qmp"
#: Run states in which a VM stands that somebody had run.
_STOPPED: Final = frozenset(
    ("paused", "io-error", "internal-error", "watchdog", "debug", "save-vm", "restore-vm", "finish-migrate", "colo")
)
#: In which it has not begun to run, here.
_NEW: Final = frozenset(("prelaunch", "preconfig", "inmigrate"))
#: In which it has ended here, or its guest has gone to sleep by itself.
_OVER: Final = frozenset(("postmigrate", "shutdown", "suspended"))
_S: Final = 10**9
#: After so long without a word it is stale, and what has ended may come again as the same.
_STALE_NS: Final = 180 * _S
_ENDED_KEPT_NS: Final = 60 * _S
_BOOTS_MAX: Final = 4
_HELD_MAX: Final = 6
_LINES_MAX: Final = 16
_START_LINES_MAX: Final = 64
_TEXT_CHARS_MAX: Final = 200


class Who(NamedTuple):
    """Whose incidents: a kernel's, by machine and layer, or those of the VM that a host's machine calls `vm`."""

    machine: str
    layer: str
    vm: str = ""


@dataclass(slots=True)
class _Stop:
    since_ns: int
    place: int
    lines: list[Line] = field(default_factory=list)
    confirmed: bool = False


@dataclass(slots=True)
class _Held:
    incident: Incident
    ended_ns: int | None = None


class Vm:
    """The VM `who`; it is stopped when it was so for `stopped_ns`. Times are its host's CLOCK_BOOTTIME."""

    def __init__(self, who: Who, stopped_ns: int) -> None:
        self.name = who
        self._stopped_ns = stopped_ns
        self._boots: list[str] = []  # of its host, the newest last
        self._next = self._now_ns = 0
        self._run, self._cut_ns, self._base = "", 0, 0  # of the newest frame; what is added to its positions
        self._stop: _Stop | None = None
        self._shut = False  # it was shut down: that it stops then is no news
        self._panicked = False  # since it last began to run
        self._off = False  # its panic shut it down
        self._held: list[_Held] = []

    def holds(self, key: str) -> bool:
        """Return whether incident `key` may still change."""
        return any(each.incident.id == key for each in self._held)

    def incident(self, key: str) -> Incident:
        """Return the incident `key`, which may still change; raise KeyError if there is none."""
        return {each.incident.id: each.incident for each in self._held}[key]

    def feed(self, frame: Frame) -> list[Incident]:
        """Take one frame of this VM's monitor; return the incidents that it changed.

        Raises:
            BadInputError: the frame's body is not what its encoding says; nothing of it was taken.
        """
        beat, records = None, []
        if frame.encoding == HEARTBEAT_ENCODING:
            beat = heartbeat.unpack(frame.body)
        elif frame.encoding == SURFACE and 1 <= frame.encoding_version <= SURFACES[SURFACE].encoding_version:
            records = unpack(frame.body)
            if len(records) != frame.next - frame.first:
                raise BadInputError("body", f"{len(records)} records for [{frame.first}, {frame.next})")
        if frame.stream.boot_id in self._boots[:-1]:
            return []  # late, of a boot that is over
        changed = self._begin(frame.stream.boot_id)
        self._place(frame)
        for place, record in enumerate(records, frame.first + self._base):
            if place >= self._next:
                self._now_ns = max(self._now_ns, record.ts_ns)
                changed += self._take(place, record)
        self._next = max(self._next, frame.next + self._base)
        if beat is not None:
            self._now_ns = max(self._now_ns, beat.boottime_ns)
        return _distinct([*changed, *self._tick()])

    def joined(self, key: str, other: str) -> Incident | None:
        """Take that incident `key` is part of `other`, its guest's own; return it if that is news."""
        held = next((each for each in self._held if each.incident.id == key and not each.incident.joined), None)
        if held is None:
            return None
        held.incident.joined = other
        self._end(held, "joined")
        return held.incident

    def state(self) -> dict[str, Any]:
        """Return all that is remembered, as values of JSON."""
        held = [{"incident": codec.to_dict(each.incident), "ended_ns": each.ended_ns} for each in self._held]
        flags = {"shut": self._shut, "panicked": self._panicked, "off": self._off}
        stop = None if self._stop is None else dataclasses.asdict(self._stop)
        numbers = {"next": self._next, "run": self._run, "cut_ns": self._cut_ns, "base": self._base}
        return {"boots": self._boots, "now_ns": self._now_ns, "stop": stop, "held": held} | numbers | flags

    @classmethod
    def restore(cls, who: Who, stopped_ns: int, value: dict[str, Any]) -> "Vm":
        """Return the VM that gave `value`."""
        made = cls(who, stopped_ns)
        made._boots, made._next, made._now_ns = list(value["boots"]), value["next"], value["now_ns"]
        made._run, made._cut_ns, made._base = value.get("run", ""), value.get("cut_ns", 0), value.get("base", 0)
        made._shut, made._panicked, made._off = value["shut"], value["panicked"], value["off"]
        stop = value["stop"]
        if stop is not None:
            made._stop = _Stop(**stop | {"lines": [Line(*each) for each in stop["lines"]]})
        made._held = [_Held(codec.from_dict(each["incident"]), each["ended_ns"]) for each in value["held"]]
        return made

    # As the collector does it (`Books.placed`): an agent with another log numbers from 0 again, behind what is known.
    def _place(self, frame: Frame) -> None:
        if frame.run != self._run and frame.realtime_ns > self._cut_ns and frame.first + self._base < self._next:
            self._base = self._next - frame.first
        self._run, self._cut_ns = frame.run, max(self._cut_ns, frame.realtime_ns)

    # A boot of the host that nobody has seen: its VMs went with the one before.
    def _begin(self, boot_id: str) -> list[Incident]:
        if self._boots and self._boots[-1] == boot_id:
            return []
        changed = self._end_all("reboot")
        self._boots = [*self._boots, boot_id][-_BOOTS_MAX:]
        self._next = self._now_ns = self._base = 0
        self._stop, self._held = None, []
        self._shut = self._panicked = self._off = False
        return changed

    def _take(self, place: int, record: Record) -> list[Incident]:
        if record.kind == "qmp_events" and isinstance(event := record.fields.get("event"), str):
            data = record.fields.get("data")
            text = f"{event} {data}" if isinstance(data, str) else event
            return self._event(event, _object(data), _line(place, record.ts_ns, text))
        if record.kind == "qmp_status" and isinstance(status := record.fields.get("status"), str):
            return self._status(status, _line(place, record.ts_ns, f"status {status}"))
        return []

    def _event(self, event: str, data: dict[str, Any], line: Line) -> list[Incident]:
        match event:
            case "GUEST_PANICKED" | "GUEST_CRASHLOADED":
                return self._panic(line)
            case "WATCHDOG":
                return self._tell(Kind.WATCHDOG, line)
            case "BLOCK_IO_ERROR" if data.get("action") == "stop":
                self._stopping(line, confirmed=True)
            case "STOP" if not self._shut:
                self._stopping(line, confirmed=False)
            case "RESUME":
                self._shut = False
                return self._runs(line)
            case "RESET":
                self._shut = self._panicked = self._off = False
                return self._end_all("reboot")
            case "SHUTDOWN":
                self._shut = True
                self._off = data.get("reason") == "guest-panic"
                self._panicked &= self._off
                return self._end_all("shutdown", but=Kind.PANIC if self._off else None)
        return []

    def _status(self, status: str, line: Line) -> list[Incident]:
        if status == "guest-panicked":
            self._stop = None
            return self._panic(line)
        if status in _STOPPED:
            self._stopping(line, confirmed=True)
            return []
        self._shut = status == "shutdown"
        if status in _NEW or (status == "running" and self._off):
            self._panicked = self._off = False
            return self._end_all("reboot")
        if status == "running":
            return self._runs(line)
        return self._end_all("shutdown", but=Kind.PANIC) if status in _OVER else []

    # One panic may be told by two devices, and by the state in which it left the VM.
    def _panic(self, line: Line) -> list[Incident]:
        if self._panicked:
            return []
        self._panicked, self._stop = True, None
        return self._tell(Kind.PANIC, line)

    # Who was stopped because of a panic or a watchdog stands for a reason that is told already.
    def _stopping(self, line: Line, *, confirmed: bool) -> None:
        if self._panicked or self._open(Kind.WATCHDOG) is not None:
            return
        if self._stop is None:
            self._stop = _Stop(line.ts_ns or 0, line.place)
        self._stop.confirmed |= confirmed
        known = any(each.text == line.text for each in self._stop.lines)
        if not known and len(self._stop.lines) < _LINES_MAX:
            self._stop.lines.append(line)
        held = self._open(Kind.VM_STOPPED)
        if held is not None:
            held.incident.until_ns, held.incident.last_place = line.ts_ns, line.place

    def _runs(self, line: Line) -> list[Incident]:
        self._stop = None
        changed = []
        for kind in (Kind.VM_STOPPED, Kind.WATCHDOG):
            held = self._open(kind)
            # A watchdog that stopped nothing has not ended by that it runs.
            if held is not None and (kind is Kind.VM_STOPPED or line.text == "RESUME"):
                held.incident.proof = f"{_table(line)} {line.place}"
                self._measure(held.incident, line)
                self._end(held, "progress")
                changed.append(held.incident)
        return changed

    def _tick(self) -> list[Incident]:
        changed = []
        stop = self._stop
        stands = stop is not None and stop.confirmed and self._now_ns - stop.since_ns >= self._stopped_ns
        if stop is not None and stands and self._open(Kind.VM_STOPPED) is None:
            changed += self._tell(Kind.VM_STOPPED, *stop.lines)
        for held in list(self._held):
            quiet_ns = self._now_ns - (held.ended_ns or held.incident.until_ns or 0)
            if held.ended_ns is not None:
                if quiet_ns > _ENDED_KEPT_NS:
                    self._held.remove(held)
            elif held.incident.state is State.OPEN and quiet_ns > _STALE_NS:
                held.incident.state = State.STALE
                held.incident.version += 1
                changed.append(held.incident)
        return changed

    # What comes again soon is the same: a guest that panics in a loop is one failure.
    def _tell(self, kind: Kind, *lines: Line) -> list[Incident]:
        mine = [each for each in self._held if each.incident.kind is kind and kind is not Kind.VM_STOPPED]
        held = mine[-1] if mine else None
        if held is not None and held.incident.joined and kind is Kind.WATCHDOG:
            return []
        if held is not None and not held.incident.joined:
            self._again(held, lines)
        else:
            held = _Held(self._made(kind, lines))
            ended = [each for each in self._held if each.ended_ns is not None]
            for gone in ended[: max(0, len(self._held) + 1 - _HELD_MAX)]:
                self._held.remove(gone)
            self._held.append(held)
        if kind is Kind.VM_STOPPED:
            self._measure(held.incident, lines[-1])
        return [held.incident]

    def _made(self, kind: Kind, lines: tuple[Line, ...]) -> Incident:
        first, last = lines[0], lines[-1]
        source = Source(self.name.machine, self._boots[-1], self.name.layer)
        key = json.dumps([*source, self.name.vm, kind, first.place])
        name = hashlib.sha256(key.encode()).hexdigest()[:20]
        report = Report(kind, first.place, first.ts_ns, structured=True, lines=list(lines))
        report.last_place, report.last_ts_ns = last.place, last.ts_ns
        where = (name, source, kind, kind, first.place, last.place, first.ts_ns, last.ts_ns)
        incident = Incident(*where, None, "", (), None, None, (), report, [report], vm=self.name.vm)
        incident.start_lines.append(StartLine(first.place, kind))
        incident.panicked = kind is Kind.PANIC
        return incident

    def _again(self, held: _Held, lines: tuple[Line, ...]) -> None:
        incident, root = held.incident, held.incident.root
        kept = lines[: max(0, _LINES_MAX - len(root.lines))]
        root.lines += kept
        root.dropped_lines += len(lines) - len(kept)
        incident.last_place = root.last_place = lines[-1].place
        incident.until_ns = root.last_ts_ns = lines[-1].ts_ns
        if len(incident.start_lines) < _START_LINES_MAX:
            incident.start_lines.append(StartLine(lines[0].place, incident.kind))
        else:
            incident.dropped_start_lines += 1
        incident.state, incident.ended_by, incident.proof, held.ended_ns = State.OPEN, "", "", None
        incident.version += 1

    # How long it has stood, up to now.
    def _measure(self, incident: Incident, line: Line) -> None:
        incident.last_place = max(incident.last_place, line.place)
        incident.until_ns = max(incident.until_ns or 0, line.ts_ns or 0)
        length_s = round((max(self._now_ns, incident.until_ns) - (incident.since_ns or 0)) / _S, 6)
        incident.duration, incident.duration_from = Seconds(length_s, length_s), "monitor"
        incident.lengths["monitor"] = incident.duration

    def _open(self, kind: Kind) -> _Held | None:
        return next((each for each in self._held if each.incident.kind is kind and each.ended_ns is None), None)

    def _end_all(self, by: str, but: Kind | None = None) -> list[Incident]:
        self._stop = None
        going = [each for each in self._held if each.ended_ns is None and each.incident.kind is not but]
        for held in going:
            self._end(held, by)
        return [held.incident for held in going]

    def _end(self, held: _Held, by: str) -> None:
        held.ended_ns = self._now_ns
        held.incident.state, held.incident.ended_by = State.ENDED, by
        held.incident.version += 1


def _line(place: int, ts_ns: int, text: str) -> Line:
    shown = "".join(char if char.isprintable() else "?" for char in text[:_TEXT_CHARS_MAX])
    return Line(place, ts_ns, "", shown, structured=True)


def _table(line: Line) -> str:
    return "qmp_status" if line.text.startswith("status ") else "qmp_events"


def _object(data: Any) -> dict[str, Any]:
    try:
        found = json.loads(data) if isinstance(data, str) else {}
    except (ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}


def _distinct(changed: list[Incident]) -> list[Incident]:
    return list({incident.id: incident for incident in changed}.values())
