"""From the lake's tables to the rows of a timeline, not yet in order: only what can lie in the window is read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import duckdb

from consumers.clocks.graph import Graph, Node
from consumers.coverage import Span
from consumers.export.scope import literal
from consumers.lake.chain import FileEntry
from consumers.lake.layout import HOUR_NS, hour_of
from consumers.lake.snapshot import Snapshot
from consumers.timeline import listings
from consumers.timeline.entries import Entry, Kind
from consumers.timeline.listings import Listing, S
from consumers.timeline.scope import Scope, told
from consumers.timeline.window import Reach, Window, reach
from schemas.loss import LossUnit
from schemas.stream import Stream

_PAD_NS_MAX: Final = 60 * S
_NO_TIME: Final = -(1 << 62)
#: More rings than this of one set are counted in part when a timeline is cut.
_CPUS_MAX: Final = 1024
#: A clock that went to and fro is read from its first to its last time.
_SPANS_MAX: Final = 4
#: Of hosts these are told whole: what befalls a host befalls its VMs.
_OF_HOSTS: Final = frozenset({"kmsg", "procfs_hangs", "procfs_pressure", "bpf_hang"})
_BY_VM: Final = ("qmp_", "topology_", "relay_", *listings.SAMPLED)
_NAMES: Final = ", ".join(Stream._fields)
_LOSSES: Final = f"""
select {_NAMES}, kind, first_position, count, reason, found_by, unit, arrival_ns from losses
where list_contains(?, machine) and arrival_ns >= ? order by arrival_ns limit ?
"""  # noqa: S608
_DEAD: Final = f"""
select {_NAMES}, reason, detail, position, arrival_ns from dead_letters
where list_contains(?, machine) and arrival_ns between ? and ? order by arrival_ns limit ?
"""  # noqa: S608


class Reaches:
    """Which times of each stream's clock can lie in the window; reckoned once for each clock."""

    def __init__(self, graph: Graph, window: Window) -> None:
        self._graph, self._window = graph, window
        self._found: dict[Node, Reach] = {}

    def __getitem__(self, node: Node) -> Reach:
        if node not in self._found:
            window = self._window
            self._found[node] = reach(self._graph, window.node, window.since_ns, window.until_ns, node)
        return self._found[node]


def narrowed(taken: Snapshot, scope: Scope, reaches: Reaches, arrival: Span, *, each: bool) -> Snapshot:
    """Return `taken` with only the tables and files that can have rows of the timeline."""
    files = {
        table: kept
        for table, found in taken.files.items()
        if listings.taken(table, each=each) or listings.counted(table)
        if (kept := _files(found, [reaches[node] for node in _nodes(table, scope)], arrival))
    }
    for table in ("losses", "dead_letters"):
        files[table] = [
            entry for entry in taken.files.get(table, []) if hour_of(entry.key) >= arrival.since_ns // HOUR_NS
        ]
    return Snapshot(files)


def _files(found: Sequence[FileEntry], reaches: Sequence[Reach], arrival: Span) -> list[FileEntry]:
    spans = [span for each in reaches for span in each.spans]
    hours = range(arrival.since_ns // HOUR_NS, arrival.until_ns // HOUR_NS + 1)
    by_hour = any(not each.complete for each in reaches)
    return [
        entry
        for entry in found
        if (by_hour and hour_of(entry.key) in hours)
        or (spans and (entry.min_ts_ns is None or entry.max_ts_ns is None))
        or any(
            entry.min_ts_ns <= span.until_ns + _PAD_NS_MAX and span.since_ns - _PAD_NS_MAX <= entry.max_ts_ns
            for span in spans
            if entry.min_ts_ns is not None and entry.max_ts_ns is not None
        )
    ]


def read(
    connection: duckdb.DuckDBPyConnection,
    tables: Iterable[str],
    scope: Scope,
    reaches: Reaches,
    arrival: Span,
    limit: int,
    *,
    each: bool,
) -> Iterator[list[Entry]]:
    """Yield the rows of each of `tables` and clock in lists of at most `limit`: the first ones there are."""
    layers = {(*stream[:2], stream.surface, stream.instance): stream.layer for stream in scope.streams}
    for table in sorted(tables):
        columns = connection.table(table).columns
        how = listings.listing(table, columns)
        for node in _nodes(table, scope):
            mine = _concerns(table, columns, scope, node.machine)
            source = mine and _source(table, f"{_same(table, node, scope)} and {mine}", how, reaches[node], arrival)
            if not source:
                continue
            if table in listings.SAMPLED and not each:
                yield _threads(connection, table, source, limit)
            elif listings.counted(table) and not each:
                yield _counted(connection, (table, node, source), how, layers, limit, rest=False)
            elif listings.taken(table, each=each):
                yield _listed(connection, listings.listing_sql(source, how, limit))
                if how.dense:
                    yield _counted(connection, (table, node, source), how, layers, limit, rest=True)


def _nodes(table: str, scope: Scope) -> list[Node]:
    surface = listings.surface_of(table)
    return sorted({Node(each.machine, each.boot_id, each.clock) for each in scope.streams if each.surface == surface})


# What tells the rows of one clock from all others; each comparison of words costs as much as a column of numbers.
def _same(table: str, node: Node, scope: Scope) -> str:
    others = [each for each in _nodes(table, scope) if each.machine == node.machine]
    names = ["machine"]
    names += ["boot_id"] if any(each.boot_id != node.boot_id for each in others) else []
    names += ["clock"] if any(each.clock != node.clock for each in others) else []
    return " and ".join(f"{name} = {literal(getattr(node, name))}" for name in names)


# A FROM item of what can lie in the window on one clock; None where nothing can.
def _source(table: str, same: str, how: Listing, found: Reach, arrival: Span) -> str | None:
    pad_ns = 2 * S if table in listings.SAMPLED else how.pad_ns
    spans = found.spans if len(found.spans) <= _SPANS_MAX else (Span(found.spans[0][0], found.spans[-1][1]),)
    times = [f"ts_ns between {span.since_ns - pad_ns} and {span.until_ns + pad_ns}" for span in spans]
    parts = [(span.since_ns, f"{same} and {time}") for span, time in zip(spans, times, strict=True)]
    came = f"arrival_ns between {arrival.since_ns} and {arrival.until_ns}"
    if not found.complete:
        parts.append((_NO_TIME, " and ".join((same, came, *(f"not ({time})" for time in times)))))
    elif table.startswith("bpf_pinned_"):
        parts.append((_NO_TIME, f"{same} and ts_ns is null and {came}"))
    name = '"' + table.replace('"', '""') + '"'
    selects = [f"select *, {since_ns}::bigint as window_ns from {name} where {each}" for since_ns, each in parts]  # noqa: S608
    return f"({' union all '.join(selects)})" if selects else None


def _concerns(table: str, columns: Sequence[str], scope: Scope, machine: str) -> str | None:
    if machine in scope.machines or table in _OF_HOSTS:
        return "true"
    if table.startswith(_BY_VM):
        return f"vm in ({', '.join(map(literal, scope.names))})"
    if table.startswith("bpf_") and "tgid" in columns and scope.pids:
        return f"tgid in ({', '.join(map(str, scope.pids))})"
    return None


def _listed(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Entry]:
    entries = []
    for row in connection.execute(sql).fetchall():
        *names, clock, position, ts_ns, until_ns, arrival_ns, level, text = row
        kind = Kind.RECORD if until_ns is None else Kind.SPAN
        position = -1 if position is None else position
        entries.append(Entry(kind, Stream(*names), clock, ts_ns, arrival_ns, text or "", until_ns, level, position))
    return entries


# The CPUs of one set of events are counted together.
def _counted(
    connection: duckdb.DuckDBPyConnection,
    of: tuple[str, Node, str],
    how: Listing,
    layers: dict[tuple[str, str, str, str], str],
    limit: int,
    *,
    rest: bool,
) -> list[Entry]:
    table, node, source = of
    surface, what = listings.surface_of(table), table.partition("_")[2]
    counts: dict[tuple[str, int], tuple[int, Entry]] = {}
    # A limit on the CPUs' counts is one on what they are together, and no CPU is cut off from the others of its second.
    for instance, second, *rest_of_row in connection.execute(
        listings.counts_sql(source, how, limit * _CPUS_MAX, rest=rest)
    ).fetchall():
        count, first_ns, last_ns, arrival_ns = rest_of_row
        layer = layers.get((*node[:2], surface, instance), "")
        name = instance if rest else instance.partition("/")[0]
        stream = Stream(node.machine, node.boot_id, layer, surface, name, node.clock)
        total, entry = counts.get(
            (name, second), (0, Entry(Kind.COUNT, stream, node.clock, first_ns, arrival_ns, "", last_ns))
        )
        entry.ts_ns = min(entry.ts_ns or first_ns, first_ns)
        entry.until_ns = max(entry.until_ns or last_ns, last_ns)
        entry.arrival_ns = min(entry.arrival_ns, arrival_ns)
        entry.text = f"{what}: {total + count:,} event{'' if total + count == 1 else 's'}"
        counts[name, second] = total + count, entry
    return [entry for _, entry in counts.values()][:limit]


# Of threads beside the vCPUs, that they slept is no news.
def _threads(connection: duckdb.DuckDBPyConnection, table: str, source: str, limit: int) -> list[Entry]:
    entries = []
    for row in connection.execute(listings.threads_sql(table, source, limit)).fetchall():
        *names, who, state, frozen, since_ns, until_ns, ran_ns, waited_ns, arrival_ns = row
        stream, took_ns = Stream(*names), until_ns - since_ns
        runs = (ran_ns or 0) * 2 >= took_ns
        held = not runs and (state in ("D", "T", "t") or bool(frozen) or (waited_ns or 0) * 2 >= took_ns)
        if table != "vcpu_time" and not runs and not held:
            continue
        ran = "unknown" if ran_ns is None else f"{ran_ns / 1e9:.1f}"
        waited = "" if not waited_ns else f", waited {waited_ns / 1e9:.1f} s for a CPU"
        about = "" if runs else f" (state {state or 'unknown'}{', frozen' if frozen else ''})"
        text = f"{who} ran {ran} of {took_ns / 1e9:.1f} s{waited}{about}"
        level = 4 if held else 6
        entries.append(Entry(Kind.SPAN, stream, stream.clock, since_ns, arrival_ns, text, until_ns, level))
    return entries


def losses(
    connection: duckdb.DuckDBPyConnection,
    scope: Scope,
    arrival: Span,
    found: Mapping[Stream, Sequence[Entry]],
    limit: int,
) -> list[Entry]:
    """Return the losses of the window. `found` are the records of each stream, in the order of their positions.

    A loss in front of one of these has its time; else it stands where it was told of, if that is in the window.
    """
    machines = sorted(scope.machines | scope.hosts)
    entries = []
    rows = connection.execute(_LOSSES, [machines, arrival.since_ns, 16 * limit]).fetchall()
    for *names, kind, first, count, reason, found_by, unit, arrival_ns in rows:
        stream = Stream(*names)
        if not told(stream, scope):
            continue
        many = "an unknown number of" if count is None else f"{count:,}"
        units = "positions" if unit == LossUnit.POSITION else f"{unit}s"
        text = f"{many} {units} lost from {first:,} on: {kind}, {reason} (found by: {found_by})"
        entry = Entry(Kind.LOSS, stream, stream.clock, None, arrival_ns, text, None, 4, first)
        behind = _behind(found.get(stream, ()), first + (count or 0)) if unit == LossUnit.POSITION else None
        if behind is not None:
            entry.ts_ns, entry.arrival_ns = behind.ts_ns, behind.arrival_ns
        elif arrival_ns > arrival.until_ns:
            continue
        entries.append(entry)
    return entries[:limit]


# The record behind a loss, if the one before it is there as well: else the loss may lie in front of the window.
def _behind(records: Sequence[Entry], position: int) -> Entry | None:
    if not records or records[0].position > position:
        return None
    return next((each for each in records if each.position >= position), None)


def dead_letters(connection: duckdb.DuckDBPyConnection, scope: Scope, arrival: Span, limit: int) -> list[Entry]:
    """Return what could not be read of what arrived in the window."""
    machines = sorted(scope.machines | scope.hosts)
    entries = []
    for row in connection.execute(_DEAD, [machines, *arrival, limit]).fetchall():
        *names, reason, detail, position, arrival_ns = row
        stream, text = Stream(*names), f"unreadable ({reason}): {detail}"
        if told(stream, scope):
            position = -1 if position is None else position
            entries.append(Entry(Kind.DEAD_LETTER, stream, stream.clock, None, arrival_ns, text, None, 4, position))
    return entries


def mapped(entries: Sequence[Entry]) -> dict[Stream, list[Entry]]:
    """Return the records among `entries` by stream, in the order of their positions."""
    found: dict[Stream, list[Entry]] = {}
    for entry in entries:
        if entry.kind is Kind.RECORD and entry.position >= 0:
            found.setdefault(entry.stream, []).append(entry)
    for records in found.values():
        records.sort(key=lambda entry: entry.position)
    return found


def boots(entries: Sequence[Entry]) -> set[tuple[str, str]]:
    """Return the machines and boots that have any of `entries`."""
    return {(entry.stream.machine, entry.stream.boot_id) for entry in entries}
