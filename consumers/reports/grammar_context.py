"""The rows that stand beside reports: evidence, what a boot says of itself, and what looks like a report and is none.

Sources are named row by row; all are files of the Linux kernel.
"""

from typing import Final

from consumers.reports.grammar_row import Role, Row

_NVME: Final = "drivers/nvme/host/pci.c"


def _row(name: str, pattern: str, literals: tuple[str, ...], first: str, source: str, last: str = "") -> Row:
    return Row(name, Role.CONTEXT, None, pattern, "", literals, first, last, source)


CONTEXTS: Final = (
    _row(
        "rt_throttling",
        r"(?:\[sched_delayed\] )?sched: RT throttling activated.*",
        ("RT throttling",),
        "3.0",
        "kernel/sched/rt.c",
    ),
    _row(
        "dl_lag",
        r"(?:\[sched_delayed\] )?sched: DL replenish lagged too much.*",
        ("DL replenish",),
        "3.14",
        "kernel/sched/deadline.c",
    ),
    _row(
        "softirq_pending",
        r"NOHZ: local_softirq_pending:? (?P<mask>\w+).*",
        ("local_softirq_pending",),
        "3.0",
        "kernel/time/tick-sched.c",
        "5.10",
    ),
    _row(
        "tick_stop",
        r"NOHZ tick-stop error: (?:Non-RCU )?local softirq work is pending, handler #(?P<mask>\w+)!!!",
        ("tick-stop error",),
        "5.11",
        "kernel/time/tick-sched.c",
    ),
    _row(
        "nmi_slow",
        r"INFO: NMI handler \((?P<handler>.*)\) took too long to run: (?P<slow_ms>\d+\.\d+) msecs",
        ("took too long",),
        "3.5",
        "arch/x86/kernel/nmi.c",
    ),
    _row(
        "perf_slow",
        r"(?:perf: )?(?:perf )?(?:interrupt took|samples) too long \((?P<slow>\d+) > (?P<allowed>\d+)\).*",
        ("took too long", "samples too long"),
        "3.11",
        "kernel/events/core.c",
    ),
    _row(
        "hrtimer_slow",
        r"hrtimer: interrupt took (?P<slow_ns>\d+) ns",
        ("hrtimer: interrupt took",),
        "3.0",
        "kernel/time/hrtimer.c",
        "7.1",
    ),
    _row(
        "work_hogged",
        r"workqueue: (?P<work>.*) hogged CPU for >(?P<hog_us>\d+)us (?P<hogs>\d+) times.*",
        ("hogged CPU",),
        "6.8",
        "kernel/workqueue.c",
    ),
    _row("leap_second", r"Clock: (?:inserting|deleting) leap second.*", ("leap second",), "3.0", "kernel/time/ntp.c"),
    _row("kvm_clock", r"kvm-clock: .*", ("kvm-clock: ",), "3.0", "arch/x86/kernel/kvmclock.c"),
    _row(
        "steal_time",
        r"(?:kvm-guest|KVM setup|kvm-stealtime|arm-pv|riscv-pv).*steal.*",
        ("stealtime", "steal time", "steal-time"),
        "3.0",
        "arch/x86/kernel/kvm.c",
    ),
    _row(
        "tsc_unstable",
        r"(?:tsc: )?Marking TSC unstable due to .*",
        ("Marking TSC unstable",),
        "3.0",
        "arch/x86/kernel/tsc.c",
    ),
    _row(
        "clocksource_read_slow",
        r"clocksource: .*read-back delay of (?P<read_ns>\d+)ns.*",
        ("read-back delay",),
        "5.10",
        "kernel/time/clocksource.c",
        "7.1",
    ),
    _row(
        "clocksource_interval",
        r"clocksource: Long readout interval.*",
        ("Long readout interval",),
        "6.3",
        "kernel/time/clocksource.c",
    ),
    _row(
        "clocksource_timeout",
        r"clocksource: Watchdog (?:remote CPU (?P<cpu>\d+)|(?P<clocksource>\S+)) read timed out.*",
        ("read timed out",),
        "7.2",
        "kernel/time/clocksource.c",
    ),
    _row(
        "nvme_timeout_old",
        r".*\bI/O (?P<tag>\d+) (?:\([^)]*\) )?QID (?P<qid>\d+) timeout(?:, "
        r"(?P<what>aborting|reset controller|completion polled|disable controller).*)?",
        (" QID ",),
        "3.3",
        _NVME,
        "6.6",
    ),
    _row(
        "nvme_timeout",
        r".*\bI/O tag (?P<tag>\d+) \(\w+\)(?: type \d+)?(?: opcode (?P<opcode>0x\w+) \((?P<what>.*)\))? "
        r"QID (?P<qid>\d+) timeout.*",
        (" QID ",),
        "6.7",
        _NVME,
    ),
    _row(
        "nvme_tcp_timeout",
        r".*\bqueue (?P<qid>\d+): timeout request .*",
        ("timeout request",),
        "5.0",
        "drivers/nvme/host/tcp.c",
        "6.1",
    ),
    _row("scsi_abort", r".*\b(?:attempting )?task abort.*", ("task abort",), "3.0", "drivers/scsi"),
    _row(
        "scsi_timeout",
        r".*\btiming out command, waited (?P<waited_s>\d+)s.*",
        ("timing out command",),
        "3.0",
        "drivers/scsi/scsi_lib.c",
    ),
    _row(
        "netdev_watchdog_old",
        r"(?:.*: )?NETDEV WATCHDOG: (?P<netdev>\S+) \((?P<driver>\S*)\): transmit queue (?P<txq>\d+) "
        r"timed out(?: (?P<txq_ms>\d+) ms)?",
        ("NETDEV WATCHDOG",),
        "3.0",
        "net/sched/sch_generic.c",
        "6.6",
    ),
    _row(
        "netdev_watchdog",
        r"(?:.*: )?NETDEV WATCHDOG: CPU: (?P<cpu>\d+): transmit queue (?P<txq>\d+) timed out (?P<txq_ms>\d+) ms",
        ("NETDEV WATCHDOG",),
        "6.1",
        "net/sched/sch_generic.c",
    ),
)

SILENCES: Final = (
    Row(
        "hung_silence",
        Role.SILENCE,
        None,
        r"(?:INFO: )?Future hung task reports are suppressed.*",
        "",
        ("hung task reports",),
        "6.8",
        "",
        "kernel/hung_task.c",
    ),
)

#: `hz` from any of these: lpj = BogoMIPS x 500,000 / HZ; the enlistment delay is a tenth of a second.
BOOTS: Final = (
    Row(
        "version",
        Role.BOOT,
        None,
        r"Linux version (?P<release>\S+) .*",
        "",
        ("Linux version ",),
        "3.0",
        "",
        "init/version.c",
    ),
    Row(
        "lpj",
        Role.BOOT,
        None,
        r"Calibrating delay loop.* (?P<bogomips>\d+\.\d+) BogoMIPS \(lpj=(?P<lpj>\d+)\).*",
        "",
        ("(lpj=",),
        "3.0",
        "",
        "init/calibrate.c",
    ),
)

#: What is in no row above and still looks like a lockup or a stall: wording that nobody knows yet.
NEARS: Final = (
    Row(
        "near",
        Role.NEAR,
        None,
        r"(?:.*\W)?(?i:soft ?lockup|hard ?lockup|lockup (?:on|detected|-)|lockups? - |detected stalls?"
        r"|stall(?:s|ed)? on (?:CPU|task)|CPU#?\s?\d+ (?:is )?stuck|stuck for \d+|blocked for more than"
        r"|blocked in I/O wait|hung[ _-]?task|non-responsive CSD|has been hung|is hung|hung for|hung in"
        r"|kthread starved).*",
        "",
        (
            "ockup",
            "OCKUP",
            "detected stall",
            "stall on",
            "stalls on",
            "stalled on",
            "blocked for more",
            "blocked in I/O",
            "hung",
            "stuck for",
            " stuck",
        ),
        "3.0",
        "",
        "",
    ),
)
