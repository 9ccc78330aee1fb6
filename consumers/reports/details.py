"""What single rows of the grammar add to an open report: rows of CPUs, stacks, holders, what a CPU was busy with."""

from collections.abc import Callable, Iterable
from typing import Final

from consumers.reports.frames import FRAMES_MAX, Frame, below_machinery
from consumers.reports.opened import (
    CPUS_MAX,
    NAME_SIZE_MAX,
    NUMBER_CHARS_MAX,
    ROWS_MAX,
    Opened,
    clipped,
    cpu_list,
    name_of,
    number,
)
from consumers.reports.report import Kind, Report
from consumers.reports.shape import CpuRow

_FROZEN: Final = "frozen"
# Lines after which a stack of somebody stands.
_SECTIONS: Final = frozenset(
    (
        "cpu", "nmi_cpu", "dump_cpu", "hard_lockup_powerpc_target", "task", "task_old",
        "rcu_kthread_stack", "rcu_kthread_where", "locks", "breaking_event", "end_trace",
    )
)  # fmt: skip
# Of them, of others than the accused: of the grace-period thread, of where it ran, of every holder of a lock, of s390's
# newest jump, and what x86 says once more.
_OTHERS: Final = ("rcu_kthread_stack", "rcu_kthread_where", "locks", "breaking_event", "end_trace")


def add_details(opened: Opened, name: str, groups: dict[str, str]) -> None:
    """Add what a line of row `name` says beside the fields that every row may have."""
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
        opened.report.task, opened.report.pid = name_of(groups["comm"]), number(groups["pid"])


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
    if not text or len(text) > NUMBER_CHARS_MAX + 2:
        return None
    try:
        return int(text)
    except ValueError:
        return int(text, 16) & ((1 << 63) - 1)


def _kthread_state(opened: Opened, groups: dict[str, str]) -> None:
    state = groups.get("state", "")
    if state.startswith("0x") and len(state) <= NUMBER_CHARS_MAX:
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
        report.task, report.pid = name_of(groups["comm"]), pid
    if report.kind is Kind.RCU_TASKS_STALL and report.pid is None and "comm" in groups:
        report.task, report.pid = name_of(groups["comm"].rstrip()), pid  # the first is who does not yield
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
    if opened.section in (_FROZEN, *_OTHERS) or len(opened.stack) >= FRAMES_MAX:
        return
    if groups.get("guess"):
        # Where the kernel could not unwind what the registers name, all is a guess: then the next frame of a module
        # says whose it is, until a frame follows that is none.
        if len(opened.stack) == 1 and not opened.report.module:
            opened.report.module = groups.get("module", "")[:64]
        return
    if groups.get("segment", "").endswith("33") or groups["func"].startswith("0x"):
        if not opened.stack:
            opened.report.numbers["in_user_space"] = 1
        return
    opened.stack.append(Frame(groups["func"].partition("+")[0][:NAME_SIZE_MAX], groups.get("module", "")[:64]))
    below = below_machinery(opened.stack)
    opened.report.frames = tuple(_once(frame.function for frame in below))
    opened.report.module = next((frame.module for frame in below if frame.module), "")


# Where s390 was: the program status word.
def _psw(opened: Opened, groups: dict[str, str]) -> None:
    if groups["side"] == "User" and not opened.stack:
        opened.report.numbers["in_user_space"] = 1
    elif "func" in groups:
        _frame(opened, groups)


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
    "psw": _psw,
    "nmi_sent": _nmi_sent,
    "rcu_blocked_tasks": lambda opened, groups: _accused(opened.report, groups.get("tasks", "")),
    "rcu_kthread_starved": _kthread_state,
    "rcu_kthread_timer": _kthread_state,
    "holder": _holder,
    "utilization_row": _utilization,
    "scx_task": _scx_task,
}
