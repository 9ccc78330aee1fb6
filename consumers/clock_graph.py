"""From the lake to the graph of clocks: readings, heartbeats where there are none, exchanges of guests and hosts.

Where two agents read one machine's clocks, the readings of the one that has more are taken. Of heartbeats those are
taken that no two of these readings stand close around.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np

from consumers.clocks import pings, ticks
from consumers.clocks.edges import MACHINES, PPB, PRINTK, SAME_RATE, SLEWED, TICKS, Kind, Readings, joined
from consumers.clocks.graph import BOOT, MONO, MONO_RAW, REALTIME, TAI, TSC, Graph, Node
from consumers.clocks.graph import PRINTK as PRINTK_CLOCK
from consumers.clocks.index import FAR_NS, Ints

#: Of each boot the newest so many readings, heartbeats among them, and exchanges, are taken.
ROWS_MAX: Final = 100_000
#: No heartbeat between readings that are no further apart is taken: two of the intervals at which both come by default.
CLOSE_NS: Final = 20_000_000_000
#: A rate is known to be steady where it was read so often at least.
STEADY_NS: Final = 60_000_000_000
_BRACKET_NS_MAX: Final = 1_000_000_000
#: A record of the kernel log that came after a long silence says little, and more than nothing.
_PRINTK_BRACKET_NS_MAX: Final = 60_000_000_000
#: What a reading has beside CLOCK_MONOTONIC, between the same two reads of it; the first two are what heartbeats have.
_WITH_HEARTBEATS: Final = (("realtime_ns", REALTIME, SAME_RATE), ("boottime_ns", BOOT, SAME_RATE))
_BESIDE: Final = (("tai_ns", TAI, SAME_RATE), ("monotonic_raw_ns", MONO_RAW, SLEWED))
_READINGS: Final = f"""
select machine, boot_id, layer, instance, realtime_ns, monotonic_ns, monotonic_raw_ns, boottime_ns, tai_ns,
       bracket_ns, slew_ppb, printk_ns, printk_monotonic_ns, printk_bracket_ns,
       tsc, tsc_monotonic_ns, tsc_bracket_ns
from clock_readings
qualify row_number() over (partition by machine, boot_id, layer, instance order by position desc) <= {ROWS_MAX}
order by machine, boot_id, layer, instance, position
"""  # noqa: S608
_PINGS: Final = f"""
select machine, boot_id, host_machine, host_boot_id, layer, instance, t0_ns, t1_ns, t2_ns, t3_ns, generation
from clock_pings
where host_machine is not null and host_boot_id is not null
qualify row_number() over (partition by machine, boot_id, layer, instance order by position desc) <= {ROWS_MAX}
order by machine, boot_id, host_machine, host_boot_id, layer, instance, position
"""  # noqa: S608
# One agent's heartbeats of all its streams have the same reading. In the order of CLOCK_MONOTONIC, because several
# agents may have watched one machine. Most of those that are not taken are passed over here, where that costs least:
# whole pieces of CLOSE_NS by their number. The parameters are columns of `dense` and `first`.
_HEARTBEATS: Final = f"""
with dense as (
    select unnest(?::varchar[]) as machine, unnest(?::varchar[]) as boot_id,
           unnest(?::bigint[]) as since_ns, unnest(?::bigint[]) as until_ns
), pieces as (
    select machine, boot_id, unnest(range(since_ns // {CLOSE_NS} + 1, until_ns // {CLOSE_NS})) as piece from dense
), first as (
    select unnest(?::varchar[]) as machine, unnest(?::varchar[]) as boot_id, unnest(?::bigint[]) as first_ns
)
select machine, boot_id, monotonic_ns, any_value(realtime_ns) as realtime_ns, any_value(boottime_ns) as boottime_ns,
       any_value(bracket_ns) as bracket_ns
from coverage as c
anti join pieces as p on c.machine = p.machine and c.boot_id = p.boot_id and c.monotonic_ns // {CLOSE_NS} = p.piece
anti join first as f on c.machine = f.machine and c.boot_id = f.boot_id and c.monotonic_ns < f.first_ns
group by machine, boot_id, monotonic_ns
qualify row_number() over (partition by machine, boot_id order by monotonic_ns desc) <= {ROWS_MAX}
order by machine, boot_id, monotonic_ns
"""  # noqa: S608

Columns = dict[str, Any]
Key = tuple[str, ...]
Groups = dict[Key, Columns]


class _Rates(NamedTuple):
    # When a machine's rate was read, on one of its clocks, and which steady stretch it was in, -1 for none.
    at_ns: Ints
    stretch: Ints


def read_graph(connection: duckdb.DuckDBPyConnection) -> Graph:
    """Return what the tables `clock_readings`, `clock_pings` and `coverage` of `connection` connect."""
    graph = Graph()
    rates: dict[Node, _Rates] = {}
    readings = dict(_fullest(_groups(connection, _READINGS, 4), 2))
    for (machine, boot_id), rows in readings.items():
        stretch = _stretches(rows)
        for name, other, kind in _BESIDE:
            _add(graph, machine, boot_id, other, _beside(rows, name, stretch), kind)
        _add_printk(graph, machine, boot_id, rows, stretch)
        _add_tsc(graph, machine, boot_id, rows, stretch)
        for name, clock in (("monotonic_ns", MONO), ("boottime_ns", BOOT)):
            rates[Node(machine, boot_id, clock)] = _Rates(_ints(rows[name]), stretch)
    beats = _heartbeats(connection, readings)
    for machine, boot_id in [*readings, *(key for key in beats if key not in readings)]:
        parts = [each[machine, boot_id] for each in (readings, beats) if (machine, boot_id) in each]
        for name, clock, kind in _WITH_HEARTBEATS:
            _add(graph, machine, boot_id, clock, _in_order([_beside(rows, name) for rows in parts]), kind)
    for (machine, boot_id, host, host_boot_id), rows in _fullest(_groups(connection, _PINGS, 6), 4):
        guest, at_host = Node(machine, boot_id, MONO), Node(host, host_boot_id, BOOT)
        if guest.machine != at_host.machine:
            _add_pings(graph, guest, at_host, rows, rates)
    return graph


# Each group of rows that have the first `keys` columns in common.
def _groups(
    connection: duckdb.DuckDBPyConnection, sql: str, keys: int, params: Sequence[Any] = ()
) -> Iterator[tuple[Key, Columns]]:
    table = connection.execute(sql, params).fetchnumpy()
    names = list(table)
    size = len(table[names[0]])
    if not size:
        return
    changed = np.zeros(size, bool)
    changed[0] = True
    for name in names[:keys]:
        column = np.asarray(table[name])
        changed[1:] |= column[1:] != column[:-1]
    starts = [*np.flatnonzero(changed).tolist(), size]
    for start, end in pairwise(starts):
        yield (
            tuple(str(table[name][start]) for name in names[:keys]),
            {name: table[name][start:end] for name in names[keys:]},
        )


# Of the groups that have the first `keys` in common the one with most rows.
def _fullest(groups: Iterator[tuple[Key, Columns]], keys: int) -> Iterator[tuple[Key, Columns]]:
    found: Groups = {}
    for key, rows in groups:
        known = found.get(key[:keys])
        if known is None or _size(rows) > _size(known):
            found[key[:keys]] = rows
    yield from found.items()


def _size(rows: Columns) -> int:
    return len(next(iter(rows.values())))


# The heartbeats that are taken of each boot: those that no two readings stand close around.
def _heartbeats(connection: duckdb.DuckDBPyConnection, readings: Groups) -> Groups:
    read_ns = {key: _read_ns(rows) for key, rows in readings.items()}
    taken: Groups = {}
    for key, rows in _groups(connection, _HEARTBEATS, 2, _passed_over(read_ns)):
        around = read_ns.get(key, np.zeros(0, np.int64))
        if around is None:
            continue
        lone = np.flatnonzero(~_close_around(_ints(rows["monotonic_ns"]), around))
        if len(lone):
            taken[key] = {name: column[lone] for name, column in rows.items()}
    return taken


# When the clocks were read, on CLOCK_MONOTONIC. None where that went back: a heartbeat does not say of which of two
# times it is.
def _read_ns(rows: Columns) -> Ints | None:
    names = ("monotonic_ns", "bracket_ns", *(name for name, _, _ in _WITH_HEARTBEATS))
    good = np.logical_and.reduce([_known(rows[name]) for name in names])
    good &= _ints(rows["bracket_ns"]) <= _BRACKET_NS_MAX
    at_ns = _ints(rows["monotonic_ns"])[good]
    return None if np.any(np.diff(at_ns) <= 0) else at_ns


# Whether each time lies between two of `read_ns`, rising, that are no further apart than CLOSE_NS.
def _close_around(at_ns: Ints, read_ns: Ints) -> Any:
    behind = np.searchsorted(read_ns, at_ns)
    close = np.concatenate([[False], np.diff(read_ns) <= CLOSE_NS, [False]])
    return close[behind]


# The parameters of `_HEARTBEATS`: stretches of close readings, and before which time none of a boot are taken.
def _passed_over(read_ns: dict[Key, Ints | None]) -> list[list[Any]]:
    dense: list[list[Any]] = [[], [], [], []]
    first: list[list[Any]] = [[], [], []]
    for key, at_ns in read_ns.items():
        if at_ns is None or len(at_ns) >= ROWS_MAX:
            _append(first, (*key, FAR_NS if at_ns is None else int(at_ns[0])))
        if at_ns is not None and len(at_ns):
            ends = np.flatnonzero(np.diff(at_ns) > CLOSE_NS)
            spans = np.stack([at_ns[[0, *(ends + 1)]], at_ns[[*ends, -1]]], axis=1)
            # A shorter one has no whole piece.
            for span in spans[spans[:, 1] - spans[:, 0] > CLOSE_NS].tolist():
                _append(dense, (*key, *span))
    return [*dense, *first]


def _append(columns: list[list[Any]], row: tuple[Any, ...]) -> None:
    for column, value in zip(columns, row, strict=True):
        column.append(value)


# Of one part or more the newest, in the order of the first clock.
def _in_order(parts: list[Readings]) -> Readings:
    if len(parts) == 1:
        return parts[0]
    both = joined(parts)
    return both.take(np.argsort(both.x0_ns, kind="stable")[-ROWS_MAX:])


def _beside(rows: Columns, name: str, stretch: Ints | None = None) -> Readings:
    stretch = np.full(_size(rows), -1) if stretch is None else stretch
    return _between(rows["monotonic_ns"], rows["bracket_ns"], rows[name], stretch)


def _add_printk(graph: Graph, machine: str, boot_id: str, rows: Columns, stretch: Ints) -> None:
    columns = (rows["printk_monotonic_ns"], rows["printk_bracket_ns"], rows["printk_ns"])
    found = _tightest(_between(*columns, stretch, _PRINTK_BRACKET_NS_MAX), PRINTK)
    _add(graph, machine, boot_id, PRINTK_CLOCK, found, PRINTK)


# Without those that say less than what a tighter one says of their time. (Only the readings next to a time are asked.)
def _tightest(found: Readings, kind: Kind) -> Readings:
    at_ns, width = found.x0_ns.astype(np.float64), (found.hi_ns - found.lo_ns).astype(np.float64)
    grown = 2 * kind.rate_ppb_max * PPB * at_ns
    before = np.minimum.accumulate(width - grown) + grown
    behind = np.minimum.accumulate((width + grown)[::-1])[::-1] - grown
    return found.take(np.flatnonzero(width <= np.minimum(before, behind) + 1))


# The counter of an agent that did not say when it read it is one that it did not read.
def _add_tsc(graph: Graph, machine: str, boot_id: str, rows: Columns, stretch: Ints) -> None:
    names = ("tsc_monotonic_ns", "tsc_bracket_ns", "tsc")
    known = np.logical_and.reduce([_known(rows[name]) for name in names])
    middle, bracket, shown = (np.where(known, _ints(rows[name]), -1) for name in names)
    found = _between(middle, bracket, shown, stretch)
    shown = shown[known & (bracket <= _BRACKET_NS_MAX)]
    hz = ticks.frequency_hz(found.x0_ns, found.x1_ns, shown)
    if hz is not None:
        # A tick lasts until the next one.
        first, behind = ticks.ns_of(shown, hz), ticks.ns_of(shown + 1, hz) + 1
        found = replace(found, lo_ns=first - found.x1_ns, hi_ns=behind - found.x0_ns)
        graph.add(Node(machine, boot_id, MONO), Node(machine, boot_id, TSC), found, TICKS, hz)


def _add(graph: Graph, machine: str, boot_id: str, clock: str, readings: Readings, kind: Kind) -> None:
    graph.add(Node(machine, boot_id, MONO), Node(machine, boot_id, clock), readings, kind)


# The readings of a clock that was read between two reads of CLOCK_MONOTONIC.
def _between(middle: Any, bracket: Any, shown: Any, stretch: Ints, bracket_ns_max: int = _BRACKET_NS_MAX) -> Readings:
    good = _known(middle) & _known(bracket) & _known(shown)
    middle, bracket, shown = _ints(middle), _ints(bracket), _ints(shown)
    good &= (bracket >= 0) & (bracket <= bracket_ns_max)
    half = np.where(good, bracket, 0) // 2 + 1
    x0, x1 = middle - half, middle + half
    part = np.zeros(len(middle), np.int64)
    return Readings(x0, x1, shown - x1, shown - x0, stretch, part).take(np.flatnonzero(good))


def _add_pings(graph: Graph, guest: Node, host: Node, rows: Columns, rates: dict[Node, _Rates]) -> None:
    columns = [rows[name] for name in ("t0_ns", "t1_ns", "t2_ns", "t3_ns")]
    good = np.flatnonzero(np.logical_and.reduce([_known(column) for column in columns]))
    times = np.stack([_ints(column)[good] for column in columns], axis=1)
    generation = _ints(rows["generation"])[good]
    part = np.cumsum(np.concatenate([[0], np.diff(generation) != 0])) if len(good) else generation
    one, other = _stretch_at(rates.get(guest), times[:, 0]), _stretch_at(rates.get(host), times[:, 1])
    steady = np.where((one >= 0) & (other >= 0), one * (ROWS_MAX + 1) + other, -1)
    graph.add(guest, host, pings.readings(times, part, steady), MACHINES)


# The number of the stretch in which the rate was steady, for each reading.
def _stretches(rows: Columns) -> Ints:
    known, slew = ~np.ma.getmaskarray(rows["slew_ppb"]), _ints(rows["slew_ppb"])
    apart = np.diff(_ints(rows["monotonic_ns"]))
    other = (np.diff(slew) != 0) | (apart < 0) | (apart > STEADY_NS)
    number = np.cumsum(np.concatenate([[0], other | ~known[1:] | ~known[:-1]]))
    return np.where(known, number, -1)


# The stretch that the readings before and behind each time are both of.
def _stretch_at(rates: _Rates | None, at_ns: Ints) -> Ints:
    if rates is None or np.any(np.diff(rates.at_ns) <= 0):
        return np.full(len(at_ns), -1)
    behind = np.searchsorted(rates.at_ns, at_ns)
    inside = (behind > 0) & (behind < len(rates.at_ns))
    behind = np.clip(behind, 1, len(rates.at_ns) - 1)
    if len(rates.at_ns) < 2:
        return np.full(len(at_ns), -1)
    before = rates.stretch[behind - 1]
    return np.where(inside & (before == rates.stretch[behind]), before, -1)


# Not null, and a time that can be reckoned with.
def _known(column: Any) -> Any:
    values = _ints(column)
    return ~np.ma.getmaskarray(column) & (values >= 0) & (values < FAR_NS)


def _ints(column: Any) -> Ints:
    return np.ma.filled(column, 0).astype(np.int64)
