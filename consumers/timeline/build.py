"""A timeline from a lake: whose, which window, on which clock; then the rows, placed and in order."""

from typing import Final, NamedTuple

import duckdb

from consumers.clock_graph import read_graph
from consumers.clocks.graph import BOOT, REALTIME, Graph, Node
from consumers.coverage import Span
from consumers.export.scope import When
from consumers.lake.damage import readable
from consumers.lake.layout import HOUR_NS, hour_of
from consumers.lake.snapshot import Snapshot, snapshot
from consumers.lake.storage import Storage
from consumers.lake.tip import all_streams
from consumers.timeline import scope as scopes
from consumers.timeline import sources
from consumers.timeline.blind import blind
from consumers.timeline.entries import Entry, Kind, Order, ordered, place
from consumers.timeline.scope import Scope
from consumers.timeline.window import Window, best, shift_ns
from consumers.views import connect
from schemas.errors import UsageError

#: Readings of clocks that arrived so long before or behind a window in UTC are not needed to convert its times.
_READINGS_HOURS: Final = 24
_CLOCK_TABLES: Final = ("clock_readings", "clock_pings", "coverage")
_FIRST: Final = f"select ts_ns from {', '.join(_CLOCK_TABLES)}, {scopes.TABLES}"  # noqa: S608
_WATCHED: Final = "select distinct machine from coverage"
#: `--clock host`: CLOCK_BOOTTIME of the host; any other name is a clock of the VM or machine itself.
HOST: Final = "host"


class Choice(NamedTuple):
    """What a user asked for: a VM or a machine, two times, a clock, and whether each event and sample is a row."""

    vm: str | None
    machine: str | None
    since: When
    until: When
    clock: str = REALTIME
    each: bool = False


class Timeline(NamedTuple):
    """`entries` in order, on the clock `window.axis`; `left_out` is how many more were found, at least."""

    scope: Scope
    window: Window
    until_ns: int
    entries: list[Entry]
    left_out: int
    notes: list[str]


def build(storage: Storage, choice: Choice, limit: int) -> Timeline:
    """Return the timeline that `choice` asks for, of at most `limit` rows.

    Raises:
        UsageError: there is no such VM, machine or clock, or the window says nothing; the text says what there is.
    """
    if choice.since.column != choice.until.column or choice.since.ns >= choice.until.ns:
        raise UsageError("--since and --until are two times in UTC, or two whole numbers, the first the earlier")
    taken = snapshot(storage)
    streams = all_streams(storage)
    connection = connect(storage, _recent(taken, choice), _FIRST)
    try:
        scope = (
            scopes.of_vm(connection, choice.vm, streams)
            if choice.vm
            else scopes.of_machine(choice.machine or "", streams)
        )
        _narrow_clocks(connection, scope)
        graph = read_graph(connection)
        window = _window(graph, scope, choice)
        reaches = sources.Reaches(graph, window)
        some = readable(storage, sources.narrowed(taken, scope, reaches, window.arrival, each=choice.each))
        found = _found(storage, some, scope, reaches, window, limit, each=choice.each)
        place(found, graph, window.node, window.since_ns - window.arrival.since_ns)
        kept = [entry for entry in found if _inside(entry, window)]
        kept += blind(connection, scope, graph, window, sources.boots(kept))
        unseen = sorted(_machines(scope) - {name for (name,) in connection.execute(_WATCHED).fetchall()})
    finally:
        connection.close()
    told = _timeline(graph, scope, window, kept, limit)
    told.notes.extend(f"no heartbeat of {name} tells when it was watched" for name in unseen)
    return told


# Those that the lake has any stream of.
def _machines(scope: Scope) -> set[str]:
    return {stream.machine for stream in scope.streams}


def _found(
    storage: Storage,
    taken: Snapshot,
    scope: Scope,
    reaches: sources.Reaches,
    window: Window,
    limit: int,
    *,
    each: bool,
) -> list[Entry]:
    connection = connect(storage, taken, " ".join(("ts_ns", *taken.files)))
    try:
        entries = [
            entry
            for some in sources.read(connection, taken.files, scope, reaches, window.arrival, limit + 1, each=each)
            for entry in some
        ]
        entries += sources.losses(connection, scope, window.arrival, sources.mapped(entries), limit + 1)
        entries += sources.dead_letters(connection, scope, window.arrival, limit + 1)
    finally:
        connection.close()
    return entries


def _timeline(graph: Graph, scope: Scope, window: Window, kept: list[Entry], limit: int) -> Timeline:
    until_ns = window.until_ns + window.start_ns - window.since_ns
    if window.axis != window.node:
        place(kept, graph, window.axis, window.start_ns - window.arrival.since_ns)
    rows = ordered(kept)
    left_out = max(0, len(rows) - limit)
    del rows[limit:]
    return Timeline(scope, window, until_ns, rows, left_out, _notes(scope, rows))


def _inside(entry: Entry, window: Window) -> bool:
    if entry.bound_ns is None:
        return window.arrival.since_ns <= entry.arrival_ns <= window.arrival.until_ns
    end_ns = entry.at_ns if entry.until_at_ns is None else entry.until_at_ns
    return end_ns + entry.bound_ns >= window.since_ns and entry.at_ns - entry.bound_ns <= window.until_ns


def _notes(scope: Scope, rows: list[Entry]) -> list[str]:
    notes = []
    if scope.names:
        notes.append(
            f"hosts: {', '.join(sorted(scope.hosts)) or 'none known'}; guest: {', '.join(sorted(scope.machines))}; "
            f"processes: {', '.join(map(str, scope.pids)) or 'none known'}"
        )
    have = _machines(scope)
    notes += [f"the lake has no stream of {name}" for name in sorted(scope.hosts - have)]
    if scope.machines and not scope.machines & have:
        notes.append("the lake has no stream of the guest itself")
    reasons = sorted({entry.reason for entry in rows if entry.order is Order.ARRIVAL and entry.ts_ns is not None})
    notes += [f"not comparable: {reason}" for reason in reasons]
    if not any(entry.kind is not Kind.BLIND for entry in rows):
        notes.append("the lake has no record of this window")
    return notes


# Numbers of CLOCK_REALTIME are UTC as well.
def _in_utc(choice: Choice) -> bool:
    return choice.since.column != "ts_ns" or choice.clock == REALTIME


# Files with the readings that matter for a window in UTC; who is who is looked for in all.
def _recent(taken: Snapshot, choice: Choice) -> Snapshot:
    files = dict(taken.files)
    if _in_utc(choice):
        first, last = choice.since.ns // HOUR_NS - _READINGS_HOURS, choice.until.ns // HOUR_NS + _READINGS_HOURS
        for table in _CLOCK_TABLES:
            files[table] = [entry for entry in files.get(table, []) if first <= hour_of(entry.key) <= last]
    return taken.some(files)


# A table of its own goes before the view of the same name.
def _narrow_clocks(connection: duckdb.DuckDBPyConnection, scope: Scope) -> None:
    for table in _CLOCK_TABLES:
        sql = f"create temp table {table} as select * from main.{table} where list_contains(?, machine)"  # noqa: S608
        connection.execute(sql, [sorted(scope.machines | scope.hosts)])


def _window(graph: Graph, scope: Scope, choice: Choice) -> Window:
    given, in_utc = Span(choice.since.ns, choice.until.ns), _in_utc(choice)
    real = _reference(graph, scope.reference, REALTIME, given) if in_utc else None
    if choice.clock == REALTIME:
        return Window(real, *given, given, real, given.since_ns)
    own = scope.reference if choice.clock != HOST else tuple(sorted(scope.hosts))
    machines = tuple(name for name in own if choice.clock == HOST or name in scope.machines)
    clock = BOOT if choice.clock == HOST else choice.clock
    if in_utc:
        axis = _of_utc(graph, machines, clock, real, given)
        shift = None if axis is None or real is None else shift_ns(graph, real, *given, axis)
        if axis is None or real is None or shift is None:
            raise UsageError(_no_clock(graph, choice.clock))
        return Window(real, *given, given, axis, given.since_ns + shift)
    node = _reference(graph, machines, clock, given)
    if node is None:
        raise UsageError(_no_clock(graph, choice.clock))
    ahead = shift_ns(graph, node, *given, node._replace(clock=REALTIME))
    if ahead is None:
        raise UsageError(f"nobody read the clock {choice.clock} between these two times; give them in UTC")
    return Window(node, *given, Span(given.since_ns + ahead, given.until_ns + ahead), node, given.since_ns)


# The clock of the first machine that has one which was read in that window.
def _reference(graph: Graph, machines: tuple[str, ...], clock: str, given: Span) -> Node | None:
    other = BOOT if clock == REALTIME else REALTIME
    found = [best(graph, scopes.clocks(graph, machine, clock), *given, other) for machine in machines]
    return next((node for node in found if node is not None), None)


def _of_utc(graph: Graph, machines: tuple[str, ...], clock: str, real: Node | None, given: Span) -> Node | None:
    nodes = [node for machine in machines for node in scopes.clocks(graph, machine, clock)]
    known = [node for node in nodes if real is not None and shift_ns(graph, real, *given, node) is not None]
    return known[-1] if known else None


def _no_clock(graph: Graph, clock: str) -> str:
    known = sorted({f"{node.clock} of {node.machine}" for pair in graph.edges() for node in pair})
    return f"nothing says what {clock} showed then; the lake has readings of: {', '.join(known) or 'no clock'}"
