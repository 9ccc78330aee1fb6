"""When an incident was in UTC: printk's time over the clocks that the lake connects, with a bound, or why not.

A host's CLOCK_REALTIME is preferred to the guest's own, because guests are paused, restored and set.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

import duckdb

from consumers.clock_graph import read_graph
from consumers.clocks.graph import PRINTK, REALTIME, Converted, Graph, Node
from consumers.lake.layout import HOUR_NS, hour_of
from consumers.lake.snapshot import Snapshot, snapshot
from consumers.lake.storage import Storage
from consumers.timeline import scope as scopes
from consumers.verdict.look import CUT_NS
from consumers.views import connect
from schemas.errors import StorageError

#: Readings that came so many hours before or behind an incident are enough.
_HOURS: Final = 1
_TABLES: Final = ("clock_readings", "clock_pings", "coverage")
_SQL: Final = f"select ts_ns from {', '.join(_TABLES)}"  # noqa: S608


class Utc(NamedTuple):
    """A time of CLOCK_REALTIME of `machine`, within `bound_ns`."""

    ns: int
    bound_ns: int
    machine: str


def of_kernel(graph: Graph, source: tuple[str, str], hosts: Iterable[str], ns: int, clock: str = PRINTK) -> Utc | str:
    """Return when `clock` of `source`, machine and boot, showed `ns`, by a clock of `hosts` or its own; or why not."""
    own = Node(*source, clock)
    nodes = [node for host in sorted(hosts) for node in reversed(scopes.clocks(graph, host, REALTIME))]
    reason = "no clock was read"
    for node in [*nodes, own._replace(clock=REALTIME)]:
        found = graph.convert(ns, own, node, CUT_NS)
        if isinstance(found, Converted):
            return Utc(found.ts_ns, found.bound_ns, node.machine)
        reason = found.reason
    return reason


def graph_of(storage: Storage, rows: Sequence[dict[str, Any]]) -> Graph:
    """Return what connects the clocks around some rows of `incidents`.

    Raises:
        StorageError: the disk refuses, or an object is damaged.
    """
    machines = sorted({row[name] for row in rows for name in ("machine", "host") if row[name]})
    hours = {row["opened_ns"] // HOUR_NS + i for row in rows for i in range(-_HOURS, _HOURS + 1)}
    taken = snapshot(storage)
    try:
        connection = connect(storage, _near(taken, hours), _SQL)
        try:
            _narrow(connection, machines)
            return read_graph(connection)
        finally:
            connection.close()
    except duckdb.Error as e:
        raise StorageError(f"the lake cannot be read: {e}") from e


def _near(taken: Snapshot, hours: Collection[int]) -> Snapshot:
    return taken.some(
        {table: [each for each in taken.files.get(table, []) if hour_of(each.key) in hours] for table in _TABLES}
    )


# A table of its own goes before the view of the same name.
def _narrow(connection: duckdb.DuckDBPyConnection, machines: list[str]) -> None:
    for table in _TABLES:
        sql = f"create temp table {table} as select * from main.{table} where list_contains(?, machine)"  # noqa: S608
        connection.execute(sql, [machines])
