"""One report of a kernel that something stood still: what its lines say, and nothing that they do not say.

Wording and shapes: kernel/watchdog.c, kernel/rcu/tree_stall.h, kernel/rcu/tree_exp.h, kernel/rcu/tasks.h,
kernel/hung_task.c, kernel/workqueue.c, kernel/smp.c, kernel/sched/ext.c, kernel/time/clocksource.c, kernel/panic.c.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

_PANIC: Final = "Kernel panic - not syncing: "


class Kind(StrEnum):
    """What a start line reports, or a host of its VM."""

    SOFT_LOCKUP = "soft_lockup"
    HARD_LOCKUP = "hard_lockup"
    SCX_LOCKUP = "scx_lockup"
    SCX_STALL = "scx_stall"
    RCU_STALL = "rcu_stall"
    RCU_EXP_STALL = "rcu_exp_stall"
    RCU_TASKS_STALL = "rcu_tasks_stall"
    HUNG_TASK = "hung_task"
    WORKQUEUE_LOCKUP = "workqueue_lockup"
    CSD_STALL = "csd_stall"
    CLOCKSOURCE_UNSTABLE = "clocksource_unstable"
    PANIC = "panic"
    # These two no kernel prints: the host's side tells them of a VM.
    VM_STOPPED = "vm_stopped"
    WATCHDOG = "watchdog"


class Shape(StrEnum):
    """What the rows of an RCU report say of the CPU: it ran all along, nothing ran, it was silent, it ran in part."""

    RAN = "A"
    NOTHING_RAN = "B"
    SILENT = "C"
    IN_PART = "D"
    NO_ROW = "E"
    NO_TICKS = "F"


class Line(NamedTuple):
    """One line of a kernel log, without its prefixes.

    `place` is the record's sequence number, or the line's number in a file (from 1). `ts_ns` is printk's time, None
    where the text has none. `caller` is `T<pid>` or `C<cpu>`, or empty. `structured`: a record of /dev/kmsg with
    facility 0, which only the kernel can write; else free text, which anybody can.
    """

    place: int
    ts_ns: int | None
    caller: str
    text: str
    structured: bool


class Seconds(NamedTuple):
    """A length: both the same, or a range where the kernel's HZ is not known."""

    low: float
    high: float


@dataclass(slots=True)
class Report:
    """One start line with its body, or what survived of one (`corrupted`).

    `cpus` are those accused, `by` the CPU that says so, `task` and `pid` what the start line blames. `numbers` has the
    integers of body and tail by the names of the grammar (`ticks`, `fqs`, `jiffies`, `gp`, `nest`, ...), of the first
    accused CPU. `frames` is the stack below the dump's own machinery, outermost caller last; `module` that of its
    first frame from a module. `lines` are the raw lines, bounded; `dropped_lines` how many more there were. `ended` is
    whether the kernel itself said that it was over.
    """

    kind: Kind
    place: int
    ts_ns: int | None
    structured: bool
    cpus: tuple[int, ...] = ()
    by: int | None = None
    task: str | None = None
    pid: int | None = None
    duration: Seconds | None = None
    flavor: str = ""
    shape: Shape | None = None
    numbers: dict[str, int] = field(default_factory=dict)
    frames: tuple[str, ...] = ()
    module: str = ""
    taint: str = ""
    release: str = ""
    hardware: str = ""
    holder: str = ""
    notes: tuple[str, ...] = ()
    lines: list[Line] = field(default_factory=list)
    dropped_lines: int = 0
    last_place: int = 0
    last_ts_ns: int | None = None
    ended: bool = False
    corrupted: bool = False


def panic_reason(report: Report) -> str:
    """Return why the kernel panicked, as it says itself; empty where it does not say."""
    for text in (*report.notes, *(line.text for line in report.lines)):
        _, mark, why = text.partition(_PANIC)
        if mark:
            return why.removesuffix("]---").strip()
    return ""
