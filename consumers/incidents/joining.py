"""Which reports tell of one failure: their keys, how long each kind waits before it repeats itself, and what joins.

Intervals after which a kernel reports again: kernel/watchdog.c, kernel/rcu/tree_stall.h, kernel/hung_task.c,
kernel/workqueue.c, kernel/smp.c. A length that is not printed, or not yet read, is the longest usual threshold.
"""

import re
from typing import Final

from consumers.reports.report import Kind, Report, panic_reason

S: Final = 1_000_000_000
TASK_KINDS: Final = frozenset((Kind.HUNG_TASK, Kind.SCX_STALL, Kind.RCU_TASKS_STALL))
_RCU_KINDS: Final = frozenset((Kind.RCU_STALL, Kind.RCU_EXP_STALL, Kind.RCU_TASKS_STALL))
#: Kinds whose start line itself names CPUs; the others learn them from lines that come later.
_CPU_AT_ONCE: Final = frozenset((Kind.SOFT_LOCKUP, Kind.HARD_LOCKUP, Kind.SCX_LOCKUP, Kind.CSD_STALL))
#: Kinds whose start line prints the length.
_LENGTH_AT_ONCE: Final = frozenset((Kind.SOFT_LOCKUP, Kind.HUNG_TASK, Kind.WORKQUEUE_LOCKUP, Kind.CSD_STALL))
_DEFAULT_S: Final = {
    Kind.SOFT_LOCKUP: 22,
    Kind.HARD_LOCKUP: 10,
    Kind.SCX_LOCKUP: 15,
    Kind.SCX_STALL: 30,
    Kind.RCU_STALL: 60,
    Kind.RCU_EXP_STALL: 60,
    Kind.RCU_TASKS_STALL: 600,
    Kind.HUNG_TASK: 120,
    Kind.WORKQUEUE_LOCKUP: 30,
    Kind.CSD_STALL: 5,
    Kind.CLOCKSOURCE_UNSTABLE: 1,
    Kind.PANIC: 0,
    Kind.VM_STOPPED: 0,
    Kind.WATCHDOG: 0,
}
#: Printed lengths are cut to whole seconds, and detectors look some times a second.
SLACK_NS: Final = 1_500_000_000
#: CPUs whose hard lockups come within two thresholds are one.
_HARD_NS: Final = 20 * S
#: Without times, reports so many lines apart are of one failure.
_PLACES: Final = 400
#: How kernels begin to say that they panic over what stood still, and that somebody asked them to.
STOOD_STILL: Final = ("softlockup: ", "Hard LOCKUP", "Watchdog detected hard", "RCU Stall", "hung_task: ", "workqueue")
ASKED: Final = ("sysrq triggered crash", "NMI")
#: A panic of another reason, or of one that is not known, comes of what was reported so shortly before.
_SOON_NS: Final = 10 * S
#: What comes behind a panic is of a kernel whose CPUs were stopped.
_PANICKED_NS: Final = 60 * S
#: printk's clock may stand back on one CPU after a pause.
_BACK_NS: Final = 90 * S

#: The shortest interval that `repeat_ns` gives.
REPEAT_NS_MIN: Final = 2 * S

_ANSWER: Final = re.compile(
    r"smp_call_function|csd_lock_wait|multi_cpu_stop|stop_(?:machine|two_cpus|one_cpu)|text_poke|on_each_cpu"
    r"|flush_tlb|smp_text_poke|synchronize_(?:rcu|sched)|rcu_barrier"
)
# What every sleeping task has in its stack: it tells nothing about what it waits for.
_GENERIC: Final = re.compile(
    r"(?:(?:__|io_)?schedule|__?wait_|wait_|(?:__)?mutex_|rwsem_|(?:__)?down_|(?:__)?rt_mutex|rt_spin|msleep|usleep|"
    r"bit_wait|out_of_line|prepare_to|do_syscall|entry_|kthread|ret_from|worker_thread|process_one_work|"
    r"process_scheduled|ksys_|vfs_|__x64_|__se_|__do_sys|__arm64|do_sys|x64_sys|el0|el1|invoke_syscall|do_el0|exc_|"
    r"asm_|syscall_|new_sync_|do_nanosleep|hrtimer_nanosleep|synchronize_|rtnl_lock|schedule_timeout|"
    r"context_switch|__switch_to|do_one_initcall|ret_fast|system_call)\w*"
)
_STORAGE: Final = re.compile(
    r"io_schedule|blk_|submit_bio|blkdev|bio_|jbd2|journal|xfs|xlog|ext[234]|btrfs|f2fs|writeback|wb_|"
    r"folio_wait|wait_on_page|sync_inodes|filemap_|md_|dm_|nvme|scsi|loop_"
)
#: How many frames of a stack are looked at for what a task waits for.
_FRAMES: Final = 3


def family(report: Report) -> str:
    """Return what the report's start line accuses, as the family key: known at once and never changing."""
    if report.kind in (Kind.HUNG_TASK, Kind.SCX_STALL):
        return f"task:{report.pid}"
    if report.kind in _CPU_AT_ONCE:
        return f"cpu:{report.cpus[0] if report.cpus else ''}"
    if report.kind in _RCU_KINDS:
        return f"rcu:{report.flavor}"
    return {Kind.WORKQUEUE_LOCKUP: "pool", Kind.CLOCKSOURCE_UNSTABLE: "clock"}.get(report.kind, "panic")


def length_ns(report: Report, *, whole: bool = True) -> int:
    """Return the longest that the report may have lasted; not `whole`: by its start line alone."""
    if report.duration is not None and (whole or report.kind in _LENGTH_AT_ONCE):
        return int(report.duration.high * S)
    return _DEFAULT_S[report.kind] * S


def since_ns(report: Report, *, whole: bool = True) -> int | None:
    """Return when its stall began, by its own words."""
    return None if report.ts_ns is None else report.ts_ns - length_ns(report, whole=whole)


def repeat_ns(report: Report) -> int:
    """Return after how long the kernel says it again while it goes on."""
    length = length_ns(report)
    if report.kind is Kind.SOFT_LOCKUP:
        return max(30 * S, length + 10 * S)
    if report.kind in (Kind.RCU_STALL, Kind.RCU_EXP_STALL):
        return 3 * min(length, 300 * S) + REPEAT_NS_MIN
    if report.kind in (Kind.HUNG_TASK, Kind.RCU_TASKS_STALL):
        return min(length, 600 * S) + 10 * S
    return max(60 * S, min(length, 300 * S))


def awaits_answer(text: str) -> bool:
    """Return whether a line of a stack, or a frame, is one that waits for an answer of other CPUs."""
    return "? " not in text and _ANSWER.search(text) is not None


def waits_for_others(report: Report) -> bool:
    """Return whether its stack waits for other CPUs: then it is most likely a victim."""
    stack = [line.text for line in report.lines if "+0x" in line.text]
    return any(awaits_answer(text) for text in (*report.frames, *stack))


def resources(report: Report) -> set[str]:
    """Return what a blocked task waits for, as far as its stack says: a place, a module, another task, storage."""
    below = [frame for frame in report.frames if not _GENERIC.fullmatch(frame)]
    found = {f"at {frame}" for frame in below[:_FRAMES]}
    if report.module:
        found.add(f"module {report.module}")
    if report.holder:
        found.add(f"task {report.holder.rpartition(':')[2]}")
    if any(_STORAGE.match(frame) for frame in report.frames):
        found.add("storage")
    return found


def related(one: Report, new: Report, *, whole: bool) -> bool:
    """Return whether `new`, which came later, tells of the same failure as `one`.

    Not `whole`: only its start line is known, and what is in doubt joins, so that a storm is one page and not fifty;
    with the whole report it is asked again.
    """
    if one.ts_ns is None or new.ts_ns is None:
        cut_off = one.ts_ns is not new.ts_ns and new.kind is not Kind.PANIC  # a line that lost its time
        return _near(one, new) and not _harmless(one, new) and (not cut_off or _same_stall(one, new, whole=whole))
    gap_ns = new.ts_ns - max(one.ts_ns, one.last_ts_ns or 0)
    if gap_ns < -_BACK_NS or _harmless(one, new):
        return False
    if Kind.PANIC in (one.kind, new.kind):
        return gap_ns <= (_PANICKED_NS if one.kind is Kind.PANIC else _panics_ns(one, new))
    if gap_ns <= length_ns(new, whole=whole) + SLACK_NS:
        both_tasks = one.kind in TASK_KINDS and new.kind in TASK_KINDS
        return not (whole and both_tasks and _apart(one, new))
    if one.kind is new.kind is Kind.HARD_LOCKUP and gap_ns <= _HARD_NS:
        return True
    return gap_ns <= repeat_ns(one) and _same_stall(one, new, whole=whole)


# How long after the report `one` a panic is still over it.
def _panics_ns(one: Report, new: Report) -> int:
    why = panic_reason(new)
    over = not why or why.startswith(STOOD_STILL + ASKED)
    return max(length_ns(one), _SOON_NS) if over else _SOON_NS


# No kernel dies of a clock.
def _harmless(one: Report, new: Report) -> bool:
    return one.kind is Kind.CLOCKSOURCE_UNSTABLE and new.kind is Kind.PANIC


# The same CPU, task, pool or grace period; of RCU also a new grace period of the same flavour.
def _same_stall(one: Report, new: Report, *, whole: bool) -> bool:
    if one.kind is not new.kind or family(one) != family(new):
        return False
    if one.kind in (Kind.RCU_STALL, Kind.RCU_EXP_STALL) and whole:
        periods = [each.numbers.get("gp", each.numbers.get("exp")) for each in (one, new)]
        same_period = periods[0] is not None and periods[0] == periods[1]
        return same_period or not one.cpus or not new.cpus or bool(set(one.cpus) & set(new.cpus))
    if one.kind is Kind.WORKQUEUE_LOCKUP:
        return one.cpus == new.cpus
    return True


def _apart(one: Report, new: Report) -> bool:
    if one.pid is not None and one.pid == new.pid:
        return False
    mine, other = resources(one), resources(new)
    holders = {f"task {one.pid}", f"task {new.pid}"}
    return bool(mine and other) and not mine & other and not holders & (mine | other)


def _near(one: Report, new: Report) -> bool:
    if new.place - max(one.place, one.last_place) <= _PLACES:
        return True
    grown = one.duration is not None and new.duration is not None and new.duration.high > one.duration.high
    return one.kind is new.kind and family(one) == family(new) and grown
