"""What the lake says around an incident beside its lines: clocks, streams and their watching, arrivals, costs.

Tables: coverage, losses, kmsg, topology_vcpu, bpf_counts, procfs_hangs; streams from the books. Everything is of the
incident's time with a margin on both sides; what cannot be placed in it says why.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import duckdb

from consumers.clocks.graph import BOOT, MONO
from consumers.coverage import Answer, Span, tells, watched
from consumers.incidents import utc
from consumers.incidents.incident import Incident
from consumers.incidents.stored import Stored
from consumers.incidents.utc import Utc
from consumers.lake.storage import Storage
from consumers.timeline.scope import told
from consumers.verdict.look import Look, S, interval, look, node_of, record_of
from schemas.errors import StorageError
from schemas.stream import Stream

#: So much before and behind an incident belongs to it.
BEFORE_NS: Final = 5 * S
BEHIND_NS: Final = 5 * S
_SAMPLES_NS: Final = 60 * S
_STREAMS_MAX: Final = 512
_THRESHOLDS: Final = ("watchdog_thresh_s", "rcu_stall_timeout_s", "hung_task_timeout_s")
_COSTS: Final = """
select program, loaded_ns, min_by(runs, ts_ns) as runs0, max_by(runs, ts_ns) as runs1,
       min_by(run_ns, ts_ns) as run0_ns, max_by(run_ns, ts_ns) as run1_ns,
       min(ts_ns) as since_ns, max(ts_ns) as until_ns
from bpf_counts where machine = ? and boot_id = ? and cpu is null and ts_ns between ? and ? group by all order by all
"""
_READ: Final = """
select surface, sum(next_position - first_position)::bigint as records, count(*) as beats from coverage
where machine = ? and boot_id = ? and boottime_ns >= ? and boottime_ns - (until_realtime_ns - since_realtime_ns) <= ?
group by all order by all
"""


class Watch(NamedTuple):
    """One stream: whether it was watched (None: its clock does not compare), how long not."""

    stream: Stream
    answer: Answer | None
    blind_ns: int


class Arrival(NamedTuple):
    """One of its records: when the kernel printed it, its agent read it (by its CLOCK_REALTIME), and it came."""

    seq: int
    ts_ns: int
    captured_ns: int
    arrival_ns: int
    printed: Utc | None


class Cost(NamedTuple):
    """What a BPF program took between two samples, all CPUs together; None where the kernel did not count it."""

    machine: str
    program: str
    runs: int | None
    run_ns: int | None
    over_ns: int


class Threshold(NamedTuple):
    """A threshold of the guest's kernel: as it was first read in this boot, and last before the incident's end."""

    name: str
    first: int
    last: int


class Vcpu(NamedTuple):
    """Which thread of the host ran a CPU of the guest."""

    cpu: int
    tid: int


class Unplaced(NamedTuple):
    """Machines by which of their clocks does not say when the incident was."""

    boot: tuple[str, ...] = ()
    mono: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Around:
    """`at` is the incident on printk's clock, `since` and `until` are its ends in UTC, or why not; `host` likewise.

    `vm` is how the timeline calls the VM, empty where no host names one. `behind` is the newest record of the boot.
    `unplaced` are the machines on whose CLOCK_BOOTTIME, and those on whose CLOCK_MONOTONIC, its time is not known:
    of these there are no `read` and `thresholds`, and no `costs`, whatever the lake has.
    """

    at: Span | None
    since: Utc | str
    until: Utc | str
    host: str
    host_at: Span | None
    host_error_ns: int
    host_why: str
    vm: str
    machines: tuple[str, ...]
    host_boot: str
    watches: tuple[Watch, ...]
    arrivals: tuple[Arrival, ...]
    behind: tuple[int, int] | None
    costs: tuple[Cost, ...]
    read: tuple[tuple[str, str, int, int], ...]
    thresholds: tuple[Threshold, ...]
    vcpus: tuple[Vcpu, ...]
    unplaced: Unplaced


def around(storage: Storage, stored: Stored) -> Around:
    """Return what the lake says around an incident.

    Raises:
        StorageError: the disk refuses, or an object is damaged.
    """
    incident = stored.incident
    at = interval(incident)
    # Without a time the place of its records still tells when they came.
    with_time = at or Span(0, 1)
    try:
        with look(storage, incident, with_time, ()) as found:
            return _around(found, stored, at)
    except duckdb.Error as e:
        raise StorageError(f"the lake cannot be read: {e}") from e


def _around(found: Look, stored: Stored, at: Span | None) -> Around:
    incident, there = stored.incident, found.there
    source = incident.source[:2]
    hosts = set() if found.scope is None else set(found.scope.hosts)
    ends: list[Utc | str] = ["its lines have no time of the kernel's clock"] * 2
    if at is not None:
        ends = [utc.of_kernel(found.graph, source, hosts, ns, node_of(incident).clock) for ns in at]
    boots = _boots(found, at)
    return Around(
        at,
        ends[0],
        ends[1],
        "" if there is None else there.node.machine,
        None if there is None or at is None else there.window,
        0 if there is None else there.error_ns,
        found.why,
        # The uuid where the VM has one, else what its host calls it.
        "" if found.scope is None else found.scope.title.removeprefix("VM ").partition(", uuid ")[0],
        (source[0], *sorted(hosts)),
        "" if there is None else there.node.boot_id,
        tuple(_watches(found, boots)),
        tuple(_arrivals(found, incident, hosts)),
        _behind(found, incident),
        tuple(each for boot in boots for each in _costs(found, boot)),
        tuple(each for boot in boots for each in _read(found, boot)),
        tuple(_thresholds(found, boots)),
        tuple(_vcpus(found, incident)),
        Unplaced(
            tuple(each.machine for each in boots if each.boot is None),
            tuple(each.machine for each in boots if each.mono is None),
        ),
    )


class _Boot(NamedTuple):
    # A boot of the guest or of its host, and the time in question on its CLOCK_BOOTTIME and CLOCK_MONOTONIC.
    machine: str
    boot_id: str
    boot: Span | None
    mono: Span | None


def _boots(found: Look, at: Span | None) -> list[_Boot]:
    there, source = found.there, found.incident.source
    guest = None if at is None else found.guest(BOOT)
    guest_mono = None if at is None else found.guest(MONO)
    boots = [_Boot(*source[:2], _wide(guest), _wide(guest_mono))]
    if there is not None and at is not None and there.node[:2] != source[:2]:
        ahead = found.on_clock(MONO)
        mono = None if ahead is None else Span(*(ns + ahead[1] for ns in there.window))
        boots.append(_Boot(*there.node[:2], _wide(there.window), _wide(mono)))
    return boots


def _wide(span: Span | None) -> Span | None:
    return None if span is None else Span(span.since_ns - BEFORE_NS, span.until_ns + BEHIND_NS)


def _watches(found: Look, boots: list[_Boot]) -> Iterable[Watch]:
    spans = {boot[:2]: boot.boot for boot in boots}
    hosts = {each.machine for each in found.streams} - {boots[0].machine}
    for stream in found.streams[:_STREAMS_MAX]:
        if not tells(stream) or (found.scope is not None and not told(stream, found.scope)):
            continue
        if stream[:2] in spans:
            span = spans[stream[:2]]
            if span is None:
                yield Watch(stream, None, 0)
                continue
            seen = watched(found.seen(stream, span), *span)
            yield Watch(stream, seen.answer, sum(each.until_ns - each.since_ns for each in seen.blind))
        elif len(boots) == 1 and stream.machine in hosts:
            yield Watch(stream, None, 0)


# Of the first line, of that which is the root's, and of the newest.
def _arrivals(found: Look, incident: Incident, hosts: set[str]) -> Iterable[Arrival]:
    source = incident.source[:2]
    places = sorted({incident.first_place, incident.root.place, incident.last_place})
    table, position = record_of(incident)
    # A monitor's records have no time of their own at which an agent read them.
    captured = "captured_ns" if table == "kmsg" else "arrival_ns"
    rows = found.rows(
        table,
        f"select {position} as seq, ts_ns, {captured} as captured_ns, arrival_ns from {table} where machine = ? "  # noqa: S608
        f"and boot_id = ? and list_contains(?, {position}) order by all",
        *source, places,
    )  # fmt: skip
    for row in rows:
        when = utc.of_kernel(found.graph, source, hosts, row["ts_ns"], node_of(incident).clock)
        printed = when if isinstance(when, Utc) else None
        yield Arrival(row["seq"], row["ts_ns"], row["captured_ns"], row["arrival_ns"], printed)


def _behind(found: Look, incident: Incident) -> tuple[int, int] | None:
    if incident.vm:
        return None
    sql = "select max(seq) as seq, max_by(ts_ns, seq) as ts_ns from kmsg where machine = ? and boot_id = ?"
    rows = found.rows("kmsg", sql, *incident.source[:2])
    return None if not rows or rows[0]["seq"] is None else (rows[0]["seq"], rows[0]["ts_ns"])


def _costs(found: Look, boot: _Boot) -> Iterable[Cost]:
    if boot.mono is None:
        return
    near = (boot.mono.since_ns - _SAMPLES_NS, boot.mono.until_ns + _SAMPLES_NS)
    for row in found.rows("bpf_counts", _COSTS, *boot[:2], *near):
        yield Cost(
            boot.machine,
            row["program"],
            _grown(row, "runs0", "runs1"),
            _grown(row, "run0_ns", "run1_ns"),
            row["until_ns"] - row["since_ns"],
        )


def _grown(row: dict[str, Any], first: str, last: str) -> int | None:
    return None if row[first] is None or row[last] is None else int(row[last] - row[first])


def _read(found: Look, boot: _Boot) -> Iterable[tuple[str, str, int, int]]:
    if boot.boot is not None:
        for row in found.rows("coverage", _READ, *boot[:2], *boot.boot):
            yield boot.machine, row["surface"], row["records"], row["beats"]


def _thresholds(found: Look, boots: list[_Boot]) -> Iterable[Threshold]:
    if boots[0].boot is None:
        return
    rows = found.rows(
        "procfs_hangs",
        "select * from procfs_hangs where machine = ? and boot_id = ? and ts_ns <= ? order by ts_ns",
        *boots[0][:2], boots[0].boot.until_ns,
    )  # fmt: skip
    for name in _THRESHOLDS:
        known = [row[name] for row in rows if row[name] is not None]
        if known:
            yield Threshold(name, known[0], known[-1])


def _vcpus(found: Look, incident: Incident) -> Iterable[Vcpu]:
    if found.there is None or found.scope is None:
        return
    rows = found.rows(
        "topology_vcpu",
        "select distinct vcpu, tid from topology_vcpu where machine = ? and boot_id = ? and list_contains(?, vm) "
        "and (vcpu is null or list_contains(?, vcpu)) order by all",
        *found.there.node[:2], list(found.scope.names), list(incident.cpus),
    )  # fmt: skip
    for row in rows:
        # One thread may run all of them.
        for cpu in incident.cpus if row["vcpu"] is None else (row["vcpu"],):
            yield Vcpu(cpu, row["tid"])
