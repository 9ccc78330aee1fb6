"""How the rows of each table become rows of a timeline: SQL, over the columns that consumers/TABLES.md describes.

What only repeats what was said is left out; what is a sum since boot becomes what it grew by, from reading to reading.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from consumers.export.scope import literal

S: Final = 1_000_000_000
#: Of a text so many characters are shown at most.
TEXT_MAX: Final = 4096
#: More rows of one table, stream and second than this are counted, not listed.
LISTED_PER_S_MAX: Final = 20

_CHANGED: Final = "said is distinct from said_before"
#: What says where and when a row is, not what it says.
_FRAME: Final = frozenset(
    {"machine", "boot_id", "layer", "surface", "instance", "clock", "position", "ring_position", "ts_ns", "arrival_ns",
     "cpu_seq", "page", "surplus", "flags", "preempt_count", "irqs_off", "need_resched", "need_resched_lazy",
     "preempt_resched", "hardirq", "softirq", "nmi", "bh_off", "preempt_depth", "migrate_disable", "other"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listing:
    """The select list of one table.

    `text` and `level` are what is shown; `ts`, `until`, `clock` the row's own time, `until` null for a moment.
    `derived` are columns from the row before (`lag(...) over w`) of the same stream and the columns `per`; `where`,
    which chooses rows, may use these. `pad_ns` is by how much more than the window is read, for the rows before.
    """

    text: str
    level: str = "null"
    ts: str = "ts_ns"
    until: str = "null"
    clock: str = "clock"
    position: str = "position"
    derived: str = ""
    per: str = ""
    where: str = "true"
    pad_ns: int = 0
    dense: bool = False


def _changes(text: str, said: str, per: str = "", level: str = "null") -> Listing:
    return Listing(
        text, level, derived=f"row({said}) as said, lag(row({said})) over w as said_before", per=per, where=_CHANGED
    )


def _grown(text: str, derived: str, where: str, per: str = "", level: str = "null") -> Listing:
    derived = f"lag(ts_ns) over w as since_ns, {derived}"
    return Listing(
        text,
        level,
        "since_ns",
        "ts_ns",
        derived=derived,
        per=per,
        where=f"since_ns is not null and {where}",
        pad_ns=15 * S,
    )


_HANGS: Final = (
    "hung_tasks", "hung_task_warnings", "softlockups", "hardlockups", "rcu_stalls", "oopses", "warnings", "tainted"
)  # fmt: skip


def _named(names: Sequence[str]) -> str:
    return f"concat_ws(' ', {', '.join(_pair(name, name) for name in names)})"


# Nothing for null; what is text in the column `value` under the name `name`.
def _pair(name: str, value: str) -> str:
    quoted = '"' + value.replace('"', '""') + '"'
    return f"{literal(name + '=')} || cast({quoted} as varchar)"


#: The roles of threads beside the vCPUs, in words.
_HELPER: Final = """concat_ws(' ', case role when 'main' then 'main loop' when 'iothread' then 'I/O thread'
  when 'daemon' then 'thread of a daemon,' else role end, name)"""
#: Tables of samples of threads, and what is said of whose they are.
SAMPLED: Final = {"vcpu_time": "coalesce('vCPU ' || vcpu, 'thread ' || tid)", "vmm_thread_time": _HELPER}
_BAD_EVENTS: Final = "('GUEST_PANICKED', 'GUEST_CRASHLOADED', 'BLOCK_IO_ERROR', 'MEMORY_FAILURE', 'WATCHDOG')"
_LISTINGS: Final = {
    "kmsg": Listing("message", "level", position="seq"),
    "qmp_events": Listing(
        "coalesce(event || coalesce(' ' || data, ''), 'a bad line of the monitor: ' || reason)",
        f"case when event in {_BAD_EVENTS} then 3 when event in ('STOP', 'RESET', 'SHUTDOWN') then 4 else 5 end",
        ts="coalesce(realtime_ns, ts_ns)",
        clock="case when realtime_ns is null then clock else 'realtime' end",
        # The agent may have read it late, above all where the host was in trouble.
        pad_ns=60 * S,
    ),
    "qmp_status": _changes(
        "case when connected then 'QEMU answers: ' else 'QEMU does not answer: ' end"
        " || concat_ws(', ', status, case when running then 'vCPUs may run' else 'vCPUs do not run' end, detail)",
        "connected, status, running, detail",
        "instance",
        "case when connected and running then 6 else 4 end",
    ),
    "qmp_blocks": _changes(
        "concat_ws(' ', 'disk', coalesce(device, node), io_status, file)",
        "io_status, file, bps, iops",
        "instance, device, node",
        "case when io_status in ('failed', 'nospace') then 3 else 6 end",
    ),
    "topology_vm": _changes(
        "concat_ws(' ', case when valid_until_ns is null then 'runs:' else 'is gone:' end, vm, 'process', pid, vmm,"
        " vcpus || ' vCPUs')",
        "start_ns, valid_until_ns, vcpus, cgroup",
        "vm, pid",
    ),
    "topology_vcpu": _changes(
        "concat_ws(' ', 'vCPU', vcpu, case when valid_until_ns is null then 'is' else 'was' end, 'thread', tid,"
        " 'on CPUs', cpus_allowed)",
        "start_ns, valid_until_ns, cpus_allowed",
        "vm, tid",
    ),
    "topology_thread": _changes(
        f"concat_ws(' ', {_HELPER}, case when valid_until_ns is null then 'is' else 'was' end, 'thread', tid)",
        "start_ns, valid_until_ns",
        "vm, tid",
    ),
    "relay_guests": _changes(
        "concat_ws(', ', case when connected then 'the port is open' else 'the port is closed' end,"
        " 'generation ' || generation, frames || ' frames', mismatches || ' mismatches', 'refused: ' || refused)",
        "connected, connections, generation, mismatches, refused",
        "vm",
    ),
    "relay_refused": Listing(
        "'refused of ' || vm || ': ' || reason || ', ' || size_bytes || ' bytes'", "4", dense=True
    ),
    "procfs_hangs": _changes(_named(_HANGS), ", ".join(_HANGS)),
    "procfs_pressure": _grown(
        "format('{} pressure, {}: stalled {:.1f} % of {:.1f} s', resource, stalled,"
        " 100.0 * stalled_ns / (ts_ns - since_ns), (ts_ns - since_ns) / 1e9)",
        "total_ns - lag(total_ns) over w as stalled_ns",
        "ts_ns > since_ns and stalled_ns * 100 >= ts_ns - since_ns",
        "resource, stalled",
        "case when stalled_ns * 4 >= ts_ns - since_ns then 4 else 6 end",
    ),
    "procfs_cpu": _grown(
        "format('stolen by the host: {:.2f} s of CPU time in {:.1f} s', stolen_ns / 1e9, (ts_ns - since_ns) / 1e9)",
        "steal_ns - lag(steal_ns) over w as stolen_ns",
        "cpu is null and stolen_ns > 0",
        "cpu",
        "case when stolen_ns * 4 >= ts_ns - since_ns then 4 else 6 end",
    ),
    "procfs_memory": _grown(
        "(oom_kills - killed_before) || ' processes killed for want of memory'",
        "lag(oom_kills) over w as killed_before",
        "oom_kills > killed_before",
        "oom_kills is null",
        "3",
    ),
    "bpf_vcpu": Listing(
        "format('vCPU {} {} for {:.3f} s{}, CPU {}', vcpu, lower(replace(state_name, 'VCPU_', '')), duration_ns / 1e9,"
        " case when open then ' and goes on' else '' end, on_cpu)",
        "case when state_name in ('VCPU_RUNNING', 'VCPU_SLEEPING') then 6 else 4 end",
        "ts_ns - duration_ns",
        "ts_ns",
        derived="lead(ts_ns - duration_ns) over w as next_ns",
        per="pid",
        # Of what is told each second only the last.
        where="not open or next_ns is null or abs(next_ns - (ts_ns - duration_ns)) > 1000000",
        dense=True,
    ),
}  # fmt: skip
#: What `bpf_vcpu` must have for that.
_NEEDED: Final = {"bpf_vcpu": {"vcpu", "state_name", "duration_ns", "open", "on_cpu", "pid"}}
#: What a summary or another row says better.
_LEFT_OUT: Final = frozenset(
    {"artifacts", "bpf_counts", "bpf_histograms", "clock_pings", "clock_readings", "coverage", "dead_letters", "losses",
     "procfs_disk", "procfs_text", "qmp_blockstats", "qmp_exits", "vcpu_exits"}
)  # fmt: skip
#: The surface of the tables whose names do not begin with it.
_SURFACES: Final = {"trace": "ftrace", "vcpu": "vcpu-time", "vmm": "vcpu-time"}


def taken(table: str, *, each: bool) -> bool:
    """Return whether rows of `table` are listed; with `each` also those that are else summed up."""
    return table not in _LEFT_OUT and (each or not counted(table))


def counted(table: str) -> bool:
    """Return whether rows of `table` are not listed but summed up."""
    return table.startswith("trace_") or table in SAMPLED


def surface_of(table: str) -> str:
    """Return the surface that the rows of `table` are of."""
    first = table.partition("_")[0]
    return _SURFACES.get(first, first)


def listing(table: str, columns: Sequence[str]) -> Listing:
    """Return how `table`, which has `columns`, is listed."""
    known = _LISTINGS.get(table)
    if known is not None and _NEEDED.get(table, set()) <= set(columns):
        return known
    shown = [name for name in columns if name not in _FRAME and f"{name}_name" not in columns]
    pairs = ", ".join(_pair(name.removesuffix("_name"), name) for name in shown)
    text = f"concat_ws(' ', {literal(table.partition('_')[2])}, {pairs or 'null'})"
    position = "page * 65536 + position" if table.startswith("trace_") else "position"
    return Listing(text, position=position, dense=not counted(table))


def listing_sql(source: str, how: Listing, limit: int) -> str:
    """Return the statement that lists the rows of `source`, a FROM item; those before `window_ns` are only read."""
    per = ", ".join(part for part in ("machine, boot_id, layer, instance", how.per) if part)
    inner = source
    if how.derived:
        window = f"window w as (partition by {per} order by {how.position})"
        inner = f"(select *, {how.derived} from {source} {window})"  # noqa: S608
    dense = f"qualify count(*) over ({_SECOND}) <= {LISTED_PER_S_MAX}" if how.dense else ""
    return (
        f"select machine, boot_id, layer, surface, instance, clock, {how.clock} as own_clock, "  # noqa: S608
        f"{how.position} as at_position, {how.ts} as own_ns, {how.until} as own_until_ns, arrival_ns, "
        f"{how.level} as own_level, left(cast({how.text} as varchar), {TEXT_MAX}) as own_text "
        f"from {inner} where (ts_ns is null or ts_ns >= window_ns) and {how.where} {dense} "
        f"order by own_ns, at_position limit {limit}"
    )


_SECOND: Final = f"partition by machine, boot_id, layer, instance, clock, ts_ns // {S}"
_COUNTS: Final = """
select instance, ts_ns // {second} as second, count(*), min(ts_ns), max(ts_ns), min(arrival_ns)
from {source} where {where} group by instance, second {having} order by 4 limit {limit}
"""


def counts_sql(source: str, how: Listing, limit: int, *, rest: bool) -> str:
    """Return the statement that counts the rows of `source` for each second; `rest`: only those that are not listed.

    Each row has the stream's instance; the second, and how many; the first and the last time, the first arrival.
    """
    having = f"having count(*) > {LISTED_PER_S_MAX}" if rest else ""
    where = "true" if how.derived else how.where
    return _COUNTS.format(source=source, where=where, second=S, having=having, limit=limit)


def threads_sql(table: str, source: str, limit: int) -> str:
    """Return the statement that sums samples of threads up: what each did for how long, until it did something else.

    Each row has the six names of a stream; what the thread is, its state and whether it was frozen; the time from and
    to; how long it ran and how long it waited for a CPU (null where the kernel does not say); the first arrival.
    """
    return _SPANS.format(who=SAMPLED[table], source=source, limit=limit)


_SPANS: Final = """
with samples as (
  select *, {who} as who, lag(ts_ns) over w as since_ns, run_ns - lag(run_ns) over w as ran_ns,
         wait_ns - lag(wait_ns) over w as waited_ns
  from {source} window w as (partition by machine, boot_id, vm, pid, tid, start_ns order by position)
), judged as (
  -- While it runs, the state at the moment of a sample says nothing.
  select *, case when ran_ns * 2 >= ts_ns - since_ns then 'ran'
                 else concat_ws(' ', waited_ns * 2 >= ts_ns - since_ns, state, frozen) end as doing
  from samples where since_ns is not null
), parted as (
  select *, case when doing is distinct from lag(doing) over w then 1 else 0 end as other_
  from judged window w as (partition by machine, boot_id, vm, pid, tid, start_ns order by position)
), numbered as (
  select *, sum(other_) over w as number
  from parted window w as (partition by machine, boot_id, vm, pid, tid, start_ns order by position)
)
select machine, boot_id, layer, surface, instance, clock, who, any_value(state), any_value(frozen),
       min(since_ns), max(ts_ns), sum(ran_ns)::bigint, sum(waited_ns)::bigint, min(arrival_ns)
from numbered group by machine, boot_id, layer, surface, instance, clock, vm, pid, tid, start_ns, who, number
having max(ts_ns) >= min(window_ns) order by min(since_ns), tid limit {limit}
"""
