"""What the host says of a VM's vCPUs over the time in question: samples, stays, pauses, whose thread is whose.

Tables: vcpu_time, topology_vcpu, qmp_status, qmp_events and bpf_vcpu.
"""

from dataclasses import replace
from typing import Any, Final, NamedTuple

from consumers.clocks.graph import BOOT, MONO, REALTIME, Converted
from consumers.coverage import Answer, Span, merged
from consumers.export.scope import literal
from consumers.timeline.scope import Scope
from consumers.verdict.conditions import ALL_VCPUS
from consumers.verdict.facts import Fact, Facts, known, unknown
from consumers.verdict.look import CUT_NS, PAD_NS, Look, S, There, record
from consumers.verdict.shares import Shares
from consumers.verdict.stays import Monitor, Sample, Stay, account
from consumers.verdict.verdict import Evidence, Record
from schemas.stream import Stream

_SAMPLES_PAD_NS: Final = 30 * S
_STATES: Final = {
    "VCPU_RUNNING": "GX", "VCPU_WAITING": "W", "VCPU_THROTTLED": "W", "VCPU_STOPPED": "T", "VCPU_TRACED": "T",
    "VCPU_FROZEN": "T",
}  # fmt: skip
#: A row of a stay that ended, and those that were told while it went on, agree on its begin within this.
_SAME_NS: Final = 1_000_000
_VCPUS_MAX: Final = 1024
_THROTTLED: Final = "VCPU_THROTTLED"


class Thread(NamedTuple):
    """One vCPU's thread and its samples, in order."""

    vcpu: int
    tid: int
    samples: tuple[Sample, ...]
    records: tuple[Record, ...]
    last_cpus: frozenset[int]


def threads(look: Look) -> list[Thread]:
    """Return the threads of the VM's vCPUs that were sampled near the time in question."""
    there, scope = look.there, look.scope
    if there is None or scope is None:
        return []
    rows = look.rows(
        "vcpu_time",
        f"select * from vcpu_time where machine = ? and boot_id = ? and vm in ({_names(scope)}) "  # noqa: S608
        "and ts_ns between ? and ? order by vcpu, tid, start_ns, ts_ns",
        *there.node[:2], there.window.since_ns - _SAMPLES_PAD_NS, there.window.until_ns + _SAMPLES_PAD_NS,
    )  # fmt: skip
    found: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for row in rows:
        vcpu = ALL_VCPUS if row["vcpu"] is None else row["vcpu"]
        found.setdefault((vcpu, row["tid"], row["start_ns"]), []).append(row)
    return [_thread(key[0], key[1], mine, there) for key, mine in list(found.items())[:_VCPUS_MAX]]


def samples_of(rows: list[dict[str, Any]]) -> tuple[Sample, ...]:
    """Return the samples of one thread by its rows, in order."""
    # A thread whose cgroup is the root cannot be frozen: that is what null says there.
    return tuple(
        Sample(row["ts_ns"], row["state"], bool(row["frozen"]), row["run_ns"], row["wait_ns"], row["timeslices"])
        for row in rows
    )


def _thread(vcpu: int, tid: int, rows: list[dict[str, Any]], there: There) -> Thread:
    samples = samples_of(rows)
    inside = [row for row in rows if there.window.since_ns - S <= row["ts_ns"] <= there.window.until_ns + S]
    stream = Stream(*(rows[0][name] for name in Stream._fields))
    cpus = frozenset(row["last_cpu"] for row in inside if row["last_cpu"] is not None)
    return Thread(vcpu, tid, samples, record("vcpu_time", stream, (row["position"] for row in inside)), cpus)


def add(look: Look, facts: Facts, mine: list[Thread]) -> Facts:
    """Return `facts` with where the vCPUs' time went, whose thread is whose, and what was lost of all that."""
    there, scope = look.there, look.scope
    if there is None or scope is None:
        return facts
    monitor, paused = _monitor(look, there, scope)
    vcpus = {}
    for thread in mine:
        shares, about, records = _shares(look, there, thread, monitor)
        vcpus[thread.vcpu] = known(shares, about, (*thread.records, *records, *paused))
    if not mine and monitor.paused:
        # A pause is of all vCPUs, whichever threads they are.
        shares = account((), (), monitor, there.window, there.error_ns)
        vcpus[ALL_VCPUS] = known(shares, "by the monitor alone", paused)
    exact = f"the guest's time is known on the host's clock within {there.error_ns / S:g} s"
    return replace(
        facts, vcpus=vcpus, mapped=_mapped(look, there, scope, mine), lost=_lost(look, scope, there),
        clock_error_s=known(there.error_ns / S, exact),
        found=(*facts.found, *_throttled(look, there, mine)),
    )  # fmt: skip


def _shares(look: Look, there: There, thread: Thread, monitor: Monitor) -> tuple[Shares, str, tuple[Record, ...]]:
    stays, records = _stays(look, there, thread, monitor)
    shares = account(thread.samples, stays, monitor, there.window, there.error_ns)
    apart = [two.ts_ns - one.ts_ns for one, two in zip(thread.samples, thread.samples[1:], strict=False)]
    about = f"sampled each {sorted(apart)[len(apart) // 2] / S:.1f} s" if apart else "not sampled"
    about += ", with every long stay" if stays else ""
    return shares, f"{about}; each sum within {shares.error:.3f}", records


# What the BPF program vcpu recorded of one thread, on CLOCK_BOOTTIME.
def _stays(look: Look, there: There, thread: Thread, monitor: Monitor) -> tuple[list[Stay], tuple[Record, ...]]:
    clock = look.on_clock(MONO)
    if clock is None:
        return [], ()
    node, ahead_ns = clock
    since_ns, until_ns = there.window.since_ns + ahead_ns, there.window.until_ns + ahead_ns
    rows = look.rows(
        "bpf_vcpu",
        "select * from bpf_vcpu where machine = ? and boot_id = ? and pid = ? and ts_ns >= ? "
        "and ts_ns - duration_ns::bigint <= ? order by ts_ns - duration_ns::bigint, ts_ns",
        *node[:2], thread.tid, since_ns, until_ns,
    )  # fmt: skip
    stays: list[Stay] = []
    for row in rows:
        end_ns = row["ts_ns"] - ahead_ns
        begin_ns = end_ns - row["duration_ns"]
        stay = Stay(begin_ns, end_ns, _letters(row, thread, monitor, Span(begin_ns, end_ns)))
        if stays and abs(stays[-1].since_ns - begin_ns) <= _SAME_NS:
            stays[-1] = stay
        else:
            stays.append(stay)
    if not rows:
        return [], ()
    stream = Stream(*(rows[0][name] for name in Stream._fields))
    return stays, record("bpf_vcpu", stream, (row["position"] for row in rows))


def _letters(row: dict[str, Any], thread: Thread, monitor: Monitor, span: Span) -> str:
    state = row["state_name"]
    if state in _STATES:
        return _STATES[state]
    near = [each for each in thread.samples if span.since_ns - S <= each.ts_ns <= span.until_ns + S]
    if any(each.frozen for each in near):
        return "T"
    if row["io_wait"]:
        return "S"
    # Kernels before 6.1 know no state of their own for what the freezer froze.
    thawed = bool(near) and all(each.frozen is False for each in near)
    if state == "VCPU_UNINTERRUPTIBLE":
        return "S" if thawed else "ST"
    runs = any(run.since_ns <= span.since_ns and span.until_ns <= run.until_ns for run in monitor.running)
    return "SH" if thawed and runs else "STH"


# When the monitor said that the VM ran, and when not, on CLOCK_BOOTTIME.
def _monitor(look: Look, there: There, scope: Scope) -> tuple[Monitor, tuple[Record, ...]]:
    since_ns, until_ns = there.window.since_ns - PAD_NS, there.window.until_ns + 60 * S
    where = f"machine = ? and boot_id = ? and vm in ({_names(scope)}) and ts_ns between ? and ?"
    params = (*there.node[:2], since_ns, until_ns)
    changes: list[tuple[int, bool | None, dict[str, Any], str]] = [
        (row["ts_ns"], row["running"] if row["connected"] else None, row, "qmp_status")
        for row in look.rows("qmp_status", f"select * from qmp_status where {where}", *params)  # noqa: S608
    ]
    sql = f"select * from qmp_events where event in ('STOP', 'RESUME') and {where}"  # noqa: S608
    changes += [
        (_event_ns(look, there, row), row["event"] == "RESUME", row, "qmp_events")
        for row in look.rows("qmp_events", sql, *params)
    ]
    changes.sort(key=lambda each: (each[0], each[2]["position"]))
    paused: list[Span] = []
    running: list[Span] = []
    told: list[tuple[str, dict[str, Any]]] = []
    for i, (at_ns, runs, row, table) in enumerate(changes):
        last = i + 1 == len(changes)
        span = Span(at_ns, until_ns if last else changes[i + 1][0])
        seen = _watched(look, row, span)
        if runs is False:
            # That it was stopped until it was resumed needs nobody who watched in between.
            resumed = not last and changes[i + 1][1] is not None
            paused += [span] if resumed else seen
            if span.until_ns >= there.window.since_ns and at_ns <= there.window.until_ns:
                told += [(table, row), *([(changes[i + 1][3], changes[i + 1][2])] if resumed else [])]
        elif runs:
            running += seen
    records = {each for table, row in told for each in _of_row(table, row)}
    return Monitor(tuple(merged(paused)), tuple(merged(running))), tuple(sorted(records))


def _of_row(table: str, row: dict[str, Any]) -> tuple[Record, ...]:
    return record(table, Stream(*(row[name] for name in Stream._fields)), [row["position"]])


def _watched(look: Look, row: dict[str, Any], span: Span) -> list[Span]:
    stream = Stream(*(row[name] for name in Stream._fields))
    spans = [
        Span(max(each.since_ns, span.since_ns), min(each.until_ns, span.until_ns)) for each in look.seen(stream, span)
    ]
    return [each for each in spans if each.since_ns < each.until_ns]


# QEMU's own time of an event, which the agent may have read late.
def _event_ns(look: Look, there: There, row: dict[str, Any]) -> int:
    if row["realtime_ns"] is not None:
        node = there.node._replace(clock=REALTIME)
        found = look.graph.convert(row["realtime_ns"], node, node._replace(clock=BOOT), CUT_NS)
        if isinstance(found, Converted) and found.bound_ns < S:
            return found.ts_ns
    return int(row["ts_ns"])


def _mapped(look: Look, there: There, scope: Scope, mine: list[Thread]) -> Fact[bool]:
    rows = look.rows(
        "topology_vcpu",
        f"select * from topology_vcpu where machine = ? and boot_id = ? and vm in ({_names(scope)}) "  # noqa: S608
        "qualify row_number() over (partition by tid, start_ns, valid_from_ns order by position desc) = 1",
        *there.node[:2],
    )  # fmt: skip
    holding = [
        row for row in rows
        if row["valid_from_ns"] <= there.window.since_ns
        and (row["valid_until_ns"] is None or row["valid_until_ns"] >= there.window.until_ns)
    ]  # fmt: skip
    if not holding:
        return unknown("no row of topology_vcpu holds over the whole time")
    told = {(ALL_VCPUS if row["vcpu"] is None else row["vcpu"], row["tid"]) for row in holding}
    if not told <= {(thread.vcpu, thread.tid) for thread in mine}:
        return unknown("not every vCPU's thread was sampled")
    stream = Stream(*(holding[0][name] for name in Stream._fields))
    if look.watched(stream, there.window) is not Answer.YES:
        return unknown("the topology was not watched over the whole time")
    return known(True, "", record("topology_vcpu", stream, (row["position"] for row in holding)))


# Of the streams that say what vCPUs did.
def _lost(look: Look, scope: Scope, there: There) -> Fact[int]:
    clock = look.on_clock(MONO)
    used = [("vcpu_time", each, 0) for each in look.of_host("vcpu-time")]
    used += [("qmp_events", each, 0) for name in scope.names for each in look.of_host("qmp", name)]
    if clock is not None:
        used += [("bpf_vcpu", each, clock[1]) for each in look.of_host("bpf", "vcpu")]
    lost, counted = 0, False
    for table, stream, ahead_ns in used:
        rows = look.rows(
            table,
            f"select min(position) as first, max(position) as last from {table} "  # noqa: S608
            "where machine = ? and boot_id = ? and instance = ? and ts_ns between ? and ?",
            *stream[:2], stream.instance,
            there.window.since_ns + ahead_ns - 2 * S, there.window.until_ns + ahead_ns + 2 * S,
        )  # fmt: skip
        for row in rows:
            if row["first"] is not None:
                counted = True
                lost += look.lost(stream, row["first"], row["last"])
    if not counted:
        return unknown("no stream of the host was used")
    return known(lost, f"{lost:,} records of them were lost" if lost else "nothing was lost of them")


def _throttled(look: Look, there: There, mine: list[Thread]) -> list[Evidence]:
    clock = look.on_clock(MONO)
    if clock is None or not mine:
        return []
    tids = ", ".join(str(thread.tid) for thread in mine)
    rows = look.rows(
        "bpf_vcpu",
        "select vcpu, state_name, prev_comm, max(duration_ns) as longest_ns, min(position) as first, "  # noqa: S608
        "max(position) as last, layer, surface, instance, clock from bpf_vcpu "
        f"where machine = ? and boot_id = ? and pid in ({tids}) and ts_ns >= ? and ts_ns - duration_ns::bigint <= ? "
        f"and state_name in ('VCPU_WAITING', '{_THROTTLED}') group by all order by longest_ns desc limit 3",
        *clock[0][:2], there.window.since_ns + clock[1], there.window.until_ns + clock[1],
    )  # fmt: skip
    found = []
    for row in rows:
        why = (
            "its cgroup's time was used up"
            if row["state_name"] == _THROTTLED
            else f"{row['prev_comm'] or 'nobody known'} ran there"
        )
        text = f"vCPU {row['vcpu']} waited up to {row['longest_ns'] / S:.3f} s for a CPU: {why}"
        stream = Stream(*clock[0][:2], row["layer"], row["surface"], row["instance"], row["clock"])
        found.append(
            Evidence(
                "H3" if row["state_name"] == _THROTTLED else "H1",
                text,
                record("bpf_vcpu", stream, (row["first"], row["last"])),
            )
        )
    return found


def _names(scope: Scope) -> str:
    return ", ".join(map(literal, scope.names))
