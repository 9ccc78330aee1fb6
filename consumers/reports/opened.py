"""A report while its lines still come: what each row of the grammar adds to it.

Numbers beside those that the grammar names: `ticks` or `gps_behind` of the first CPU row, `nest`, `fqs`, `cpus_listed`,
`kthread_state` (bits of the task's state: 0 is runnable), `busy_pct_max` and `hardirq_pct_max` over the samples of a
CPU's utilization, `in_user_space` (1: the accused CPU's registers are a program's), `lost` (lines that printk dropped
within the report).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from consumers.reports import jiffies
from consumers.reports.frames import FRAMES_MAX, Frame, below_machinery
from consumers.reports.grammar import Match
from consumers.reports.grammar_row import Role
from consumers.reports.report import Kind, Line, Report, Seconds
from consumers.reports.shape import CpuRow, classify

#: Size of the lines kept of one report, as JSON; more are counted. And of a line, a note, a name.
LINES_SIZE_MAX: Final = 6 << 10
LINE_SIZE_MAX: Final = 512
NOTE_SIZE_MAX: Final = 160
NAME_SIZE_MAX: Final = 64
#: CPUs that one report accuses, rows of CPUs and notes that are kept of it.
CPUS_MAX: Final = 256
ROWS_MAX: Final = 64
NOTES_MAX: Final = 12
_LINE_OVERHEAD: Final = 48  # of place, time and caller
_ESCAPED: Final = 6  # what a character can take, `\u0000`
_NUMBER_CHARS_MAX: Final = 18
RCU: Final = (Kind.RCU_STALL, Kind.RCU_EXP_STALL)
# Groups that are fields of the report, or no number of it.
_FIELDS: Final = frozenset(
    (
        "cpu", "cpus", "by", "comm", "pid", "dur_s", "dur_ns", "dur_ms", "flavor", "ticks", "unit", "nest", "fqs",
        "dyn", "nmi", "row", "every", "idle", "waiter_pid", "owner_pid", "release", "state", "segment", "who", "level",
        "node_first", "node_last",
    )
)  # fmt: skip
_NOTED: Final = frozenset(
    (
        "rcu_kthread_starved", "rcu_kthread_timer", "rcu_all_seen", "rcu_blocked_tasks", "rcu_timer", "rcu_oom",
        "rcu_stall_csd", "rcu_offline", "coredump", "workqueue", "hardirq", "hardirq_row", "scx_task", "holder",
    )
)  # fmt: skip
_FROZEN: Final = "frozen"
# Lines after which a stack of somebody stands.
_SECTIONS: Final = frozenset(
    (
        "cpu", "nmi_cpu", "dump_cpu", "hard_lockup_powerpc_target", "task", "task_old",
        "rcu_kthread_stack", "rcu_kthread_where", "locks",
    )
)  # fmt: skip
# Of them, of others than the accused: of the grace-period thread, of where it ran, of every holder of a lock.
_OTHERS: Final = ("rcu_kthread_stack", "rcu_kthread_where", "locks")


@dataclass(slots=True)
class Opened:
    """A report and what is needed to go on with it; `heard_ns`: when its newest line came that the grammar knows."""

    report: Report
    row: str
    callers: list[str] = field(default_factory=list)
    heard_ns: int | None = None
    passed: int = 0  # lines of the log since the newest that the grammar knows
    attached: int = 0
    size: int = 0
    rows: list[CpuRow] = field(default_factory=list)
    stack: list[Frame] = field(default_factory=list)
    section: str = ""
    awaited: list[int] = field(default_factory=list)  # CPUs that were asked for a backtrace and gave none yet
    gapped: bool = False
    described: bool = False  # a line of the body has come

    def note(self, text: str) -> None:
        """Add `text` to the report's notes, once."""
        text = clipped(text, NOTE_SIZE_MAX)
        if text not in self.report.notes and len(self.report.notes) < NOTES_MAX:
            self.report.notes = (*self.report.notes, text)


def begin(found: Match, line: Line) -> Opened:
    """Return the report that `line` opens: its start line, or what survived of one."""
    kind = found.row.kind
    assert kind is not None
    report = Report(kind, line.place, line.ts_ns, line.structured)
    report.corrupted = found.damaged or found.row.role is not Role.START
    opened = Opened(report, found.row.name, [line.caller] if line.caller else [])
    groups = found.groups
    if found.row.role is Role.START:
        report.task = _name(groups.get("comm"))
        report.pid = number(groups.get("pid"))
        report.by = number(groups.get("by"))
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
    _special(opened, name, groups)
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
    size = _LINE_OVERHEAD + len(text) * (1 if _plain(text) else _ESCAPED)
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


def clipped(text: str, size_max: int) -> str:
    """Return as much of `text` as takes `size_max` bytes as JSON."""
    return text[:size_max] if _plain(text[:size_max]) else text[: size_max // _ESCAPED]


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def cpu_list(text: str) -> tuple[int, ...]:
    """Return the CPUs of a kernel's list, `0-3,7`, at most `CPUS_MAX`."""
    found: list[int] = []
    for part in text[: CPUS_MAX * 8].split(","):
        low, _, high = part.partition("-")
        first = number(low)
        last = number(high) if high else first
        if first is not None and last is not None:
            found += range(first, min(last, first + CPUS_MAX) + 1)
    return tuple(found[:CPUS_MAX])


def _name(text: str | None) -> str | None:
    return None if text is None else clipped(text, 2 * NAME_SIZE_MAX)


def number(text: str | None) -> int | None:
    """Return the decimal number, None for none or one that no kernel prints."""
    if not text or len(text) > _NUMBER_CHARS_MAX:
        return None
    try:
        return int(text)
    except ValueError:
        return None


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


def _special(opened: Opened, name: str, groups: dict[str, str]) -> None:
    handler = _HANDLERS.get(name)
    if handler is not None:
        handler(opened, groups)
    elif name in _SECTIONS:
        _section(opened, name, groups)
    elif "who" in groups:
        _accused(opened.report, groups["who"])


def _nmi_sent(opened: Opened, groups: dict[str, str]) -> None:
    opened.awaited = list(cpu_list(groups.get("cpus", "")))


def _holder(opened: Opened, groups: dict[str, str]) -> None:
    if "owner" in groups:
        opened.report.holder = clipped(f"{groups['owner']}:{groups['owner_pid']}", 2 * NAME_SIZE_MAX)


def _scx_task(opened: Opened, groups: dict[str, str]) -> None:
    if opened.report.pid is None:
        opened.report.task, opened.report.pid = _name(groups["comm"]), number(groups["pid"])


# `7-...D P392`, or ` 0 3` of kernels before 4.2.
def _accused(report: Report, who: str) -> None:
    cpus, pids = [], []
    for word in who.split()[:CPUS_MAX]:
        pid = number(word[1:].partition("/")[0]) if word.startswith("P") else None
        cpu = number(word.partition("-")[0])
        pids += [] if pid is None else [pid]
        cpus += [] if cpu is None else [cpu]
    report.cpus = _joined(report.cpus, cpus)
    if report.pid is None and pids:
        report.pid = pids[0]


def _cpu_row(opened: Opened, groups: dict[str, str]) -> None:
    report = opened.report
    cpu = number(groups["cpu"])
    if cpu is None:
        return
    ticks = number(groups.get("ticks"))
    behind = groups.get("unit") == "GPs behind"
    row = CpuRow(
        cpu,
        None if behind else ticks,
        _nesting(groups.get("nest")),
        number(groups.get("fqs")),
        groups.get("flags", "")[:5],
    )
    if not opened.rows:
        named = {"gps_behind" if behind else "ticks": ticks, "nest": row.nest, "fqs": row.fqs}
        report.numbers |= {key: value for key, value in named.items() if value is not None}
    if len(opened.rows) < ROWS_MAX:
        opened.rows.append(row)
    report.numbers["cpus_listed"] = report.numbers.get("cpus_listed", 0) + 1
    report.cpus = _joined(report.cpus, [cpu])
    if groups.get("doubt"):
        opened.note("(false positive?)")


# Hexadecimal up to 4.12, `140000000000001`; later decimal and small.
def _nesting(text: str | None) -> int | None:
    if not text or len(text) > _NUMBER_CHARS_MAX + 2:
        return None
    try:
        return int(text)
    except ValueError:
        return int(text, 16) & ((1 << 63) - 1)


def _kthread_state(opened: Opened, groups: dict[str, str]) -> None:
    state = groups.get("state", "")
    if state.startswith("0x") and len(state) <= _NUMBER_CHARS_MAX:
        try:
            opened.report.numbers.setdefault("kthread_state", int(state, 16))
        except ValueError:
            return


def _utilization(opened: Opened, groups: dict[str, str]) -> None:
    report = opened.report
    busy = sum(number(groups[key]) or 0 for key in ("system", "softirq", "hardirq"))
    hardirq = number(groups["hardirq"]) or 0
    for key in ("system", "softirq", "hardirq"):
        report.numbers.pop(key, None)  # of one sample: the largest of all is what counts
    report.numbers["busy_pct_max"] = max(busy, report.numbers.get("busy_pct_max", 0))
    report.numbers["hardirq_pct_max"] = max(hardirq, report.numbers.get("hardirq_pct_max", 0))


# A report may dump many stacks; the one of an accused CPU or task is the report's.
def _section(opened: Opened, name: str, groups: dict[str, str]) -> None:
    report = opened.report
    cpu, pid = number(groups.get("cpu")), number(groups.get("pid"))
    if cpu is not None and cpu in opened.awaited:
        opened.awaited.remove(cpu)
    if report.kind is Kind.PANIC and not report.cpus and cpu is not None:
        report.cpus = (cpu,)
    if name == "cpu" and cpu in report.cpus and report.task is None:
        report.task, report.pid = _name(groups["comm"]), pid
    by_task = report.kind in (Kind.HUNG_TASK, Kind.SCX_STALL, Kind.RCU_TASKS_STALL)
    key = f"pid{pid}" if by_task and pid is not None else f"cpu{cpu}" if cpu is not None else name
    if opened.section in (_FROZEN, key) or (name in ("task", "task_old") and not by_task and opened.section):
        return
    accused = (pid is not None and pid == report.pid) if by_task else cpu in report.cpus
    was_accused = opened.section.endswith("!")
    if was_accused and opened.section[:-1] == key:
        return
    if was_accused and opened.stack:
        opened.section = _FROZEN
    elif accused or not opened.stack or name in _OTHERS:
        opened.stack = opened.stack if name in _OTHERS else []
        opened.section = key + "!" if accused else key
    elif opened.section == "":
        opened.section = _FROZEN  # what followed the start line at once was the accused's own


def _frame(opened: Opened, groups: dict[str, str]) -> None:
    if opened.section in (_FROZEN, *_OTHERS) or groups.get("guess") or len(opened.stack) >= FRAMES_MAX:
        return
    if groups.get("segment", "").endswith("33") or groups["func"].startswith("0x"):
        if not opened.stack:
            opened.report.numbers["in_user_space"] = 1
        return
    opened.stack.append(Frame(groups["func"].partition("+")[0][:NAME_SIZE_MAX], groups.get("module", "")[:64]))
    below = below_machinery(opened.stack)
    opened.report.frames = tuple(_once(frame.function for frame in below))
    opened.report.module = next((frame.module for frame in below if frame.module), "")


# Registers and trace may both name the innermost function.
def _once(functions: Iterable[str]) -> Iterable[str]:
    before = ""
    for function in functions:
        if function != before:
            yield function
        before = function


def _joined(cpus: tuple[int, ...], more: list[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys((*cpus, *more)))[:CPUS_MAX]


_HANDLERS: Final[dict[str, Callable[[Opened, dict[str, str]], None]]] = {
    "rcu_cpu": _cpu_row,
    "frame": _frame,
    "frame_arm": _frame,
    "at": _frame,
    "nmi_sent": _nmi_sent,
    "rcu_blocked_tasks": lambda opened, groups: _accused(opened.report, groups.get("tasks", "")),
    "rcu_kthread_starved": _kthread_state,
    "rcu_kthread_timer": _kthread_state,
    "holder": _holder,
    "utilization_row": _utilization,
    "scx_task": _scx_task,
}
