"""How often and why a VM's vCPUs left their guest: what KVM counts (`producers/kvm_exits.py`), and traces of each exit.

Tables: qmp_exits, vcpu_exits, trace_kvm_entry, trace_kvm_exit and trace_kvm_userspace_exit.
"""

from dataclasses import replace
from typing import Any, Final, NamedTuple

from consumers.coverage import Answer
from consumers.export.scope import literal
from consumers.verdict.facts import Fact, Facts, known, unknown
from consumers.verdict.look import Look, S, There, of_rows
from consumers.verdict.of_vcpus import Thread
from consumers.verdict.stays import split

_TRACED_PAD_NS: Final = 10 * S
#: So many times as often as before, and so often a second, is a storm: an idle guest has a few a second.
STORM_RATIO: Final = 10.0
STORM_MIN_PER_S: Final = 1000.0
#: What is usual is taken from so long before, and from no less.
_BEFORE_NS, _BEFORE_NS_MIN = 600 * S, 30 * S
#: Who counts more often than this part of the time in question, tells of it; else it is thinned by what was around it.
_AROUND_MAX: Final = 3
_BY_VMM_MIN: Final = 0.5
#: Those that the VMM handles, of x86 and of arm64 (KVM_EXIT_IO, KVM_EXIT_MMIO).
_BY_VMM: Final = ("io_exits", "mmio_exits", "mmio_exit_user")


def add(look: Look, facts: Facts, mine: list[Thread]) -> Facts:
    """Return `facts` with whether exits stormed, and, where each was traced, with what time went into the guest."""
    if look.there is None or look.scope is None:
        return facts
    return _with_traced(look, replace(facts, exit_storm=_storm(look, look.there)), look.there, mine)


class _Count(NamedTuple):
    """What was counted at `ts_ns`, since the VM began, of one vCPU or of all in sum."""

    ts_ns: int
    exits: int
    by_vmm: int
    row: dict[str, Any]


# Of the vCPUs in question by the monitor, and of the whole VM by debugfs: a storm of one is one of both.
def _storm(look: Look, there: There) -> Fact[bool]:
    by_vcpu: dict[int, list[dict[str, Any]]] = {cpu: [] for cpu in look.incident.root.cpus}
    for row in _rows(look, there, "qmp_exits"):
        if row["vcpu"] in by_vcpu:
            by_vcpu[row["vcpu"]].append(row)
    told = [_judged("qmp_exits", _counts(rows, there), there, f"vCPU {cpu}") for cpu, rows in by_vcpu.items()]
    told.append(_judged("vcpu_exits", _counts(_rows(look, there, "vcpu_exits"), there), there, "all vCPUs"))
    answers = [each for each in told if each.value is not None]
    return next((each for each in answers if each.value), (answers or told)[0])


def _rows(look: Look, there: There, table: str) -> list[dict[str, Any]]:
    assert look.scope is not None
    return look.rows(
        table,
        f"select * from {table} where machine = ? and boot_id = ? "  # noqa: S608
        f"and vm in ({', '.join(map(literal, look.scope.names))}) and exits is not null and ts_ns >= ? "
        "order by ts_ns, position",
        *there.node[:2], there.window.since_ns - _BEFORE_NS - _AROUND_MAX * there.length_ns,
    )  # fmt: skip


# Those of the run of the VM that the time in question lies in: another one counts from 0.
def _counts(rows: list[dict[str, Any]], there: There) -> list[_Count]:
    found: list[_Count] = []
    for row in rows:
        count = _Count(row["ts_ns"], row["exits"], sum(row[name] or 0 for name in _BY_VMM), row)
        if found and count.exits < found[-1].exits:
            if found[-1].ts_ns >= there.window.until_ns:
                break
            found = []
        found.append(count)
    return found


def _judged(table: str, counts: list[_Count], there: There, who: str) -> Fact[bool]:
    since_ns, until_ns = there.window.since_ns - there.error_ns, there.window.until_ns + there.error_ns
    before = next((each for each in reversed(counts) if each.ts_ns <= since_ns), None)
    behind = next((each for each in counts if each.ts_ns >= until_ns), None)
    if before is None or behind is None:
        return unknown(f"exits of {who} were not counted before and behind it")
    around_ns = behind.ts_ns - before.ts_ns
    if around_ns > _AROUND_MAX * there.length_ns:
        return unknown(f"exits of {who} were counted {around_ns / S:.0f} s apart")
    first = next(each for each in counts if each.ts_ns >= before.ts_ns - _BEFORE_NS)
    usual_ns = before.ts_ns - first.ts_ns
    if usual_ns < _BEFORE_NS_MIN:
        return unknown(f"what is usual of {who} was counted for {usual_ns / S:.0f} s only")
    exits = behind.exits - before.exits
    per_s, usual_per_s = exits * S / around_ns, (before.exits - first.exits) * S / usual_ns
    by_vmm = (behind.by_vmm - before.by_vmm) / exits if exits else 0.0
    text = (
        f"KVM left the guest on {who} {per_s:.0f} times a second, {usual_per_s:.0f} in the {usual_ns / S:.0f} s before "
        f"it; {by_vmm:.0%} of that for the VMM"
    )
    storm = per_s >= max(STORM_MIN_PER_S, STORM_RATIO * usual_per_s) and by_vmm >= _BY_VMM_MIN
    return known(storm, text, of_rows(table, [each.row for each in (first, before, behind)]))


# Where entries to and exits from the guest were traced without loss, they tell G from X.
def _with_traced(look: Look, facts: Facts, there: There, mine: list[Thread]) -> Facts:
    if not {"trace_kvm_entry", "trace_kvm_exit"} <= look.tables:
        return facts
    vcpus, exits = dict(facts.vcpus), facts.exits
    for thread in mine:
        found = _traced(look, there, thread)
        fact = vcpus.get(thread.vcpu)
        if found is None or fact is None or fact.value is None:
            continue
        guest, kernel, user = found
        vcpus[thread.vcpu] = replace(fact, value=split(fact.value, guest))
        if thread.vcpu in look.incident.root.cpus and kernel + user > 0:
            where = "userspace" if user >= kernel else "kernel"
            text = f"of its time outside the guest {max(user, kernel) / (user + kernel):.0%} was in {where}"
            exits = known(where, text)
    return replace(facts, vcpus=vcpus, exits=exits)


def _traced(look: Look, there: There, thread: Thread) -> tuple[float, float, float] | None:
    parts, node = [], there.node
    of = f"machine = {literal(node.machine)} and boot_id = {literal(node.boot_id)} and pid = {thread.tid}"
    for name, kind in (("kvm_entry", "G"), ("kvm_exit", "K"), ("kvm_userspace_exit", "U")):
        if f"trace_{name}" in look.tables:
            parts.append(
                f"select ts_ns, instance, page, clock, {literal(kind)} as kind from trace_{name} "  # noqa: S608
                f"where {of}"
            )
    rows = look.rows("trace_kvm_entry", f"select distinct clock from ({' union all '.join(parts)})")  # noqa: S608
    clock = look.on_clock(rows[0]["clock"]) if len(rows) == 1 else None
    if clock is None or not _whole(look, there):
        return None
    since_ns, until_ns = there.window.since_ns + clock[1], there.window.until_ns + clock[1]
    sums = look.rows(
        "trace_kvm_entry",
        "with stays as (select kind, ts_ns, lead(ts_ns) over (order by ts_ns) as until_ns "  # noqa: S608
        f"from ({' union all '.join(parts)}) where ts_ns between ? and ?) "
        "select kind, sum(greatest(0, least(until_ns, ?) - greatest(ts_ns, ?))) as took_ns, min(ts_ns) as first_ns, "
        "max(until_ns) as last_ns from stays group by kind",
        since_ns - _TRACED_PAD_NS, until_ns + _TRACED_PAD_NS, until_ns, since_ns,
    )  # fmt: skip
    if (
        not sums
        or min(row["first_ns"] for row in sums) > since_ns
        or max(row["last_ns"] or 0 for row in sums) < until_ns
    ):
        return None
    took = {row["kind"]: float(row["took_ns"] or 0) / (until_ns - since_ns) for row in sums}
    return took.get("G", 0.0), took.get("K", 0.0), took.get("U", 0.0)


# Every ring of trace events of the host was watched over the time, and none of them lost any.
def _whole(look: Look, there: There) -> bool:
    rings = [each for each in look.of_host("ftrace") if "/" in each.instance]
    return bool(rings) and all(
        look.watched(ring, there.window) is Answer.YES and not look.lost(ring, 0, (1 << 62)) for ring in rings
    )
