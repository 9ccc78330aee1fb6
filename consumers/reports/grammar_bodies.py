"""The rows that go on with a report, those that end one, and those that say that lines are missing.

Sources are named row by row; all are files of the Linux kernel.
"""

from typing import Final

from consumers.reports.grammar_row import COMM, P, Role, Row
from consumers.reports.report import Kind

_STALL: Final = "kernel/rcu/tree_stall.h"
_TAINT: Final = r"(?:Not tainted|Tainted: (?P<taint>[A-Z][A-Za-z -]*?)) +(?P<release>\d\S*)(?: .*)?"


def _body(name: str, pattern: str, first: str, source: str, last: str = "", kind: Kind | None = None) -> Row:
    return Row(name, Role.BODY, kind, pattern, "", (), first, last, source)


def _end(name: str, pattern: str, first: str, source: str, literal: str, kind: Kind) -> Row:
    return Row(name, Role.END, kind, pattern, "", (literal,), first, "", source)


BODIES: Final = (
    _body(
        "frame",
        r"\s*(?:[Cc]all [Tt]race:\s*)?(?:</?[A-Z#]{2,8}\d?>\s*)*(?:\[<?[0-9a-fx]+>?\]\s*)*(?:\([^)]*\)\s*)?"
        r"(?P<guess>\?\s*)?(?P<func>[\w.$]+)\+0x[0-9a-f]+/0x[0-9a-f]+"
        r"(?: \[(?P<module>[\w-]+)(?: [0-9a-f]+)?\])?(?: \([^)]*\))?\s*",
        "3.0",
        "kernel/kallsyms.c",
    ),
    _body(
        "frame_arm",
        r"\s*(?:\[<[0-9a-f]+>\] \()?(?P<func>[\w.$]+)(?: \[(?P<module>[\w-]+)\])?\)? "
        r"from (?:\[<[0-9a-f]+>\] \()?[\w.$]+\+0x.*",
        "3.0",
        "arch/arm/kernel/traps.c",
    ),
    _body(
        "at",
        r"(?:(?:RIP|EIP): (?:(?P<segment>[0-9a-f]{4}):)?|(?:pc|PC|epc|NIP)(?: is at| :|:)?\s*|EIP is at )"
        r"\s*(?:\[<?[0-9a-fx]+>?\]\s*)*(?P<func>[\w.$]+\+0x[0-9a-f]+/0x[0-9a-f]+|0x[0-9a-f]+)"
        r"(?: \[(?P<module>[\w-]+)(?: [0-9a-f]+)?\])?(?: .*)?",
        "3.0",
        "arch/x86/kernel/dumpstack.c",
    ),
    _body(
        "psw",
        r"(?P<side>Krnl|User) PSW : [0-9a-f]{16} [0-9a-f]{16}(?: \((?:(?P<func>[\w.$]+\+0x[0-9a-f]+/0x[0-9a-f]+)"
        r"(?: \[(?P<module>[\w-]+)(?: [0-9a-f]+)?\])?|.*)\))?\s*",
        "3.0",
        "arch/s390/kernel/dumpstack.c",
    ),
    _body(
        "cpu",
        r"CPU: (?P<cpu>\d+) (?:UID: \d+ )?PID: (?P<pid>\d+) Comm: (?P<comm>.*?) (?:Kdump: loaded )?" + _TAINT,
        "3.10",
        "kernel/printk/printk.c",
    ),
    _body(
        "pid",
        r"Pid: (?P<pid>\d+), comm: (?P<comm>.*?) " + _TAINT,
        "3.0",
        "arch/x86/kernel/dumpstack.c",
        last="3.9",
    ),
    _body("taint_names", r"Tainted: \[.*", "6.11", "kernel/panic.c"),
    _body("taint", r"\s*" + _TAINT, "3.0", "kernel/hung_task.c"),
    _body("end_trace", r"---\[ end trace .*", "3.0", "kernel/panic.c"),
    _body("breaking_event", r"Last Breaking-Event-Address:", "3.0", "arch/s390/kernel/dumpstack.c"),
    _body("coredump", r"\s*Blocked by coredump\.", "3.0", "kernel/hung_task.c", kind=Kind.HUNG_TASK),
    _body(
        "nmi_sent",
        r"[Ss]ending NMI (?:from CPU (?P<by>\d+) )?to (?:CPUs (?P<cpus>[\d,-]+)|other CPUs|all CPUs):?",
        "3.0",
        "lib/nmi_backtrace.c",
    ),
    _body("nmi_cpu", r"NMI backtrace for cpu (?P<cpu>\d+)(?: skipped: idling.*)?", "3.0", "lib/nmi_backtrace.c"),
    _body("dump_cpu", r"Task dump for CPU (?P<cpu>\d+):", "3.0", "kernel/sched/core.c"),
    _body(
        "task",
        r"task:" + COMM + r"\s+state:(?P<state>\S+)(?:\s+running task)?\s+stack:\s*\d+\s+pid:\s*(?P<pid>\d+)\s.*",
        "5.10",
        "kernel/sched/core.c",
    ),
    _body(
        "task_old",
        COMM + r"\s+(?P<state>[A-Z])(?: [0-9a-f]{8,16}|  ?running task)?\s*\d+\s+(?P<pid>\d+)\s+\d+ 0x[0-9a-f]{8}",
        "3.0",
        "kernel/sched/core.c",
        last="5.9",
    ),
    _body("section", r"\s*</?[A-Z#]{2,8}\d?>.*", "3.0", "arch/x86/kernel/dumpstack.c"),
    _body("call_trace", r"\s*[Cc]all [Tt]race:\s*", "3.0", "arch/x86/kernel/dumpstack.c"),
    _body("hardware", r"Hardware name: (?P<hardware>.*)", "3.10", "kernel/printk/printk.c"),
    _body("workqueue", r"Workqueue: (?P<workqueue>\S+) (?P<work>\S+).*", "3.10", "kernel/workqueue.c"),
    _body("modules", r"Modules linked in:.*", "3.0", "kernel/module/main.c"),
    _body(
        "hung_hint",
        r'"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message\.',
        "3.0",
        "kernel/hung_task.c",
    ),
    _body(
        "holder",
        r"INFO: task (?P<waiter>.{0,64}):(?P<waiter_pid>\d+)(?: <\w+>)? (?:is )?blocked on an? "
        r"(?P<lock>mutex|semaphore|rw-semaphore)"
        r"(?: likely (?:owned|last held) by task (?P<owner>.{0,64}):(?P<owner_pid>\d+).*"
        r"|,? but .*)",
        "6.17",
        "kernel/hung_task.c",
        kind=Kind.HUNG_TASK,
    ),
    _body("cputime_head", P + r"\s*hardirqs\s+softirqs\s+csw/system", "6.3", _STALL, kind=Kind.RCU_STALL),
    _body(
        "cputime_number",
        P + r"\s*number:\s+(?P<hardirqs>\d+)\s+(?P<softirqs>\d+)\s+(?P<switches>\d+)",
        "6.3",
        _STALL,
        kind=Kind.RCU_STALL,
    ),
    _body(
        "cputime",
        P + r"\s*cputime:\s+(?P<hardirq_ms>\d+)\s+(?P<softirq_ms>\d+)\s+(?P<system_ms>\d+)"
        r"\s+==>\s*(?P<cputime_ms>\d+)\s*\(ms\)",
        "6.3",
        _STALL,
        kind=Kind.RCU_STALL,
    ),
    _body(
        "rcu_timer",
        P + r"\s*Possible timer handling issue on cpu=(?P<timer_cpu>\d+) timer-softirq=(?P<timer_softirq>\d+)",
        "5.11",
        _STALL,
        kind=Kind.RCU_STALL,
    ),
    _body(
        "rcu_oom",
        P + r"\s*Unless (?P<flavor>\w+) kthread gets sufficient CPU time, OOM is now expected behavior\.",
        "5.9",
        _STALL,
        kind=Kind.RCU_STALL,
    ),
    _body("rcu_kthread_stack", P + r"RCU grace-period kthread stack dump:", "3.19", _STALL, kind=Kind.RCU_STALL),
    _body("rcu_kthread_where", P + r"Stack dump where RCU GP kthread last ran:", "5.11", _STALL, kind=Kind.RCU_STALL),
    _body(
        "rcu_kthread_offline",
        P + r"RCU GP kthread last ran on offline CPU (?P<kthread_cpu>\d+)\.",
        "5.12",
        _STALL,
        kind=Kind.RCU_STALL,
    ),
    _body("rcu_offline", P + r"\s*Offline CPU (?P<cpu>\d+) blocking current GP\.", "5.12", _STALL, kind=Kind.RCU_STALL),
    _body(
        "exp_rest",
        r"\s*(?P<who>[\dDNOoP.! -]*)\} (?P<jiffies>\d+) jiffies s: (?P<exp>\d+) root: (?P<root>\S+)",
        "4.3",
        "kernel/rcu/tree_exp.h",
        kind=Kind.RCU_EXP_STALL,
    ),
    _body(
        "exp_nodes",
        P + r"blocking rcu_node structures(?: \(internal RCU debug\))?:.*",
        "4.3",
        "kernel/rcu/tree_exp.h",
        kind=Kind.RCU_EXP_STALL,
    ),
    _body(
        "scx_task",
        r"(?:sched_ext: )?(?:\S+: )?" + COMM + r"\[(?P<pid>\d+)\] failed to run for (?P<dur_s>\d+)\.(?P<dur_ms>\d{3})s",
        "6.12",
        "kernel/sched/ext.c",
        kind=Kind.SCX_STALL,
    ),
    _body(
        "scx_watchdog",
        r"(?:sched_ext: )?(?:\S+: )?watchdog failed to check in for (?P<dur_s>\d+)\.(?P<dur_ms>\d{3})s",
        "6.12",
        "kernel/sched/ext.c",
        kind=Kind.SCX_STALL,
    ),
    _body(
        "scx_rcu",
        r"(?:sched_ext: )?(?:\S+: )?RCU CPU stall (?:detected!|on CPUs \((?P<cpus>[\d,-]+)\))",
        "6.18",
        "kernel/sched/ext.c",
        kind=Kind.SCX_STALL,
    ),
    _body(
        "scx_said",
        r"(?:sched_ext: )?\S+: (?P<how>soft|hard) lockup - CPU[ #](?P<cpu>\d+)(?: stuck for (?P<dur_s>\d+)s)?",
        "6.14",
        "kernel/sched/ext.c",
        kind=Kind.SCX_LOCKUP,
    ),
    _body("csd_resend", r"(?:smp: )?\s*csd: Re-sending CSD lock .*", "5.10", "kernel/smp.c", kind=Kind.CSD_STALL),
    _body(
        "csd_state",
        r"(?:smp: )?\s*csd: CSD lock \(#(?P<csd_lock>\d+)\) (?:unresponsive|handling).*",
        "5.10",
        "kernel/smp.c",
        kind=Kind.CSD_STALL,
    ),
    _body(
        "utilization",
        r"(?:watchdog: )?CPU#(?P<cpu>\d+) Utilization every (?P<every>\d+)(?P<unit>s|ms) during lockup:",
        "6.12",
        "kernel/watchdog.c",
    ),
    _body(
        "utilization_row",
        r"(?:watchdog: )?\s*#(?P<row>\d+): +(?P<system>\d+)% system,\s+(?P<softirq>\d+)% softirq,"
        r"\s+(?P<hardirq>\d+)% hardirq,\s+(?P<idle>\d+)% idle",
        "6.12",
        "kernel/watchdog.c",
    ),
    _body(
        "hardirq",
        r"(?:watchdog: )?CPU#(?P<cpu>\d+) Detect HardIRQ Time exceeds (?P<hardirq_pct>\d+)%.*",
        "6.12",
        "kernel/watchdog.c",
    ),
    _body(
        "hardirq_row",
        r"(?:watchdog: )?\s*#(?P<row>\d+): (?P<irq_count>\d+)\s+irq#(?P<irq>\d+)(?:\(.*\))?",
        "6.12",
        "kernel/watchdog.c",
    ),
    _body(
        "powerpc_heartbeat",
        r"watchdog: CPU (?P<cpu>\d+) TB:\d+, last .*",
        "4.15",
        "arch/powerpc/kernel/watchdog.c",
        kind=Kind.HARD_LOCKUP,
    ),
    _body(
        "pools",
        r"Showing (?:busy workqueues and worker pools|backtraces of .*):",
        "4.4",
        "kernel/workqueue.c",
        kind=Kind.WORKQUEUE_LOCKUP,
    ),
    _body("raw_frame", r"\s*(?:\[<?[0-9a-fx]+>?\]\s*)?(?:\? ?)?0x[0-9a-f]{8,16}", "3.0", "lib/vsprintf.c"),
    _body(
        "registers",
        r"\s*(?:[A-Z][A-Z0-9]{1,4}:\s*[0-9a-f]{2}|Code: "
        r"|(?:x\d+|r\d+|sp|lr|ra|gp|tp|fp|ip|pstate|psr|pc|[ast]\d+)\s*: ?[0-9a-f\[<]"
        r"|MSR: |CFAR: |GPR\d+: |LR \[|PKRU:|Stack:|Kernel Offset:|irq event stamp: |(?:hard|soft)irqs last ).*",
        "3.0",
        "arch/x86/kernel/process_64.c",
    ),
    _body(
        "pool",
        r"\s*(?:workqueue .{1,64}: flags=|pwq \d+: |in-flight: |pending: |inactive: |pool \d+:).*",
        "4.4",
        "kernel/workqueue.c",
        kind=Kind.WORKQUEUE_LOCKUP,
    ),
    _body(
        "tasks_row",
        r"(?:[0-9a-fx]+|\(_+ptrval_+\)): [.A-Za-z]{2} nvcsw: \S+ holdout: \d+ idle_cpu: \S+",
        "3.18",
        "kernel/rcu/tasks.h",
        kind=Kind.RCU_TASKS_STALL,
    ),
    _body(
        "tasks_trace_row",
        r"P(?P<reader_pid>\d+): [.IiNB]{1,4}"
        r"(?: nesting: (?P<reader_nest>-?\d+)[ !CN]?[ ?]? cpu: (?P<reader_cpu>-?\d+).*)?",
        "5.8",
        "kernel/rcu/tasks.h",
        last="6.18",
        kind=Kind.RCU_TASKS_STALL,
    ),
    _body(
        "tasks_trace_ipi",
        r"\s*IPI outstanding to CPU (?P<cpu>\d+)",
        "5.8",
        "kernel/rcu/tasks.h",
        last="6.18",
        kind=Kind.RCU_TASKS_STALL,
    ),
    _body("locks", r"Showing all locks held in the system:", "3.0", "kernel/locking/lockdep.c"),
)

ENDS: Final = (
    _end("rcu_end", P + r"(?:INFO: )?Stall ended before state dump start", "3.0", _STALL, "tall ended", Kind.RCU_STALL),
    _end(
        "rcu_end_dump",
        P + r"(?:INFO: )?Stall ended during stack backtracing\.?",
        "6.14",
        _STALL,
        "tall ended",
        Kind.RCU_STALL,
    ),
    _end(
        "rcu_exp_end",
        P + r"(?:INFO: )?Expedited stall ended before state dump start",
        "7.0",
        "kernel/rcu/tree_exp.h",
        "tall ended",
        Kind.RCU_EXP_STALL,
    ),
    _end(
        "csd_end",
        r"(?:smp: )?csd: CSD lock \(#(?P<csd_lock>\d+)\) got unstuck.*",
        "5.10",
        "kernel/smp.c",
        "got unstuck",
        Kind.CSD_STALL,
    ),
    _end(
        "hard_lockup_end",
        r"[Ww]atchdog:? CPU[: ](?P<cpu>\d+) became unstuck.*",
        "4.13",
        "arch/powerpc/kernel/watchdog.c",
        "became unstuck",
        Kind.HARD_LOCKUP,
    ),
)

LOSSES: Final = (
    Row(
        "dropped",
        Role.LOSS,
        None,
        r"\*\* (?P<lost>\d+) printk messages dropped \*\*.*",
        "",
        (),
        "3.0",
        "",
        "kernel/printk/printk.c",
    ),
)
