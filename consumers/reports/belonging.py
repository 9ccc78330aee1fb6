"""Which of the open reports a line or another report belongs to: by kind, flavour, CPU, lock and caller."""

from typing import Final

from consumers.reports import opened
from consumers.reports.body import RCU
from consumers.reports.grammar import Match
from consumers.reports.grammar_starts import FATALS
from consumers.reports.opened import Opened
from consumers.reports.report import Kind, Line, Report

# One CPU's own: several of them are several reports, printed at once.
_PER_CPU: Final = (Kind.SOFT_LOCKUP, Kind.HARD_LOCKUP, Kind.SCX_LOCKUP, Kind.CSD_STALL)
_FATAL: Final = frozenset(row.name for row in FATALS)
#: A slow console prints an oops for so long. What goes on for longer the kernel lives with.
_DYING_NS: Final = 30 * 10**9


def waits(each: Opened) -> bool:
    """Return whether it is no report unless the kernel panics over it."""
    return each.row in _FATAL


def outlived(each: Opened, line: Line) -> bool:
    """Return whether it would be a panic's, and the kernel still lives."""
    return waits(each) and (line.ts_ns or 0) - (each.report.ts_ns or 0) > _DYING_NS


def touch(each: Opened, touched: dict[int, Report]) -> None:
    """Remember in `touched` that `each` changed, if it is a report."""
    if not waits(each):
        touched[id(each.report)] = each.report


def ended_by(each: Opened, new: Opened, caller: str) -> bool:
    """Return whether the report `new` begins where `each` ends: by the same caller, or said again of the same thing."""
    if caller and each.callers:
        return caller == each.callers[0] or (each.report.kind is new.report.kind and caller in each.callers)
    if each.report.kind is not new.report.kind:
        return False
    if each.report.kind in _PER_CPU:
        return each.report.cpus == new.report.cpus
    return not each.report.flavor or each.report.flavor == new.report.flavor or new.report.kind not in RCU


def can_have(each: Opened, found: Match) -> bool:
    """Return whether the line that is `found` can be one of `each`."""
    kind, flavor = found.row.kind, found.groups.get("flavor")
    if kind is not None and each.report.kind is not kind and not (kind is Kind.RCU_STALL and each.report.kind in RCU):
        return False
    # A second length is that of another report of the same stall.
    if found.row.name == "rcu_tail" and "jiffies" in each.report.numbers:
        return False
    return not flavor or not each.report.flavor or each.report.flavor == flavor


def can_end(each: Opened, found: Match) -> bool:
    """Return whether the end line that is `found` is that of `each`."""
    lock, cpu = (opened.number(found.groups.get(key)) for key in ("csd_lock", "cpu"))
    if each.report.kind is not found.row.kind:
        return False
    return each.report.numbers.get("csd_lock") == lock if lock is not None else cpu is None or cpu in each.report.cpus
