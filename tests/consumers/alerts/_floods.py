"""What a kernel prints to cost others time: lines like reports, thousands in a second of the log."""

from tests.consumers.alerts._stalls import SOFT

RECORDS = 500
TEXTS = (
    SOFT.format(cpu=3, s=22),
    "INFO: task x:{n} blocked for more than 122 seconds.",
    "rcu: INFO: rcu_sched self-detected stall on CPU {n}",
    "watchdog: BUG: soft lockup - CPU#{n} stuck for",
    "watchdog: a soft lockup of a new sort {n}",
    "watchdog: BUG: soft lockup - CPU#{n} stuck for 22s! [x:{n}]\\x0arcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
)


def flood(kernel, records, apart_s=0.01):
    """Yield frames of `records` in all, each line another."""
    for at in range(0, records, RECORDS):
        texts = [TEXTS[n % len(TEXTS)].format(n=n % 4096) for n in range(at, at + RECORDS)]
        yield kernel.says(*texts, after_s=apart_s)
