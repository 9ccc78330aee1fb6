"""Incidents and facts that are written by hand: what a row of the table needs, and no more."""

from dataclasses import replace

from consumers.incidents.incident import Incident, Source
from consumers.reports.report import Kind, Report, Seconds
from consumers.verdict.facts import NAMES, Facts, known, unknown
from consumers.verdict.shares import Shares
from consumers.verdict.verdict import Record

S = 10**9
RECORDS = (Record("vcpu_time", "host", "vcpu-time", "", 3, 12),)
SOURCE = Source("guest", "boot", "guest-kernel")


def report(kind=Kind.SOFT_LOCKUP, cpus=(1,), length_s=22.0, ts_s=100, **more):
    """Return a report as its assembler would make it."""
    if kind in (Kind.HUNG_TASK, Kind.RCU_TASKS_STALL):
        cpus, more = (), {"task": "dd", "pid": 145} | more
    duration = None if length_s is None else Seconds(length_s, length_s)
    return Report(kind, 356, int(ts_s * S), structured=True, cpus=cpus, duration=duration, last_place=370, **more)


def incident(root=None, *others, source=SOURCE, **more):
    """Return the incident of a report, or of that and others."""
    root = root or report(**more)
    until = max(each.ts_ns for each in (root, *others))
    since = root.ts_ns - int((root.duration.high if root.duration else 1) * S)
    return Incident(
        "a1", source, root.kind, root.kind, root.place, root.last_place, since, until, root.duration, "printed",
        root.cpus, root.task, root.pid, (), root, [root, *others],
    )  # fmt: skip


def times(error=0.0, **masses):
    """Return where a vCPU's time went."""
    return known(Shares(masses, error), "sampled each second", RECORDS)


def facts(vcpu=None, *, cpu=1, **more):
    """Return facts with a host that saw all, in which nothing is known but what is given."""
    base = {
        "length_s": 22.0,
        "vcpus": {} if vcpu is None else {cpu: vcpu},
        "host": known(True),
        "mapped": known(True),
        "lost": known(0),
        "clock_error_s": known(0.001),
    }
    for name, value in more.items():
        base[name] = (
            known(value, f"seen: {name}", RECORDS) if name in NAMES and isinstance(value, bool | str) else value
        )
    return Facts(**base)


def withheld(whole, names=(), cpus=()):
    """Return `whole` without the facts of these names, and without those of these vCPUs."""
    gone = {name: unknown("withheld") for name in names}
    vcpus = {cpu: unknown("withheld") if cpu in cpus else fact for cpu, fact in whole.vcpus.items()}
    return replace(whole, vcpus=vcpus, **gone)
