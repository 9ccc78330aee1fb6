"""Where to look in a lake for what an incident needs: whose it is, when that was on the host's clock, which rows.

A layer that is withheld is left out of every table, as if nothing of it had ever come.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import duckdb

from consumers.clock_graph import read_graph
from consumers.clocks.graph import BOOT, MONO, PRINTK, REALTIME, Converted, Graph, Node
from consumers.coverage import Answer, Span, read_spans, watched
from consumers.export.scope import literal
from consumers.incidents.incident import Incident
from consumers.lake.chain import FileEntry
from consumers.lake.damage import readable
from consumers.lake.layout import HOUR_NS, hour_of
from consumers.lake.snapshot import Snapshot, snapshot
from consumers.lake.storage import Storage
from consumers.lake.tip import all_streams
from consumers.reports.report import Kind
from consumers.timeline import scope as scopes
from consumers.timeline.scope import VMS, Scope
from consumers.verdict.conditions import of_report
from consumers.verdict.verdict import Record
from consumers.views import connect
from schemas.errors import UsageError
from schemas.stream import Layer, Stream

S: Final = 1_000_000_000
#: What a kind's report tells of, where it has no length (kernel/watchdog.c, kernel/time/clocksource.c).
_LENGTHS_S: Final = {Kind.HARD_LOCKUP: 10.0, Kind.CLOCKSOURCE_UNSTABLE: 1.0}
_LENGTH_S: Final = 10.0
#: Readings of clocks that arrived so long before or behind are not needed.
_READINGS_HOURS: Final = 24
_CLOCK_TABLES: Final = ("clock_readings", "clock_pings", "coverage")
_WHO_TABLES: Final = ("topology_vm", "topology_vcpu", "relay_guests")
#: What is read near the time in question, and what is read whole; a view of each takes its time.
_TABLES: Final = (
    "kmsg", "vcpu_time", "vmm_thread_time", "qmp_events", "qmp_status", "qmp_blocks", "qmp_blockstats",
    "qmp_exits", "vcpu_exits",
    "procfs_cpu", "procfs_disk", "procfs_hangs", "procfs_pressure", "bpf_vcpu", "bpf_block_io", "bpf_hang",
    "bpf_counts",
    "trace_kvm_entry", "trace_kvm_exit", "trace_kvm_userspace_exit", "trace_kvm_write_tsc_offset",
)  # fmt: skip
_WHOLE: Final = ("losses", "incidents")
_OPENED: Final = frozenset((*_CLOCK_TABLES, *_WHO_TABLES, *_TABLES, *_WHOLE))
#: Of a host, rows so long before are read too: what a monitor said last, and readings that begin a span.
PAD_NS: Final = 3600 * S
_BEHIND_NS: Final = 60 * S
#: How exactly the last time is sought that is known on two clocks.
_LAST_NS: Final = 10_000_000
#: Times of the kernel log are cut to whole us.
CUT_NS: Final = 999
_OUTSIDE: Final = (Layer.HOST, Layer.VIRTUAL_PLATFORM, Layer.HYPERVISOR)
#: Where views of the lake are: `main` alone is also the name of the schema of those that are made here.
_LAKE: Final = "memory.main"
_UUID_CHARS: Final = 32


@dataclass(frozen=True, slots=True)
class There:
    """The time in question on the host's CLOCK_BOOTTIME, whose ends are known within `error_ns`.

    Of a guest that never said again what time it was, the last `cut_ns` are not known and not in `window`.
    """

    node: Node
    window: Span
    error_ns: int
    cut_ns: int = 0

    @property
    def length_ns(self) -> int:
        """How long the time in question is, with what is not known of it."""
        return self.window.until_ns - self.window.since_ns + self.cut_ns


@dataclass(frozen=True, slots=True)
class Look:
    """What is looked at. `window` is the time in question on the guest's printk, `there` on the host's clock.

    `why` says why there is no `there`; `streams` are those of guest and hosts that are not withheld.
    """

    connection: duckdb.DuckDBPyConnection
    incident: Incident
    scope: Scope | None
    graph: Graph
    window: Span
    there: There | None
    why: str
    streams: tuple[Stream, ...]
    tables: frozenset[str]

    def rows(self, table: str, sql: str, *params: Any) -> list[dict[str, Any]]:
        """Return the rows of a statement over `table` by their columns; none where the lake has no such table."""
        # Of a table that is not opened nothing would be found, whatever the lake has.
        assert table in _OPENED, table
        if table not in self.tables:
            return []
        found = self.connection.execute(sql, list(params))
        names = [column[0] for column in found.description or []]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def of_host(self, surface: str, instance: str | None = None) -> list[Stream]:
        """Return the streams of one surface of the host in question; `instance`, where that is given."""
        if self.there is None:
            return []
        node = self.there.node
        mine = [each for each in self.streams if each[:2] == node[:2] and each.surface == surface]
        return [each for each in mine if instance is None or each.instance == instance]

    def watched(self, stream: Stream, span: Span) -> Answer:
        """Return whether `stream` was watched over a time on its machine's CLOCK_BOOTTIME."""
        return watched(self.seen(stream, span), *span).answer

    def seen(self, stream: Stream, span: Span) -> list[Span]:
        """Return the spans near a time in which `stream` was watched."""
        if "coverage" not in self.tables:
            return []
        return read_spans(self.connection, stream.machine, stream.boot_id, *span).get(stream, [])

    def lost(self, stream: Stream, first: int, last: int) -> int:
        """Return how many records were lost of positions from `first` to `last`, 1 for an unknown number."""
        rows = self.rows(
            "losses",
            "select sum(coalesce(count, 1)) as lost from losses where machine = ? and boot_id = ? and surface = ? "
            "and instance = ? and first_position <= ? and first_position + coalesce(count, 1) > ?",
            *stream[:2], stream.surface, stream.instance, last + 1, first,
        )  # fmt: skip
        return int(rows[0]["lost"] or 0) if rows else 0

    def on_clock(self, clock: str) -> tuple[Node, int] | None:
        """Return another clock of the host, and by how much it is ahead of its CLOCK_BOOTTIME about then."""
        if self.there is None:
            return None
        node = self.there.node._replace(clock=clock)
        found = self.graph.convert(self.there.window.since_ns, self.there.node, node)
        if not isinstance(found, Converted):
            return None
        return node, found.ts_ns - self.there.window.since_ns

    def guest(self, clock: str) -> Span | None:
        """Return the time in question on another clock of the guest; None where that does not compare."""
        mine = node_of(self.incident)
        ends = [self.graph.convert(ns, mine, mine._replace(clock=clock), CUT_NS) for ns in self.window]
        known = [end.ts_ns for end in ends if isinstance(end, Converted)]
        return Span(*known) if len(known) == len(ends) and known[0] < known[1] else None


def record_of(incident: Incident) -> tuple[str, str]:
    """Return the table of an incident's first line, and its column of positions."""
    table = of_report(incident).table
    return table, "seq" if table == "kmsg" else "position"


def record(table: str, stream: Stream, positions: Iterable[int]) -> tuple[Record, ...]:
    """Return where rows of a stream are stored, by the first and last of their positions."""
    found = sorted(positions)
    return (Record(table, stream.machine, stream.surface, stream.instance, found[0], found[-1]),) if found else ()


def of_rows(table: str, rows: Iterable[dict[str, Any]]) -> tuple[Record, ...]:
    """Return where these rows of a table, which are of any streams, are stored."""
    found: dict[Stream, list[int]] = {}
    for row in rows:
        found.setdefault(Stream(*(row[name] for name in Stream._fields)), []).append(row["position"])
    return tuple(each for stream, positions in found.items() for each in record(table, stream, positions))


def node_of(incident: Incident) -> Node:
    """Return the clock of an incident's times: printk's, or of what a host says of its VM the host's CLOCK_BOOTTIME."""
    return Node(*incident.source[:2], BOOT if incident.vm else PRINTK)


def interval(incident: Incident) -> Span | None:
    """Return the time in question on printk's clock: from when it began, as long as it took; None without any time."""
    root = incident.root
    length = incident.duration or root.duration
    length_s = _LENGTHS_S.get(root.kind, _LENGTH_S) if length is None or length.high <= 0 else length.high
    if incident.since_ns is not None and length is not None:
        return Span(incident.since_ns, incident.since_ns + max(1, int(length_s * S)))
    if root.ts_ns is None:
        return None
    return Span(root.ts_ns - int(length_s * S), root.ts_ns)


@contextmanager
def look(storage: Storage, incident: Incident, window: Span, withhold: Collection[str]) -> Iterator[Look]:
    """Open what concerns `incident`, of `window` on its machine's printk.

    Raises:
        StorageError: the disk refuses, or an object is damaged.
    """
    taken = snapshot(storage)
    streams = [each for each in all_streams(storage) if each.layer not in withhold]
    arrived = _arrived(storage, taken, incident, window)
    connection = _connect(storage, _clock_files(taken, arrived), withhold)
    try:
        scope = _scope(connection, incident, streams)
        machines = sorted({incident.source.machine} | (set() if scope is None else scope.hosts | scope.machines))
        for table in _CLOCK_TABLES:
            connection.execute(f"create table narrowed as from {table} where list_contains(?, machine)", [machines])
            connection.execute(f"drop view if exists temp.{table}")
            connection.execute(f"create temp table {table} as from narrowed")
            connection.execute("drop table narrowed")
        graph = read_graph(connection)
        find = _there_of_vm if incident.vm else _there
        there, why = find(graph, incident, scope, window, streams)
    finally:
        connection.close()
    mine = tuple(each for each in streams if each.machine in machines)
    kept = readable(storage, _near(taken, arrived, incident, window, there, graph))
    connection = _connect(storage, kept, withhold)
    try:
        tables = frozenset(kept.files)
        yield Look(connection, incident, scope, graph, window, there, why, mine, tables)
    finally:
        connection.close()


# A view of its own goes before the one of the same name.
def _connect(storage: Storage, taken: Snapshot, withhold: Collection[str]) -> duckdb.DuckDBPyConnection:
    connection = connect(storage, taken, " ".join(("ts_ns", *taken.files)))
    layers = ", ".join(map(literal, sorted(withhold)))
    for table in taken.files if withhold else ():
        name = '"' + table.replace('"', '""') + '"'
        if "layer" in connection.table(f"{_LAKE}.{name}").columns:
            sql = f"create temp view {name} as from {_LAKE}.{name} where layer is null or layer not in ({layers})"
            connection.execute(sql)
    return connection


# When the records of the report came, on the log's clock.
def _arrived(storage: Storage, taken: Snapshot, incident: Incident, window: Span) -> int | None:
    table, position = record_of(incident)
    files = [each for each in taken.files.get(table, []) if _overlaps(each, Span(window.since_ns, window.until_ns + S))]
    connection = connect(storage, taken.some({table: files}), table)
    try:
        sql = f"select min(arrival_ns) from {table} where machine = ? and boot_id = ? and {position} between ? and ?"  # noqa: S608
        places = (incident.root.place, max(incident.root.place, incident.root.last_place))
        ((arrived,),) = connection.execute(sql, [*incident.source[:2], *places]).fetchall()
    finally:
        connection.close()
    return None if arrived is None else int(arrived)


def _clock_files(taken: Snapshot, arrived_ns: int | None) -> Snapshot:
    files = {table: taken.files.get(table, []) for table in (*_CLOCK_TABLES, *_WHO_TABLES)}
    if arrived_ns is not None:
        hour = arrived_ns // HOUR_NS
        for table in _CLOCK_TABLES:
            files[table] = [each for each in files[table] if abs(hour_of(each.key) - hour) <= _READINGS_HOURS]
    return taken.some(files)


def _overlaps(entry: FileEntry, span: Span) -> bool:
    if entry.min_ts_ns is None or entry.max_ts_ns is None:
        return True
    return entry.min_ts_ns <= span.until_ns and entry.max_ts_ns >= span.since_ns


# Files that can have rows near the time in question on any clock of guest and host.
def _near(
    taken: Snapshot, arrived_ns: int | None, incident: Incident, window: Span, there: There | None, graph: Graph
) -> Snapshot:
    guest = node_of(incident)
    known = [(guest, window)] if there is None else [(guest, window), (there.node, there.window)]
    spans = []
    for node, span in known:
        for clock in (PRINTK, MONO, BOOT, REALTIME):
            found = [graph.convert(ns, node, node._replace(clock=clock)) for ns in span]
            ends = [each.ts_ns for each in found if isinstance(each, Converted)]
            if ends:
                spans.append(Span(min(ends) - PAD_NS, max(ends) + _BEHIND_NS))
    spans.append(Span(window.since_ns - PAD_NS, window.until_ns + _BEHIND_NS))
    files = _clock_files(taken, arrived_ns).files
    for table in _TABLES:
        mine = taken.files.get(table, [])
        files[table] = [entry for entry in mine if any(_overlaps(entry, span) for span in spans)]
    files |= {table: taken.files.get(table, []) for table in _WHOLE}
    return taken.some({table: entries for table, entries in files.items() if entries})


def _scope(connection: duckdb.DuckDBPyConnection, incident: Incident, streams: list[Stream]) -> Scope | None:
    machine = incident.source.machine
    if incident.vm:
        return _scope_of_vm(connection, incident, streams)
    names = {machine}
    if len(machine) == _UUID_CHARS:
        # systemd takes the uuid of a VM for its machine id at the first boot (machine-id(5)).
        names.add("-".join((machine[:8], machine[8:12], machine[12:16], machine[16:20], machine[20:])))
    for vm, uuid, guest, _ in sorted(connection.execute(VMS).fetchall(), key=str):
        if names & {uuid, guest}:
            return scopes.of_vm(connection, uuid or vm, streams)
    try:
        return scopes.of_vm(connection, machine, streams)
    except UsageError:
        return None


# By what its host calls it; where nobody else names it, it is all that is known.
def _scope_of_vm(connection: duckdb.DuckDBPyConnection, incident: Incident, streams: list[Stream]) -> Scope:
    host, vm = incident.source.machine, incident.vm
    rows = sorted(connection.execute(VMS).fetchall(), key=str)
    name = next((uuid for each, uuid, _, machine in rows if (each, machine) == (vm, host) and uuid), vm)
    try:
        return scopes.of_vm(connection, name, streams)
    except UsageError:
        mine = tuple(each for each in streams if each.machine == host)
        return Scope(f"VM {vm}", frozenset(), frozenset({host}), (vm,), (), (host,), mine)


def _there(
    graph: Graph, incident: Incident, scope: Scope | None, window: Span, streams: list[Stream]
) -> tuple[There | None, str]:
    guest = node_of(incident)
    if scope is None or not scope.hosts:
        return None, "no host, relay or exchange of times names this machine as a VM"
    outside = {each[:2] for each in streams if each.machine in scope.hosts and each.layer in _OUTSIDE}
    if not outside:
        return None, f"the lake has no stream of the host {', '.join(sorted(scope.hosts))}"
    reason = ""
    for machine, boot_id in sorted(outside):
        node = Node(machine, boot_id, BOOT)
        ends = [graph.convert(ns, guest, node, CUT_NS) for ns in window]
        known = [end for end in ends if isinstance(end, Converted)]
        if len(known) == len(ends) and known[0].ts_ns < known[1].ts_ns:
            error_ns = max(end.bound_ns for end in known)
            return There(node, Span(known[0].ts_ns, known[1].ts_ns), error_ns), ""
        if isinstance(ends[0], Converted) and not isinstance(ends[1], Converted):
            last_ns, last = _last(graph, guest, node, window, ends[0])
            if last.ts_ns > ends[0].ts_ns:
                error_ns = max(ends[0].bound_ns, last.bound_ns)
                return There(node, Span(ends[0].ts_ns, last.ts_ns), error_ns, window.until_ns - last_ns), ""
        reason = next((end.reason for end in ends if not isinstance(end, Converted)), "the two ends fall together")
    return None, f"the guest's time is not comparable with the host's: {reason}"


# What a host says of its VM is on its own clock.
def _there_of_vm(
    _graph: Graph, incident: Incident, _scope: Scope | None, window: Span, streams: list[Stream]
) -> tuple[There | None, str]:
    node = node_of(incident)
    if any(each[:2] == node[:2] and each.layer in _OUTSIDE for each in streams):
        return There(node, window, 0), ""
    return None, f"the lake has no stream of the host {node.machine}"


# Up to when the guest's time is known on the host's clock: at `first` it is, at the end of `window` it is not.
def _last(graph: Graph, guest: Node, node: Node, window: Span, first: Converted) -> tuple[int, Converted]:
    known_ns, unknown_ns = window
    last = first
    while unknown_ns - known_ns > _LAST_NS:
        ns = (known_ns + unknown_ns) // 2
        found = graph.convert(ns, guest, node, CUT_NS)
        if isinstance(found, Converted):
            known_ns, last = ns, found
        else:
            unknown_ns = ns
    return known_ns, last
