"""The rows that begin a report, kernels 3.x to 7.x, and those of which a report may survive alone.

Sources are named row by row; all are files of the Linux kernel.
"""

from typing import Final

from consumers.reports.grammar_row import COMM, TAIL, P, Role, Row, W
from consumers.reports.report import Kind

_WATCHDOG: Final = "kernel/watchdog.c"
_STALL: Final = "kernel/rcu/tree_stall.h"
_POWERPC: Final = "arch/powerpc/kernel/watchdog.c"
_SCX: Final = "kernel/sched/ext.c"

STARTS: Final = (
    Row(
        "soft_lockup",
        Role.START,
        Kind.SOFT_LOCKUP,
        W + r"BUG: soft lockup - CPU#(?P<cpu>\d+) stuck for (?P<dur_s>\d+)s! \[" + COMM + r":(?P<pid>-?\d+)\]",
        W + r"BUG: soft lockup - CPU#(?P<cpu>\d+)(?: stuck for (?P<dur_s>\d+)s)?",
        ("soft lockup",),
        "3.0",
        "",
        _WATCHDOG,
    ),
    Row(
        "scx_lockup",
        Role.START,
        Kind.SCX_LOCKUP,
        r"sched_ext: (?P<how>Soft|Hard) lockup - CPU ?(?P<cpu>\d+)(?: stuck for (?P<dur_s>\d+)s)?"
        r', disabling (?:"(?P<scx>[^"]*)"|BPF scheduler)',
        r"sched_ext: (?P<how>Soft|Hard) lockup - CPU ?(?P<cpu>\d+)(?: stuck for (?P<dur_s>\d+)s)?",
        ("t lockup", "d lockup"),
        "6.14",
        "",
        _SCX,
    ),
    Row(
        "scx_stall",
        Role.START,
        Kind.SCX_STALL,
        r'sched_ext: BPF [\w -]+?(?: "(?P<scx>.*)")? disabled \(runnable task stall\)',
        r"",
        ("runnable task stall",),
        "6.12",
        "",
        _SCX,
    ),
    Row(
        "hard_lockup",
        Role.START,
        Kind.HARD_LOCKUP,
        W + r"(?:CPU(?P<by>\d+): )?Watchdog detected hard LOCKUP on cpu ?(?P<cpu>\d+)\.?",
        W + r"(?:CPU(?P<by>\d+): )?Watchdog detected hard LOCKUP",
        ("hard LOCKUP",),
        "3.0",
        "",
        _WATCHDOG,
    ),
    Row(
        "hard_lockup_powerpc_old",
        Role.START,
        Kind.HARD_LOCKUP,
        r"Watchdog CPU:(?P<cpu>\d+) Hard LOCKUP",
        r"",
        ("Hard LOCKUP",),
        "4.13",
        "4.15",
        _POWERPC,
    ),
    Row(
        "hard_lockup_powerpc_old_others",
        Role.START,
        Kind.HARD_LOCKUP,
        r"Watchdog CPU:(?P<by>\d+) detected Hard LOCKUP other CPUS:(?P<cpus>[\d,-]+)",
        r"",
        ("Hard LOCKUP",),
        "4.13",
        "4.15",
        _POWERPC,
    ),
    Row(
        "hard_lockup_powerpc_self",
        Role.START,
        Kind.HARD_LOCKUP,
        r"watchdog: CPU (?P<cpu>\d+) self-detected hard LOCKUP @ (?P<at>\S+)",
        r"watchdog: CPU (?P<cpu>\d+) self-detected hard LOCKUP",
        ("hard LOCKUP",),
        "5.4",
        "",
        _POWERPC,
    ),
    Row(
        "hard_lockup_powerpc_others",
        Role.START,
        Kind.HARD_LOCKUP,
        r"watchdog: CPU (?P<by>\d+) detected hard LOCKUP on other CPUs (?P<cpus>[\d,-]+)",
        r"watchdog: CPU (?P<by>\d+) detected hard LOCKUP on other",
        ("hard LOCKUP",),
        "5.4",
        "",
        _POWERPC,
    ),
    Row(
        "rcu_tasks_stall",
        Role.START,
        Kind.RCU_TASKS_STALL,
        r"INFO: (?P<flavor>rcu_tasks\w*) detected stalls(?: on tasks:|\? \(Late IPI\?\)).*",
        r"INFO: (?P<flavor>rcu_tasks\w*) detected stalls",
        ("detected stall",),
        "3.18",
        "",
        "kernel/rcu/tasks.h",
    ),
    Row(
        "rcu_exp_stall",
        Role.START,
        Kind.RCU_EXP_STALL,
        P + r"INFO: (?P<flavor>rcu_\w+) detected expedited stalls on CPUs/tasks: \{ ?(?P<who>[^}]*)\} "
        r"(?P<jiffies>\d+) jiffies s: (?P<exp>\d+) root: (?P<root>\S+)",
        P + r"INFO: (?P<flavor>rcu_\w+) detected expedited stalls(?: on CPUs/tasks: ?(?:\{ ?(?P<who>[^}]*))?)?",
        ("expedited stall",),
        "4.3",
        "",
        "kernel/rcu/tree_exp.h",
    ),
    Row(
        "rcu_stall_self",
        Role.START,
        Kind.RCU_STALL,
        P + r"INFO: (?P<flavor>rcu_\w+) self-detected stall on CPU(?: *\{(?P<who>[^}]*)\})?\s*(?:" + TAIL + r")?",
        P + r"INFO: (?P<flavor>rcu_\w+) self-",
        ("self-detected stall", "rcu_sched self-", "rcu_preempt self-"),
        "3.0",
        "",
        _STALL,
    ),
    Row(
        "rcu_stall_other",
        Role.START,
        Kind.RCU_STALL,
        P + r"INFO: (?P<flavor>rcu_\w+) detected stalls? on (?:CPUs/tasks|CPU (?P<cpu>\d+)):?"
        r"(?: *\{(?P<who>[^}]*)\})?\s*(?:" + TAIL + r")?",
        P + r"INFO: (?P<flavor>rcu_\w+) detected stalls? on",
        ("detected stall",),
        "3.0",
        "",
        _STALL,
    ),
    Row(
        "rcu_stall_csd",
        Role.START,
        Kind.RCU_STALL,
        P + r"INFO: (?P<flavor>\w+) detected (?P<csd>expedited stalls|stall), but suppressed full report "
        r"due to a stuck CSD-lock\.?",
        r"",
        ("stuck CSD-lock",),
        "6.12",
        "",
        _STALL,
    ),
    Row(
        "hung_task",
        Role.START,
        Kind.HUNG_TASK,
        r"INFO: task "
        + COMM
        + r":(?P<pid>\d+) blocked (?P<iowait>in I/O wait )?for more than (?P<dur_s>\d+) seconds\.?",
        r"INFO: task " + COMM + r":(?P<pid>\d+) blocked(?: (?P<iowait>in I/O wait )?for|\s*$)",
        ("blocked for", "blocked in I/O wait", "INFO: task "),
        "3.0",
        "",
        "kernel/hung_task.c",
    ),
    Row(
        "workqueue_lockup",
        Role.START,
        Kind.WORKQUEUE_LOCKUP,
        r"BUG: workqueue lockup - pool(?: \d+)? ?cpus=(?P<cpus>[\d,-]+)(?: node=(?P<node>-?\d+))? flags=0x[0-9a-f]+ "
        r"(?:nice=(?P<nice>-?\d+)|bh(?:-hi)?) stuck for (?P<dur_s>\d+)s!",
        r"BUG: workqueue lockup - pool(?: \d+)? ?(?:cpus=(?P<cpus>[\d,-]+))?",
        ("workqueue lockup",),
        "4.4",
        "",
        "kernel/workqueue.c",
    ),
    Row(
        "csd_stall",
        Role.START,
        Kind.CSD_STALL,
        r"(?:smp: )?csd: (?P<how>Detected|Continued) non-responsive CSD lock \(#(?P<csd_lock>\d+)\) "
        r"on CPU#(?P<by>\d+), waiting (?P<dur_ns>-?\d+) ns for CPU#0*(?P<cpu>\d+) (?P<func>\S+)(?: .*)?",
        r"(?:smp: )?csd: (?P<how>Detected|Continued) non-responsive CSD lock "
        r"\(#(?P<csd_lock>\d+)\)(?: on CPU#(?P<by>\d+))?",
        ("non-responsive CSD lock",),
        "5.10",
        "",
        "kernel/smp.c",
    ),
    Row(
        "clocksource_unstable",
        Role.START,
        Kind.CLOCKSOURCE_UNSTABLE,
        r"(?:clocksource: )?(?:timekeeping watchdog(?: on CPU(?P<cpu>\d+))?: )?Marking clocksource "
        r"'?(?P<clocksource>[\w-]+)'? (?:as )?unstable,? (?:because|due to).*",
        r"(?:clocksource: )?(?:timekeeping watchdog(?: on CPU(?P<cpu>\d+))?: )?Marking clocksource "
        r"'?(?P<clocksource>[\w-]+)'? (?:as )?unstable",
        ("Marking clocksource",),
        "3.0",
        "",
        "kernel/time/clocksource.c",
    ),
    Row(
        "clocksource_unstable_old",
        Role.START,
        Kind.CLOCKSOURCE_UNSTABLE,
        r"Clocksource (?P<clocksource>[\w-]+) unstable \(delta = (?P<delta_ns>-?\d+) ns\)",
        r"",
        (" unstable (delta",),
        "3.0",
        "4.0",
        "kernel/time/clocksource.c",
    ),
    Row(
        "panic",
        Role.START,
        Kind.PANIC,
        r"Kernel panic - not syncing: (?P<why>Watchdog detected hard LOCKUP on cpu (?P<cpu>\d+)|.*)",
        r"Kernel panic - not",
        ("Kernel panic",),
        "3.0",
        "",
        "kernel/panic.c",
    ),
)

#: Body that says enough to stand for a report whose head is lost.
TAILS: Final = (
    Row(
        "rcu_tail",
        Role.TAIL,
        Kind.RCU_STALL,
        P + r"\s*" + TAIL,
        P + r"\s*\((?:detected by (?P<by>\d+), )?t=(?P<jiffies>\d+) jiffies",
        ("(t=", "detected by"),
        "3.0",
        "",
        _STALL,
    ),
    Row(
        "rcu_cpu",
        Role.TAIL,
        Kind.RCU_STALL,
        P + r"\s*(?P<cpu>\d+)(?:-(?P<flags>\S{3,5}))?: \((?P<ticks>\d+) (?P<unit>ticks this GP|GPs behind)\) "
        r"idle=(?P<dyn>[0-9a-f]+)/(?P<nest>-?[0-9a-f]+)/(?P<nmi>\w+)(?: softirq=(?P<softirq>\d+/\d+))?"
        r"(?: fqs=(?P<fqs>\d+))? ?(?:last_accelerate: \S+ (?:dyntick_enabled: \d+|nonlazy_posted: \S+ \S+)|\.?)?"
        r"(?:rcuc=(?P<rcuc>-?\d+) jiffies(?:\(starved\))?)?(?P<doubt> ?\(false positive\?\))?",
        P + r"\s*(?P<cpu>\d+)(?:-(?P<flags>\S{3,5}))?: \((?P<ticks>\d+) (?P<unit>ticks this GP|GPs behind)\)",
        ("ticks this GP)", "GPs behind)"),
        "3.3",
        "",
        _STALL,
    ),
    Row(
        "rcu_kthread_starved",
        Role.TAIL,
        Kind.RCU_STALL,
        P + r"(?P<flavor>rcu_\w+) kthread starved for (?P<kthread_starved>\d+) jiffies!(?: g(?P<gp>-?\d+).*?"
        r"(?:->state=(?P<state>\S+))?(?: ->cpu=(?P<kthread_cpu>\d+))?)?",
        P + r"(?P<flavor>rcu_\w+) kthread starved for",
        ("kthread starved for",),
        "3.19",
        "",
        _STALL,
    ),
    Row(
        "rcu_kthread_timer",
        Role.TAIL,
        Kind.RCU_STALL,
        P + r"(?P<flavor>rcu_\w+) kthread timer wakeup didn't happen for (?P<kthread_timer>\d+) jiffies!"
        r"(?: g(?P<gp>-?\d+).*?(?:->state=(?P<state>\S+))?)?",
        P + r"(?P<flavor>rcu_\w+) kthread timer wakeup",
        ("kthread timer wakeup",),
        "5.11",
        "",
        _STALL,
    ),
    Row(
        "rcu_all_seen",
        Role.TAIL,
        Kind.RCU_STALL,
        P + r"All QSes seen, last (?P<flavor>\w+) kthread activity (?P<kthread_idle>\d+).*",
        P + r"All QSes seen, last",
        ("All QSes seen",),
        "3.12",
        "",
        _STALL,
    ),
    Row(
        "rcu_blocked_tasks",
        Role.TAIL,
        Kind.RCU_STALL,
        P + r"\s*Tasks blocked on level-(?P<level>\d+) rcu_node \(CPUs (?P<node_first>\d+)-(?P<node_last>\d+)\):"
        r"(?P<tasks>.*)",
        P + r"\s*Tasks blocked on level-",
        ("Tasks blocked on level",),
        "3.0",
        "",
        _STALL,
    ),
    Row(
        "hard_lockup_powerpc_target",
        Role.TAIL,
        Kind.HARD_LOCKUP,
        r"watchdog: CPU (?P<cpu>\d+) Hard LOCKUP",
        r"",
        ("Hard LOCKUP",),
        "4.16",
        "",
        _POWERPC,
    ),
    Row(
        "panic_end",
        Role.TAIL,
        Kind.PANIC,
        r"---\[ end Kernel panic - not syncing: (?P<why>.*)",
        r"---\[ end Kernel panic - not",
        ("Kernel panic",),
        "3.11",
        "",
        "kernel/panic.c",
    ),
)

#: What stands before a panic, of what the kernel dies: its own error, or its hardware's. Most kernels live on.
FATALS: Final = (
    Row(
        "hardware_error",
        Role.FATAL,
        Kind.PANIC,
        r"(?:.{0,64}\W)?\[Hardware Error\]: (?:CPU (?P<cpu>\d+): Machine Check.*|.*)",
        "",
        ("[Hardware Error]",),
        "3.0",
        "",
        "arch/x86/kernel/cpu/mce/core.c",
    ),
    Row(
        "oops",
        Role.FATAL,
        Kind.PANIC,
        r"(?:BUG: (?:[Kk]ernel NULL pointer|[Uu]nable to handle|stack guard page).*|Unable to handle kernel .*"
        r"|kernel BUG at .*|Internal error: .*|SError Interrupt on CPU ?(?P<cpu>\d+).*|\w[\w ,:.()/-]* \[#\d+\].*)",
        "",
        ("NULL pointer", "nable to handle", "kernel BUG at", "Internal error: ", "SError Interrupt", " [#"),
        "3.0",
        "",
        "arch/x86/mm/fault.c",
    ),
)
