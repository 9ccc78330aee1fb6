"""Signs of life, and what they prove. Silence ends nothing: only these do, a line that says so, or a reboot."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from consumers.incidents.joining import S, family
from consumers.reports.report import Kind, Report

#: The workqueue watchdog looks every 30 s: a live CPU and two looks without a word mean that the pool works again.
_POOL_NS: Final = 60 * S


class Progress(NamedTuple):
    """At `at_ns` of printk's clock `cpu` ran a task, or task `pid` ran, or grace period `gp` of `flavor` was over.

    `record` names the record that shows it, by table and position, where that is a single one.
    """

    at_ns: int
    cpu: int | None = None
    pid: int | None = None
    flavor: str = ""
    gp: int | None = None
    record: str = ""

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yield what is remembered of it: the newest time of a CPU or task, the newest grace period."""
        if self.cpu is not None:
            yield f"cpu:{self.cpu}", self.at_ns
        if self.pid is not None:
            yield f"task:{self.pid}", self.at_ns
        if self.gp is not None:
            yield f"gp:{self.flavor}", self.gp


def settled(reports: Sequence[Report], proofs: Mapping[str, int], standing: Mapping[str, int]) -> bool:
    """Return whether nothing of it stands still any more: each report has a sign of life after it, or its end line.

    An end line is for all earlier reports of the same CPU, task or flavour too. `standing` has CPUs and tasks of which
    the reports are gone, and after which time a sign of life counts.
    """
    ended = {family(each): each.place for each in reports if each.ended}
    if not all(each.place <= ended.get(family(each), -1) or _proven(each, proofs) for each in reports):
        return False
    return all(proofs.get(name, -1) > after_ns for name, after_ns in standing.items())


def _proven(report: Report, proofs: Mapping[str, int]) -> bool:
    if report.kind is Kind.PANIC or report.ts_ns is None:
        return False
    after_ns = max(report.ts_ns, report.last_ts_ns or 0)
    if report.kind in (Kind.HUNG_TASK, Kind.SCX_STALL):
        return proofs.get(f"task:{report.pid}", -1) > after_ns
    if report.kind is Kind.CLOCKSOURCE_UNSTABLE:
        return any(at_ns > after_ns for name, at_ns in proofs.items() if name.startswith("cpu:"))
    gp = report.numbers.get("gp")
    if gp is not None and report.flavor and proofs.get(f"gp:{report.flavor}", -1) >= gp:
        return True
    if report.kind is Kind.WORKQUEUE_LOCKUP:
        after_ns += _POOL_NS
    return bool(report.cpus) and all(proofs.get(f"cpu:{cpu}", -1) > after_ns for cpu in report.cpus)
