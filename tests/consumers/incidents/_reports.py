"""Reports by hand, and an assembler that takes them as a log gives them: opened, then closed."""

from consumers.incidents.assembly import IncidentAssembler, Limits
from consumers.incidents.incident import Source
from consumers.reports.report import Kind, Line, Report, Seconds

S = 1_000_000_000
SOURCE = Source("m", "b", "guest-kernel")


def report(kind, at_s, dur_s=None, place=None, **more):
    """Return one of `kind` printed at `at_s`, of length `dur_s`."""
    duration = None if dur_s is None else Seconds(float(dur_s), float(dur_s))
    at_ns = None if at_s is None else int(at_s * S)
    place = int(at_s * 10) if place is None else place
    made = Report(Kind(kind), place, at_ns, structured=True, duration=duration, **more)
    made.last_place, made.last_ts_ns = place, at_ns
    return made


def soft(cpu, at_s, dur_s, task="sh", pid=1, **more):
    return report("soft_lockup", at_s, dur_s, cpus=(cpu,), task=task, pid=pid, **more)


def hung(pid, at_s, dur_s, *frames, **more):
    return report("hung_task", at_s, dur_s, task=f"t{pid}", pid=pid, frames=frames, **more)


def rcu(gp, at_s, dur_s, *cpus, **more):
    return report("rcu_stall", at_s, dur_s, cpus=cpus, flavor="rcu_sched", numbers={"gp": gp}, **more)


def stack(*names):
    return [Line(i, None, "", f" {name}+0x1/0x2", True) for i, name in enumerate(names)]


def play(*reports, limits=None, assembler=None):
    """Return the assembler after `reports`, each whole before the next."""
    assembler = assembler or IncidentAssembler(SOURCE, limits or Limits())
    for each in reports:
        assembler.apply([("opened", each)], each.ts_ns)
        assembler.apply([("closed", each)], each.ts_ns)
    return assembler
