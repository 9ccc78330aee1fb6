"""An incident and its verdict as an engineer reads them, and as one JSON object (`TRIAGE.md`).

Two sentences first: what stood still and for how long, and who may have owned it. Then the facts, then what is missing.
"""

import datetime as dt
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, Final

from consumers.incidents.incident import Incident
from consumers.incidents.joining import TASK_KINDS, resources, waits_for_others
from consumers.incidents.wall import WALL_NS
from consumers.render import printable
from consumers.reports.frames import anchor as anchor_of
from consumers.reports.frames import own_name
from consumers.reports.report import Kind, Report, Seconds, Shape, panic_reason
from consumers.verdict.verdict import Owner, Verdict

_WIDTH: Final = 110
_LABEL: Final = 12
_FRAMES_SHOWN: Final = 6
_VICTIMS_SHOWN: Final = 8
_CPUS_SHOWN: Final = 16

NAMES: Final = {
    Kind.SOFT_LOCKUP: "soft lockup",
    Kind.HARD_LOCKUP: "hard lockup",
    Kind.SCX_LOCKUP: "lockup under sched_ext",
    Kind.SCX_STALL: "task stall under sched_ext",
    Kind.RCU_STALL: "RCU stall",
    Kind.RCU_EXP_STALL: "expedited RCU stall",
    Kind.RCU_TASKS_STALL: "RCU tasks stall",
    Kind.HUNG_TASK: "hung task",
    Kind.WORKQUEUE_LOCKUP: "workqueue lockup",
    Kind.CSD_STALL: "CPU call without answer",
    Kind.CLOCKSOURCE_UNSTABLE: "unstable clocksource",
    Kind.PANIC: "panic",
    Kind.VM_STOPPED: "stopped VM",
    Kind.WATCHDOG: "watchdog",
}
SHAPES: Final = {
    Shape.RAN: "the CPU took its timer ticks all along, so it ran, and its code did not let go",
    Shape.NOTHING_RAN: "no tick came and the CPU was idle: time jumped, or nothing was run",
    Shape.SILENT: "one CPU was silent while others went on: interrupts off, or not run, or broken",
    Shape.IN_PART: "ticks came for a part of the time only: the CPU was shared with others",
    Shape.NO_ROW: "no row tells of a CPU: a preempted reader, a starved RCU thread, or lost lines",
    Shape.NO_TICKS: "the rows have no ticks: nothing follows from them",
}
_ENDS: Final = {
    "end-line": "the kernel said that it was over",
    "progress": "what stood still was seen to move again",
    "reboot": "none was seen before the machine started anew",
    "shutdown": "its VM was shut down, or went elsewhere",
    "joined": "it turned out to be a part of another incident",
    "displaced": "none was seen, and it made room: its machine had more incidents than are followed",
}
#: Shapes from which something follows, at low confidence and from few cases.
_HINTS: Final[dict[Shape | None, str]] = {
    Shape.RAN: "Its timer ticked all along, which points at code of this kernel",
    Shape.NOTHING_RAN: "Nothing ran on it, which points below this kernel",
}


def json_object(incident: Incident, verdict: Verdict, file: str, boot: int) -> dict[str, Any]:
    """Return the object that `--json` prints, as `TRIAGE.md` describes it."""
    root = incident.root
    length = incident.duration
    return {
        "file": file,
        "boot": boot,
        "id": incident.id,
        "kind": incident.kind,
        "start_lines": [{"line": each.place, "kind": each.kind} for each in incident.start_lines],
        "start_lines_dropped": incident.dropped_start_lines,
        "first_line": incident.first_place,
        "last_line": incident.last_place,
        "at_s": None if (at_ns := incident.since_ns) is None or at_ns >= WALL_NS else round(at_ns / 1e9, 6),
        "cpu": root.cpus[0] if root.cpus else None,
        "cpus": incident.cpus,
        "task": incident.task,
        "pid": incident.pid,
        "victims": incident.victims,
        "duration_s": None if length is None or length.low != length.high else length.high,
        "duration_low_s": None if length is None else length.low,
        "duration_high_s": None if length is None else length.high,
        "duration_from": incident.duration_from,
        "lengths": incident.lengths,
        "shape": root.shape,
        "anchor": anchor(incident),
        "frames": root.frames,
        "module": root.module,
        "release": root.release,
        "hardware": root.hardware,
        "panicked": incident.panicked,
        "state": incident.state,
        "ended_by": incident.ended_by,
        "structured": incident.structured,
        "corrupted": incident.corrupted,
        "owner": verdict.owner,
        "confidence": verdict.confidence,
        "row": verdict.row,
        "rules": verdict.rules,
        "sentence": verdict.sentence,
        "evidence": [{"id": each.id, "text": each.text, "against": each.against} for each in verdict.evidence],
        "missing": [each._asdict() for each in verdict.missing],
        "rejected": [each._asdict() for each in verdict.rejected],
    }


def text(incident: Incident, verdict: Verdict, number: int) -> str:
    """Return the incident for people, numbered."""
    cpus = f" on {_cpus(incident.cpus)}" if incident.cpus else ""
    title = f"{number}. {NAMES[incident.kind]}{cpus}, {length_text(incident.duration)}, {_lines(incident)}"
    told = f"{sentence(incident)} {_owned(incident, verdict)}"
    told = printable(told)
    lines = [title, *textwrap.wrap(told, _WIDTH, initial_indent="   ", subsequent_indent="   "), ""]
    for label, value in _facts(incident, verdict):
        lines += textwrap.wrap(
            printable(value),
            _WIDTH,
            initial_indent=f"   {label:{_LABEL}}",
            subsequent_indent=" " * (_LABEL + 3),
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines) + "\n"


def anchor(incident: Incident) -> str:
    """Return the frame that the incident is known by: the first that is no waiting, spinning or locking."""
    return anchor_of(incident.root.frames)


def length_text(length: Seconds | None) -> str:
    """Return a length in seconds, or both ends where the kernel's HZ is not known."""
    if length is None:
        return "length unknown"
    if length.low == length.high:
        return f"{_number(length.high)} s"
    return f"{_number(length.low)} to {_number(length.high)} s"


def sentence(incident: Incident) -> str:
    """Return what stood still, in one sentence that claims no more than the lines do."""
    root = incident.root
    sentence_of = _OF_VMS.get(root.kind) if incident.vm else None
    told = (sentence_of or _SENTENCES[root.kind])(root, length_text(incident.duration))
    others = [each for each in incident.reports if each is not root and waits_for_others(each) and each.cpus]
    waiting = sorted({cpu for each in others for cpu in each.cpus} - set(root.cpus))
    if waiting and root.cpus:
        told += f"; {_cpus(tuple(waiting))} waited for an answer of it"
    elif waits_for_others(root) and root.kind is not Kind.PANIC:
        told += "; it waited for other CPUs or for RCU, so it may be a victim"
    if incident.panicked and root.kind is not Kind.PANIC:
        told += ", and the kernel panicked over it"
    return f"{told[0].upper()}{told[1:]}."


# What the text cannot say is no lack of this program: it is said before anybody acts on it.
def _owned(incident: Incident, verdict: Verdict) -> str:
    open_question = _cannot(incident)
    if verdict.owner is Owner.UNDETERMINED:
        hint = _HINTS.get(incident.root.shape)
        if hint is not None:
            return f"{hint}, but without the host's side the owner is undetermined."
        return f"The owner is undetermined: this text cannot say {open_question}."
    return f"The owner is {verdict.owner} with {verdict.confidence} confidence; this text cannot say {open_question}."


def _cannot(incident: Incident) -> str:
    root = incident.root
    if root.kind is Kind.PANIC:
        return "whether its own code, its hardware or what runs it was at fault"
    if root.kind is Kind.CLOCKSOURCE_UNSTABLE:
        return "which of the two clocks was wrong"
    if root.kind in TASK_KINDS or (root.kind is Kind.WORKQUEUE_LOCKUP and len(root.cpus) != 1):
        if "storage" in resources(root):
            return "whether the disk below was slow or an answer of it was lost"
        return "what it waited for in the end, nor whether the machine below stood still"
    where = _cpus(root.cpus) if root.cpus else "the CPU"
    return f"whether {where} looped in its kernel or was not run by its host"


def _task(report: Report) -> str:
    return "a task whose name is lost" if report.task is None else f"`{report.task}` (pid {report.pid})"


def _where(report: Report) -> str:
    return _cpus(report.cpus) if report.cpus else "a CPU whose number is lost"


def _length_of(length: str) -> str:
    return "for an unknown time" if length == "length unknown" else f"for {length}"


# The words of a monitor: events and run states, without what they carry.
def _said(report: Report) -> str:
    words = dict.fromkeys(line.text.partition(" {")[0].removeprefix("status ") for line in report.lines)
    return ", ".join(words) or "so"


def _why(report: Report) -> str:
    why = panic_reason(report)
    told = f": {why}" if why else ""
    return told + (f"; {_task(report)} was on {_cpus(report.cpus)}" if report.cpus and report.task is not None else "")


def _rcu(report: Report, length: str) -> str:
    who = _cpus(report.cpus) if report.cpus else "something that no row names"
    return f"RCU's grace period waited {_length_of(length)} on {who}"


_SENTENCES: Final[dict[Kind, Callable[[Report, str], str]]] = {
    Kind.SOFT_LOCKUP: lambda r, length: f"{_where(r)} did not schedule {_length_of(length)}; {_task(r)} was on it",
    Kind.HARD_LOCKUP: lambda r, _: f"{_where(r)} took no timer interrupt for at least the watchdog's threshold",
    Kind.SCX_LOCKUP: lambda r, _: f"{_where(r)} was locked up, and the kernel gave up its sched_ext scheduler",
    Kind.SCX_STALL: lambda r, length: f"{_task(r)} was runnable and not run {_length_of(length)} under sched_ext",
    Kind.RCU_STALL: _rcu,
    Kind.RCU_EXP_STALL: _rcu,
    Kind.RCU_TASKS_STALL: lambda _, length: f"RCU waited {_length_of(length)} for tasks that did not yield",
    Kind.HUNG_TASK: lambda r, length: f"{_task(r)} slept {_length_of(length)} and could not be woken",
    Kind.WORKQUEUE_LOCKUP: lambda r, length: (
        f"A pool of kernel workers{f' of {_cpus(r.cpus)}' if r.cpus else ''} did no work {_length_of(length)}"
    ),
    Kind.CSD_STALL: lambda r, length: (
        f"{_where(r)} did not answer a call of {'another CPU' if r.by is None else f'CPU {r.by}'} {_length_of(length)}"
    ),
    Kind.CLOCKSOURCE_UNSTABLE: lambda *_: "The kernel gave up a clock that disagreed with another",
    Kind.PANIC: lambda r, _: f"The kernel panicked{_why(r)}",
    Kind.VM_STOPPED: lambda r, length: f"The VM was stopped {_length_of(length)}: its monitor said {_said(r)}",
    Kind.WATCHDOG: lambda *_: "The VM's watchdog fired: its guest had not fed it in time",
}
_OF_VMS: Final[dict[Kind, Callable[[Report, str], str]]] = {
    Kind.PANIC: lambda *_: "The guest's kernel panicked, as the VM's monitor told; what it printed did not come",
}


def _facts(incident: Incident, verdict: Verdict) -> Iterator[tuple[str, str]]:
    yield "owner", f"{verdict.owner}, confidence {verdict.confidence}, row {verdict.row}"
    yield from _measured(incident)
    yield from _read(incident.root)
    if incident.victims:
        hidden = len(incident.victims) - _VICTIMS_SHOWN
        more = f" and {hidden} more" if hidden > 0 else ""
        yield "also named", ", ".join(incident.victims[:_VICTIMS_SHOWN]) + more
    yield "reports", ", ".join(_counted(incident))
    if incident.ended_by:
        yield "end", _ENDS[incident.ended_by]
    if incident.corrupted:
        yield "damage", "lines are cut or missing: what is said here may lack a part"
    if incident.skipped:
        yield (
            "left out",
            f"{incident.skipped:,} records while it was open: its machine printed more than is read of one",
        )
    for found in verdict.evidence:
        yield ("against" if found.against else "evidence"), f"{found.id}: {found.text}"
    yield from _lacking(verdict)
    for other in verdict.rejected:
        yield "not", f"{other.owner}: {other.reason}"


# By what it would tell; how to get each is long, and in the JSON.
def _lacking(verdict: Verdict) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys(each.id for each in verdict.missing):
        texts = [each.text for each in verdict.missing if each.id == name]
        yield "missing", f"{name}: {'; '.join(texts)}"
    remedies = dict.fromkeys(each.remedy for each in verdict.missing if each.remedy)
    if remedies:
        more = f"; {len(remedies) - 1} more with --json" if len(remedies) > 1 else ""
        yield "next time", f"{next(iter(remedies))}{more}"


def _measured(incident: Incident) -> Iterator[tuple[str, str]]:
    if incident.since_ns is not None:
        until = "" if incident.until_ns is None else f" to {incident.until_ns / 1e9:.3f}"
        when = f"{incident.since_ns / 1e9:.3f}{until} s on the kernel's clock"
        yield (
            "when",
            when if incident.since_ns < WALL_NS else f"from {_date(incident.since_ns)} on, by the log's own dates",
        )
    if len(incident.lengths) > 1:
        each = (f"{name} {length_text(value)}" for name, value in sorted(incident.lengths.items()))
        yield "lengths", f"{', '.join(each)}; used: {incident.duration_from}"


def _read(root: Report) -> Iterator[tuple[str, str]]:
    if root.shape is not None:
        yield "shape", f"{root.shape}: {SHAPES[root.shape]}"
    if root.frames:
        shown = _told_frames(root.frames)
        more = " ..." if len(shown) > _FRAMES_SHOWN else ""
        yield "stack", " < ".join(shown[:_FRAMES_SHOWN]) + more
    for label, value in (("module", root.module), ("lock holder", root.holder), ("hardware", root.hardware)):
        if value:
            yield label, value
    if root.release:
        yield "kernel", root.release + (f", tainted {root.taint}" if root.taint else "")


# From one frame above that by which it is known: that every waiting task waits is no news.
def _told_frames(frames: tuple[str, ...]) -> tuple[str, ...]:
    names = [own_name(frame) for frame in frames]
    known = anchor_of(frames)
    return frames[max(0, names.index(known) - 1) :] if known in names else frames


# How many lines of each kind, with their numbers where they are few.
def _counted(incident: Incident) -> Iterator[str]:
    for kind in dict.fromkeys(each.kind for each in incident.start_lines):
        places = [each.place for each in incident.start_lines if each.kind is kind]
        shown = ", ".join(map(str, places[:4])) + (", ..." if len(places) > 4 else "")
        yield f"{len(places)} x {NAMES[kind]} (line {shown})"
    if incident.dropped_start_lines:
        yield f"{incident.dropped_start_lines} more"


def _lines(incident: Incident) -> str:
    if incident.first_place == incident.last_place:
        return f"line {incident.first_place}"
    return f"lines {incident.first_place} to {incident.last_place}"


def _cpus(cpus: tuple[int, ...]) -> str:
    if len(cpus) == 1:
        return f"CPU {cpus[0]}"
    shown = ", ".join(map(str, cpus[:_CPUS_SHOWN]))
    return f"CPUs {shown}" + (f" and {len(cpus) - _CPUS_SHOWN} more" if len(cpus) > _CPUS_SHOWN else "")


def _date(ns: int) -> str:
    return f"{dt.datetime.fromtimestamp(ns // 1_000_000_000, dt.UTC):%b %d %H:%M:%S}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
