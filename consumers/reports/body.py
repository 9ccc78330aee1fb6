"""What each line adds to an open report: its fields, its length, its shape, and whether something is missing.

Numbers beside those that the grammar names: `ticks` or `gps_behind` of the first CPU row, `nest`, `fqs`, `cpus_listed`,
`kthread_state` (bits of the task's state: 0 is runnable), `busy_pct_max` and `hardirq_pct_max` over the samples of a
CPU's utilization, `in_user_space` (1: the accused CPU's registers are a program's), `lost` (lines that printk dropped
within the report).
"""

from typing import Final

from consumers.reports import jiffies
from consumers.reports.details import add_details
from consumers.reports.grammar import Match
from consumers.reports.grammar_row import Role
from consumers.reports.opened import (
    LINE_SIZE_MAX,
    LINES_SIZE_MAX,
    NAME_SIZE_MAX,
    NOTE_SIZE_MAX,
    Opened,
    clipped,
    cpu_list,
    name_of,
    number,
    size_of,
)
from consumers.reports.report import Kind, Line, Report, Seconds
from consumers.reports.shape import classify

RCU: Final = (Kind.RCU_STALL, Kind.RCU_EXP_STALL)
_LINE_OVERHEAD: Final = 48  # of place, time and caller
# Groups that are fields of the report, or no number of it.
_FIELDS: Final = frozenset(
    (
        "cpu", "cpus", "by", "comm", "pid", "dur_s", "dur_ns", "dur_ms", "flavor", "ticks", "unit", "nest", "fqs",
        "dyn", "nmi", "row", "every", "idle", "waiter_pid", "owner_pid", "release", "state", "segment", "who", "level",
        "node_first", "node_last", "why", "side",
    )
)  # fmt: skip
_NOTED: Final = frozenset(
    (
        "rcu_kthread_starved", "rcu_kthread_timer", "rcu_all_seen", "rcu_blocked_tasks", "rcu_timer", "rcu_oom",
        "rcu_stall_csd", "rcu_offline", "coredump", "workqueue", "hardirq", "hardirq_row", "scx_task", "holder",
        "panic", "oops", "hardware_error",
    )
)  # fmt: skip


def begin(found: Match, line: Line) -> Opened:
    """Return the report that `line` opens: its start line, or what survived of one."""
    kind = found.row.kind
    assert kind is not None
    report = Report(kind, line.place, line.ts_ns, line.structured)
    report.corrupted = found.damaged or found.row.role is Role.TAIL
    opened = Opened(report, found.row.name, [line.caller] if line.caller else [])
    groups = found.groups
    report.task = name_of(groups.get("comm"))
    report.pid = number(groups.get("pid"))
    report.cpus = tuple(dict.fromkeys(cpu_list(groups.get("cpu", "")) + cpu_list(groups.get("cpus", ""))))
    return opened


def apply(opened: Opened, found: Match | None, line: Line, hz: int | None) -> None:
    """Add `line`, which is the report's, to it."""
    keep(opened, line)
    if found is None:
        return
    report, groups, name = opened.report, found.groups, found.row.name
    opened.passed, opened.heard_ns = 0, line.ts_ns if line.ts_ns is not None else opened.heard_ns
    report.last_place, report.last_ts_ns = max(report.last_place, line.place), opened.heard_ns
    opened.described = opened.described or found.row.role is not Role.START
    _fields(report, groups)
    _lengths(report, groups)
    add_details(opened, name, groups)
    if name in _NOTED:
        opened.note(line.text.strip())
    if found.row.role is Role.END:
        report.ended = True
    if report.kind in RCU:
        measure(opened, hz)


def keep(opened: Opened, line: Line) -> None:
    """Keep the raw line within the report's limits."""
    opened.attached += 1
    text = clipped(line.text, LINE_SIZE_MAX)
    size = _LINE_OVERHEAD + size_of(text)
    if opened.size + size <= LINES_SIZE_MAX:
        opened.report.lines.append(line if text == line.text else line._replace(text=text))
        opened.size += size
    else:
        opened.report.dropped_lines += 1


def measure(opened: Opened, hz: int | None) -> None:
    """Say how long the stall of an RCU report is, and its shape."""
    report = opened.report
    length = report.numbers.get("jiffies")
    if length is not None:
        report.duration = jiffies.seconds(length, hz)
    if report.kind is Kind.RCU_STALL:
        starved = any(key in report.numbers for key in ("kthread_starved", "kthread_timer"))
        numbers = report.numbers
        report.shape = classify(
            opened.rows, length, numbers.get("ncpus"), listed=numbers.get("cpus_listed", 0), starved=starved
        )


def finish(opened: Opened) -> None:
    """Say what is missing of a report that is now closed."""
    report = opened.report
    if report.kind is Kind.RCU_STALL and opened.row != "rcu_stall_csd" and not report.ended:
        # Every report of a stall ends with how long it is.
        report.corrupted = report.corrupted or "jiffies" not in report.numbers
    if opened.gapped and not opened.described:
        report.corrupted = True


def _fields(report: Report, groups: dict[str, str]) -> None:
    if report.by is None:
        report.by = number(groups.get("by"))
    report.flavor = report.flavor or groups.get("flavor", "")[:NAME_SIZE_MAX]
    report.taint = report.taint or "".join(each for each in groups.get("taint", "") if each.isupper())[:32]
    # The name of the kernel that runs; of a boot's banner it is only the default.
    report.release = clipped(groups.get("release", ""), NAME_SIZE_MAX) or report.release
    report.hardware = report.hardware or clipped(groups.get("hardware", "").strip(), NOTE_SIZE_MAX)
    for key, text in groups.items():
        value = None if key in _FIELDS or key in report.numbers else number(text)
        if value is not None:
            report.numbers[key] = value


def _lengths(report: Report, groups: dict[str, str]) -> None:
    if report.duration is not None or report.kind in RCU:
        return
    whole, fraction = number(groups.get("dur_s")), number(groups.get("dur_ms")) or 0
    nanos = number(groups.get("dur_ns"))
    if whole is not None:
        report.duration = Seconds(whole + fraction / 1e3, whole + fraction / 1e3)
    elif nanos is not None and nanos >= 0:
        report.duration = Seconds(nanos / 1e9, nanos / 1e9)
