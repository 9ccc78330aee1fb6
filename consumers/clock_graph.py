"""From the lake to the graph of clocks: readings, exchanges of guests and hosts, heartbeats where there are no others.

Where two agents read one machine's clocks, the readings of the one that has more are taken.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np

from consumers.clocks import pings, ticks
from consumers.clocks.edges import MACHINES, PPB, PRINTK, SAME_RATE, SLEWED, TICKS, Kind, Readings
from consumers.clocks.graph import BOOT, MONO, MONO_RAW, REALTIME, TAI, TSC, Graph, Node
from consumers.clocks.graph import PRINTK as PRINTK_CLOCK
from consumers.clocks.index import FAR_NS, Ints

#: Of each boot the newest so many readings, and exchanges, are taken.
ROWS_MAX: Final = 100_000
#: A rate is known to be steady where it was read so often at least.
STEADY_NS: Final = 60_000_000_000
_BRACKET_NS_MAX: Final = 1_000_000_000
#: A record of the kernel log that came after a long silence says little, and more than nothing.
_PRINTK_BRACKET_NS_MAX: Final = 60_000_000_000
#: What a reading has beside CLOCK_MONOTONIC, between the same two reads of it.
_BESIDE: Final = (
    ("realtime_ns", REALTIME, SAME_RATE),
    ("boottime_ns", BOOT, SAME_RATE),
    ("tai_ns", TAI, SAME_RATE),
    ("monotonic_raw_ns", MONO_RAW, SLEWED),
)
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
# agents may have watched one machine.
_HEARTBEATS: Final = f"""
select machine, boot_id, monotonic_ns, any_value(realtime_ns) as realtime_ns, any_value(boottime_ns) as boottime_ns,
       any_value(bracket_ns) as bracket_ns
from coverage anti join clock_readings using (machine, boot_id)
group by machine, boot_id, monotonic_ns
qualify row_number() over (partition by machine, boot_id order by monotonic_ns desc) <= {ROWS_MAX}
order by machine, boot_id, monotonic_ns
"""  # noqa: S608

Columns = dict[str, Any]


class _Rates(NamedTuple):
    # When a machine's rate was read, on one of its clocks, and which steady stretch it was in, -1 for none.
    at_ns: Ints
    stretch: Ints


def read_graph(connection: duckdb.DuckDBPyConnection) -> Graph:
    """Return what the tables `clock_readings`, `clock_pings` and `coverage` of `connection` connect."""
    graph = Graph()
    rates: dict[Node, _Rates] = {}
    for (machine, boot_id), rows in _fullest(_groups(connection, _READINGS, 4), 2):
        stretch = _stretches(rows)
        _add_beside(graph, machine, boot_id, rows, stretch)
        _add_printk(graph, machine, boot_id, rows, stretch)
        _add_tsc(graph, machine, boot_id, rows, stretch)
        for name, clock in (("monotonic_ns", MONO), ("boottime_ns", BOOT)):
            rates[Node(machine, boot_id, clock)] = _Rates(_ints(rows[name]), stretch)
    for (machine, boot_id), rows in _fullest(_groups(connection, _HEARTBEATS, 2), 2):
        _add_beside(graph, machine, boot_id, rows, np.full(len(rows["monotonic_ns"]), -1))
    for (machine, boot_id, host, host_boot_id), rows in _fullest(_groups(connection, _PINGS, 6), 4):
        guest, at_host = Node(machine, boot_id, MONO), Node(host, host_boot_id, BOOT)
        if guest.machine != at_host.machine:
            _add_pings(graph, guest, at_host, rows, rates)
    return graph


# Each group of rows that have the first `keys` columns in common.
def _groups(connection: duckdb.DuckDBPyConnection, sql: str, keys: int) -> Iterator[tuple[tuple[str, ...], Columns]]:
    table = connection.execute(sql).fetchnumpy()
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
def _fullest(groups: Iterator[tuple[tuple[str, ...], Columns]], keys: int) -> Iterator[tuple[tuple[str, ...], Columns]]:
    found: dict[tuple[str, ...], Columns] = {}
    for key, rows in groups:
        known = found.get(key[:keys])
        if known is None or _size(rows) > _size(known):
            found[key[:keys]] = rows
    yield from found.items()


def _size(rows: Columns) -> int:
    return len(next(iter(rows.values())))


def _add_beside(graph: Graph, machine: str, boot_id: str, rows: Columns, stretch: Ints) -> None:
    for name, clock, kind in _BESIDE:
        if name in rows:
            found = _between(rows["monotonic_ns"], rows["bracket_ns"], rows[name], stretch)
            _add(graph, machine, boot_id, clock, found, kind)


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
