"""The shape of an RCU stall report: what its rows say of the CPU, with nothing but the guest's own text.

The numbers are those of print_cpu_stall_info (kernel/rcu/tree_stall.h): ticks in this grace period, the nesting (0:
idle), how often quiescent states were forced, how long it takes in jiffies.
"""

from typing import Final, NamedTuple

from consumers.reports.report import Shape

_RAN_LEAST: Final = 0.9
_IN_PART_LEAST: Final = 0.1
_NOTHING_TICKS_MAX: Final = 4
_NOTHING_FQS_MAX: Final = 4
# Forcing runs every two to four jiffies: a quarter of the jiffies at least, less what comes late.
_FQS_RAN_LEAST: Final = 0.125
# Many of them while one CPU is silent: the grace-period thread had its CPU all along.
_FQS_SILENT_LEAST: Final = 0.05


class CpuRow(NamedTuple):
    """One CPU of a report. `ticks` None: the row says how many grace periods the CPU is behind instead.

    `flags` are three to five characters or empty; the fourth is whether an irq-work came back (`.`), never did (`!`) or
    has been pending for so many grace periods (a digit).
    """

    cpu: int
    ticks: int | None
    nest: int | None
    fqs: int | None
    flags: str


def classify(
    rows: list[CpuRow], jiffies: int | None, ncpus: int | None = None, *, listed: int = 0, starved: bool = False
) -> Shape | None:
    """Return the shape by the first row; None where the numbers fit no class.

    `ncpus` is how many CPUs the machine has, where the report says so; `listed` how many the report has, where `rows`
    are only the first of them; `starved` whether it says that the grace-period
    thread got no CPU or its timer never fired, which explains that nothing was forced.
    """
    if not rows:
        return Shape.NO_ROW
    first = rows[0]
    if first.ticks is None:
        return Shape.NO_TICKS
    if _nothing_ran(first) or _all_alike(rows, max(listed, len(rows)), ncpus):
        return Shape.NOTHING_RAN
    if jiffies is None or jiffies <= 0:
        return None
    return _by_share(first, first.ticks / jiffies, jiffies, starved=starved)


def _by_share(row: CpuRow, share: float, jiffies: int, *, starved: bool) -> Shape | None:
    if _IN_PART_LEAST < share < _RAN_LEAST:
        return Shape.IN_PART
    if not row.nest:
        return None
    if share >= _RAN_LEAST:
        forced = row.fqs is None or row.fqs >= _FQS_RAN_LEAST * jiffies
        return Shape.RAN if forced or starved else None
    return Shape.SILENT if _silent(row, jiffies) else None


def _nothing_ran(row: CpuRow) -> bool:
    return _few(row) and row.nest == 0


def _few(row: CpuRow) -> bool:
    return row.ticks is not None and row.ticks <= _NOTHING_TICKS_MAX and (row.fqs or 0) <= _NOTHING_FQS_MAX


# Every CPU there is, none of them with ticks: no CPU was left that could be at fault.
def _all_alike(rows: list[CpuRow], listed: int, ncpus: int | None) -> bool:
    return listed > 1 and (ncpus is None or listed >= ncpus) and all(_few(row) for row in rows)


def _silent(row: CpuRow, jiffies: int) -> bool:
    pending = len(row.flags) < 4 or row.flags[3].isdigit()
    return pending and row.fqs is not None and row.fqs > max(_NOTHING_FQS_MAX, _FQS_SILENT_LEAST * jiffies)
