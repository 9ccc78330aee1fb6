"""What the guest says beside the report: marks of tests, real-time tasks, thresholds, steal, counters, signs of life.

Tables: kmsg, procfs_hangs, procfs_cpu, coverage. Sources: drivers/misc/lkdtm/core.c, kernel/rcu/rcutorture.c,
kernel/sched/rt.c, kernel/watchdog.c.
"""

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from consumers.clocks.graph import BOOT
from consumers.coverage import Span
from consumers.timeline.scope import told
from consumers.verdict.facts import Fact, Facts, known
from consumers.verdict.hardware import serious
from consumers.verdict.look import Look, S, record
from consumers.verdict.shares import LETTERS, Shares
from consumers.verdict.text import Symptom, on_host, symptom
from consumers.verdict.verdict import Evidence
from schemas.stream import Stream

#: A mark stands so long before what was injected, at most.
_MARK_NS: Final = 60 * S
_READINGS_NS: Final = 60 * S
_MARKS: Final = re.compile(r"^(?:lkdtm: Performing direct entry \w+|rcu-torture: .*stall start)")
_THROTTLED: Final = "sched: RT throttling activated"
_HYPERVISOR: Final = re.compile(r"^(?:Hypervisor detected|Booting paravirtualized kernel on (?!bare hardware))")
# Of a firmware most is told at the boot, and of no time; what it did to the TSC is of the clock (tsc_sync.c).
_FIRMWARE: Final = re.compile(r"\[Firmware Bug\]: |TSC ADJUST")
_LINES_MAX: Final = 20_000
_HEAD_LINES: Final = 400
_NAMED_CHARS_MAX: Final = 160
#: The thresholds that kernels come with (kernel/watchdog.c, CONFIG_RCU_CPU_STALL_TIMEOUT).
_DEFAULTS: Final = (("watchdog_thresh_s", 10), ("rcu_stall_timeout_s", 21), ("hung_task_timeout_s", 120))
_COUNTERS: Final = ("softlockups", "hardlockups", "rcu_stalls", "hung_tasks")


def add(look: Look, facts: Facts) -> Facts:
    """Return `facts` with what the guest's own streams say."""
    rows = _log(look)
    stream = _stream(look, "kmsg")
    marks = [row for row in rows if _MARKS.match(row["message"])]
    throttled = [
        row for row in rows if row["message"].startswith(_THROTTLED) and row["ts_ns"] >= look.window.since_ns - S
    ]
    facts = replace(facts, marker=_marker(look, stream, marks, rows), bare=_bare(look, rows))
    if stream is not None and throttled:
        text, records = f"the guest's log says: {_THROTTLED}", record("kmsg", stream, (row["seq"] for row in throttled))
        found = (*facts.found, Evidence("G1", text, records))
        facts = replace(facts, rt_line=known(True, text, records), found=found)
    facts = _with_hardware(look, facts, stream, rows)
    hangs = _hangs(look)
    found = (*facts.found, *_counted(hangs), *_silences(look))
    return _with_steal(look, replace(facts, thresholds=_thresholds(hangs), found=found))


def _stream(look: Look, surface: str) -> Stream | None:
    source = look.incident.source
    mine = [each for each in look.streams if each[:2] == source[:2] and each.surface == surface]
    return next(iter(sorted(mine, key=lambda each: (each.layer != source.layer, each))), None)


def _log(look: Look) -> list[dict[str, Any]]:
    return look.rows(
        "kmsg",
        "select seq, ts_ns, message from kmsg where machine = ? and boot_id = ? and facility = 0 "
        "and ts_ns between ? and ? order by seq limit ?",
        *look.incident.source[:2], look.window.since_ns - _MARK_NS, look.window.until_ns + S, _LINES_MAX,
    )  # fmt: skip


def _marker(look: Look, stream: Stream | None, marks: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Fact[bool]:
    if stream is None:
        return Fact()
    if marks:
        text = f"the guest's log says: {marks[-1]['message'][:_NAMED_CHARS_MAX]}"
        return known(True, text, record("kmsg", stream, (row["seq"] for row in marks)))
    last = max(look.incident.root.place, rows[-1]["seq"] if rows else 0)
    lost = look.lost(stream, rows[0]["seq"] if rows else 0, last)
    return known(False, "nothing in the guest's log marks a test", complete=not lost)


# Within the time: an error of a minute before stopped no CPU now. A clock is what its firmware once made of it.
def _with_hardware(look: Look, facts: Facts, stream: Stream | None, rows: list[dict[str, Any]]) -> Facts:
    if stream is None:
        return facts
    firmware = [row for row in rows if _FIRMWARE.search(row["message"])]
    broken = [row for row in rows if row["ts_ns"] >= look.window.since_ns - S and serious(row["message"])]
    if symptom(look.incident) is Symptom.CLOCK:
        broken, firmware = sorted([*broken, *firmware], key=lambda row: row["seq"]), []
    if broken:
        text = f"the machine's log says: {broken[0]['message'][:_NAMED_CHARS_MAX]}"
        facts = replace(facts, hardware=known(True, text, record("kmsg", stream, (row["seq"] for row in broken))))
    if firmware:
        text = f"the machine's log says: {firmware[0]['message'][:_NAMED_CHARS_MAX]}"
        beside = Evidence("H5", text, record("kmsg", stream, (row["seq"] for row in firmware)))
        facts = replace(facts, found=(*facts.found, beside))
    return facts


# That a machine is no VM follows from nothing but its own log's beginning and what its producer says.
def _bare(look: Look, rows: list[dict[str, Any]]) -> Fact[bool]:
    if look.scope is not None:
        return known(False, f"a host names it as {look.scope.title}")
    if not on_host(look.incident):
        return Fact()
    head = look.rows(
        "kmsg",
        "select seq, message from kmsg where machine = ? and boot_id = ? and facility = 0 and seq < ? order by seq",
        *look.incident.source[:2], _HEAD_LINES,
    )  # fmt: skip
    if any(_HYPERVISOR.match(row["message"]) for row in (*head, *rows)):
        return known(False, "its kernel found a hypervisor")
    if not head or head[0]["seq"] > 0 or len(head) < min(_HEAD_LINES, look.incident.root.place) // 2:
        return Fact(
            why="the beginning of its kernel's log is not there", remedy="collect the kernel log from the boot on"
        )
    return known(True, "its producer calls it a host, and its kernel found no hypervisor")


def _hangs(look: Look) -> list[dict[str, Any]]:
    window = look.guest(BOOT)
    if window is None:
        return []
    return look.rows(
        "procfs_hangs",
        "select * from procfs_hangs where machine = ? and boot_id = ? and ts_ns between ? and ? order by ts_ns",
        *look.incident.source[:2], window.since_ns - _READINGS_NS, window.until_ns + _READINGS_NS,
    )  # fmt: skip


def _thresholds(hangs: list[dict[str, Any]]) -> Fact[bool]:
    if not hangs:
        return Fact()
    low = [f"{name} {hangs[-1][name]}" for name, usual in _DEFAULTS if hangs[-1][name] and hangs[-1][name] < usual]
    stream = Stream(*(hangs[-1][name] for name in Stream._fields))
    text = (
        f"thresholds of the guest are lower than usual: {', '.join(low)}"
        if low
        else "thresholds are not lower than usual"
    )
    return known(bool(low), text, record("procfs_hangs", stream, [hangs[-1]["position"]]))


# What the kernel counts it also logs, but for hung tasks when no more are logged: what is missing was lost on the way.
def _counted(hangs: list[dict[str, Any]]) -> list[Evidence]:
    if len(hangs) < 2:
        return []
    grown = [
        f"{name} by {hangs[-1][name] - hangs[0][name]}"
        for name in _COUNTERS
        if hangs[0][name] is not None and hangs[-1][name] is not None and hangs[-1][name] > hangs[0][name]
    ]
    stream = Stream(*(hangs[0][name] for name in Stream._fields))
    records = record("procfs_hangs", stream, (row["position"] for row in hangs))
    return [Evidence("G3", f"the guest's kernel counted more: {', '.join(grown)}", records)] if grown else []


# Heartbeats are of the whole agent: how long the guest gave none says when it lived.
def _silences(look: Look) -> list[Evidence]:
    window, stream = look.guest(BOOT), _stream(look, "kmsg")
    if window is None or stream is None or (look.scope is not None and not told(stream, look.scope)):
        return []
    beats = look.rows(
        "coverage",
        "select distinct boottime_ns from coverage where machine = ? and boot_id = ? and boottime_ns between ? and ? "
        "order by all",
        *stream[:2], window.since_ns - _READINGS_NS, window.until_ns + _READINGS_NS,
    )  # fmt: skip
    times = [row["boottime_ns"] for row in beats]
    near = [Span(*pair) for pair in pairwise(times) if pair[0] < window.until_ns and pair[1] > window.since_ns]
    if not near:
        return []
    longest = max(near, key=lambda span: span.until_ns - span.since_ns)
    text = f"the guest's agent gave no sign of life for at most {(longest.until_ns - longest.since_ns) / S:.1f} s"
    return [Evidence("G4", text)]


# Steal is time that a vCPU was ready and waited; none of it says nothing. It counts where the host tells less.
def _with_steal(look: Look, facts: Facts) -> Facts:
    window = look.guest(BOOT)
    if window is None:
        return facts
    rows = look.rows(
        "procfs_cpu",
        "select * from procfs_cpu where machine = ? and boot_id = ? and cpu is not null and ts_ns between ? and ? "
        "order by cpu, ts_ns",
        *look.incident.source[:2], *window,
    )  # fmt: skip
    vcpus, found = dict(facts.vcpus), list(facts.found)
    for cpu in sorted({row["cpu"] for row in rows} & set(look.incident.cpus)):
        mine = [row for row in rows if row["cpu"] == cpu and row["steal_ns"] is not None]
        stolen_ns = mine[-1]["steal_ns"] - mine[0]["steal_ns"] if len(mine) > 1 else 0
        if stolen_ns <= 0:
            continue
        share = min(1.0, stolen_ns / (window.until_ns - window.since_ns))
        stream = Stream(*(mine[0][name] for name in Stream._fields))
        records = record("procfs_cpu", stream, (row["position"] for row in mine))
        text = f"the guest counted {stolen_ns / S:.1f} s of steal on CPU {cpu}"
        found.append(Evidence("G2", text, records))
        if not vcpus and facts.host.value:
            vcpus[cpu] = known(Shares({"W": share, LETTERS: 1 - share}), text, records)
    return replace(facts, vcpus=vcpus, found=tuple(found))
