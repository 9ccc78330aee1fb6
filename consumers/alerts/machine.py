"""One kernel's log as a state machine: frames in, changed incidents out. No file, socket or clock.

A machine is known by what its frames' stream says, never by a text. Its histories are its boots, and what it lived
again after a snapshot: one that was never seen ends the others, whose incidents end by a reboot. A frame in which no
line of the grammar can be is not parsed unless a report is open, and of a machine that prints more of the others than
`budget.py` gives it, the rest is only screened and counted.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from consumers.alerts.budget import INCIDENT_LINES, Budget
from consumers.alerts.clock import KernelClock
from consumers.alerts.lines import FrameLines
from consumers.alerts.signs import Sign
from consumers.incidents.assembly import IncidentAssembler
from consumers.incidents.incident import Incident, Source
from consumers.incidents.progress import Progress
from consumers.reports.assembler import Change, ReportAssembler
from consumers.reports.report import Kind, Line
from consumers.reports.screen import suspicious
from schemas.frame import Frame
from schemas.surfaces import HEARTBEAT_ENCODING, SURFACES

SURFACE: Final = "kmsg"
_ENCODING: Final = SURFACES[SURFACE].encoding
_VERSION: Final = SURFACES[SURFACE].encoding_version
# What is said of a CPU that was busy in the kernel: when it is idle, that is over.
_BUSY: Final = frozenset((Kind.SOFT_LOCKUP, Kind.HARD_LOCKUP, Kind.SCX_LOCKUP))
#: Boots of a machine that are remembered; frames of an older one would be taken for a new one's.
HISTORIES_MAX: Final = 4


@dataclass(slots=True)
class _History:
    boot_id: str
    instance: str
    next: int
    hz: int | None = None  # the kernel says it once, when it boots
    clock: KernelClock = field(default_factory=KernelClock)
    reports: ReportAssembler | None = None
    incidents: IncidentAssembler | None = None

    # Whether a report is open, whose lines may be like any others.
    @property
    def reading(self) -> bool:
        return self.reports is not None and bool(self.reports.open_reports)


class Machine:
    """The kernel of `machine` on `layer`. Everything in it has a bound; one that is quiet takes less than 1 KiB."""

    __slots__ = ("_budget", "_histories", "name", "near_misses", "parsed", "rebooted", "skipped")

    def __init__(self, machine: str, layer: str) -> None:
        self.name = (machine, layer)
        self._histories: dict[tuple[str, str], _History] = {}
        self._budget = Budget()
        self.parsed = 0  # lines, since the start
        self.skipped = 0  # records that were left out
        self.near_misses = 0
        self.rebooted = False  # whether the newest frame was the first of a boot that nobody had seen

    def holds(self, key: str) -> bool:
        """Return whether incident `key` may still change."""
        return any(each.id == key for each in self._held())

    def incident(self, key: str) -> Incident:
        """Return the incident `key`, which may still change; raise KeyError if there is none."""
        return {each.id: each for each in self._held()}[key]

    @property
    def exceeded(self) -> bool:
        """Whether lines were left out since the machine last had all of its budget."""
        return self._budget.exceeded

    def feed(self, frame: Frame, arrival_ns: int) -> list[Incident]:
        """Take one frame of this machine's kernel log; return the incidents that it changed.

        `arrival_ns` is the log's append time of it.

        Raises:
            BadInputError: the frame's body is not what its encoding says; nothing of it was taken.
        """
        self.rebooted = False
        if frame.encoding == HEARTBEAT_ENCODING:
            return self._passed(frame)
        if frame.encoding != _ENCODING or not 1 <= frame.encoding_version <= _VERSION:
            return []
        key = (frame.stream.boot_id, frame.stream.instance)
        known = self._histories.get(key)
        if known is not None and frame.next <= known.next:
            return []
        start = max(frame.first, known.next) if known else frame.first
        history = known or _History(*key, 0)
        # A body that is none is found here, before anything changes.
        wanted = history.reading or suspicious(frame.body)
        found = FrameLines(frame, start, lambda: history.reading) if wanted else None
        changed = [] if known else self._begin(key, history)
        history.next = frame.next
        if found is not None:
            self._read(history, found, frame.realtime_ns, arrival_ns, changed)
        if frame.ts_last_ns:
            history.clock.hear(frame.ts_last_ns, frame.realtime_ns)
        return _distinct([*changed, *self._tick(history, history.clock.now_ns or None)])

    def alive(self, sign: Sign) -> list[Incident]:
        """Take a sign of life of this machine; return the incidents that it changed."""
        changed: list[Incident] = []
        for history in self._histories.values():
            at_ns = history.clock.at(sign.since_ns)
            if history.boot_id != sign.boot_id or history.incidents is None or at_ns is None:
                continue
            held = history.incidents.incidents
            asleep = {
                cpu for each in held for report in each.reports if report.kind not in _BUSY for cpu in report.cpus
            }
            for cpu in {*sign.busy, *sign.idle} - (asleep - set(sign.busy)):
                changed += history.incidents.progress(Progress(at_ns, cpu=cpu))
            now_ns = history.clock.at(sign.at_ns) or 0
            for pid, position in sign.awake:
                proof = Progress(now_ns, pid=pid, record=f"procfs_blocked {position}")
                changed += history.incidents.progress(proof)
        return _distinct(changed)

    def panicked(self, key: str) -> list[Incident]:
        """Take that a host told of a panic, which belongs to incident `key`; return it if that is news."""
        held = [each.incidents for each in self._histories.values() if each.incidents is not None]
        return [incident for each in held for incident in each.panicked(key)]

    def state(self) -> dict[str, Any]:
        """Return all that is remembered, as values of JSON."""
        found: list[dict[str, Any]] = []
        for each in self._histories.values():
            value: dict[str, Any] = {
                "boot_id": each.boot_id,
                "instance": each.instance,
                "next": each.next,
                "kernel_ns": each.clock.now_ns,
                "realtime_ns": each.clock.realtime_ns,
                "told_ns": each.clock.told_ns,
                "hz": each.hz,
            }
            if each.reports is not None:
                value["reports"] = each.reports.state()
            if each.incidents is not None:
                value["incidents"] = each.incidents.state()
            found.append(value)
        spent = self._budget.spent_until_ns
        return {"histories": found} | ({"spent_until_ns": spent} if spent else {})

    @classmethod
    def restore(cls, machine: str, layer: str, state: dict[str, Any]) -> "Machine":
        """Return the machine that gave `state`."""
        made = cls(machine, layer)
        made._budget = Budget(state.get("spent_until_ns", 0))
        for value in state.get("histories", []):
            history = _History(*(value[name] for name in ("boot_id", "instance", "next", "hz")))
            now_ns = value["kernel_ns"]
            history.clock = KernelClock(now_ns, value["realtime_ns"], value.get("told_ns", now_ns))
            if "reports" in value:
                history.reports = ReportAssembler.restore(value["reports"])
            if "incidents" in value:
                source = Source(machine, history.boot_id, layer)
                history.incidents = IncidentAssembler.restore(source, value["incidents"])
                if history.reports is not None:
                    history.incidents.relink(history.reports.open_reports)
            made._histories[(history.boot_id, history.instance)] = history
        return made

    def _held(self) -> list[Incident]:
        held = [each.incidents for each in self._histories.values() if each.incidents is not None]
        return [incident for each in held for incident in each.incidents]

    # As far as the machine's budget goes.
    def _read(
        self, history: _History, found: FrameLines, realtime_ns: int, arrival_ns: int, changed: list[Incident]
    ) -> None:
        credit, cost = self._budget.credit(arrival_ns), 0
        for line in found:
            if cost >= credit:
                self._budget.exceeded = True
                left_out = found.left_out()
                self.skipped += left_out
                if history.incidents is not None:
                    changed += history.incidents.left_out(left_out)
                break
            self.parsed += 1
            opened = 0 if history.incidents is None else history.incidents.opened
            changed += self._take(history, line, realtime_ns)
            if history.incidents is not None:
                cost += INCIDENT_LINES * (history.incidents.opened - opened)
            cost += 1
        self._budget.spend(arrival_ns, cost)

    # A boot that nobody has seen: whatever was open before is over.
    def _begin(self, key: tuple[str, str], history: _History) -> list[Incident]:
        changed: list[Incident] = []
        for each in self._histories.values():
            if each.incidents is not None:
                changed += each.incidents.rebooted()
            each.reports = each.incidents = None
        while len(self._histories) >= HISTORIES_MAX:
            del self._histories[next(iter(self._histories))]
        self._histories[key] = history
        self.rebooted = True
        return changed

    def _take(self, history: _History, line: Line, realtime_ns: int) -> list[Incident]:
        if history.reports is None:
            history.reports = ReportAssembler(history.hz)
        near = history.reports.near_misses
        changes = history.reports.feed([line])
        history.hz = history.reports.hz
        self.near_misses += history.reports.near_misses - near
        return self._apply(history, changes, history.clock.hear(line.ts_ns or 0, realtime_ns))

    # A heartbeat, or a frame of another version: time passed.
    def _passed(self, frame: Frame) -> list[Incident]:
        history = self._histories.get((frame.stream.boot_id, frame.stream.instance))
        return [] if history is None else _distinct(self._tick(history, history.clock.at(frame.realtime_ns)))

    def _tick(self, history: _History, kernel_ns: int | None) -> list[Incident]:
        changed: list[Incident] = []
        if kernel_ns is None:
            return changed
        if history.reports is not None:
            changed += self._apply(history, history.reports.tick(kernel_ns), kernel_ns)
        if history.incidents is not None:
            changed += history.incidents.tick(kernel_ns)
            if not history.incidents.incidents:
                history.incidents = None
        if history.incidents is None and not history.reading:
            history.reports = None
        return changed

    def _apply(self, history: _History, changes: list[Change], now_ns: int | None) -> list[Incident]:
        if not changes:
            return []
        if history.incidents is None:
            history.incidents = IncidentAssembler(Source(self.name[0], history.boot_id, self.name[1]))
        return history.incidents.apply(changes, now_ns)


def _distinct(changed: list[Incident]) -> list[Incident]:
    return list({incident.id: incident for incident in changed}.values())
