"""Show which clocks the lake connects: how far one is ahead of the other, how exactly that is known, and how it drifts.

One line for two clocks, as the newest reading has them: `to` is `ahead_s` ahead of `from`, within `bound_ns`. Away from
readings the bound grows by `grows_ppm` at most, less where both ends say that their rates were steady, and not at all
where it is 0. `steps` counts how often one of the two was found set, stopped or restored between two readings: times
around that do not compare. A counter of ticks is reckoned with in ns of the frequency that stands beside it; beside
printk's clock stands how it was read.
"""

import argparse
import time
from typing import Any, Final

import numpy as np

from consumers import render
from consumers.cli import add_lake
from consumers.clock_graph import read_graph
from consumers.clocks.edges import BLOCK, SAME_RATE, Edge
from consumers.clocks.graph import MONO, PRINTK, REALTIME, Graph, Node
from consumers.lake.damage import exit_code
from consumers.lake.layout import open_lake
from consumers.views import connect
from schemas.errors import UsageError

_COLUMNS: Final = (
    "machine", "boot", "from", "to", "ahead_s", "bound_ns", "drift_ppm", "grows_ppm", "readings", "steps", "age_s"
)  # fmt: skip
_SQL: Final = "select * from clock_readings, clock_pings, coverage"
_HOW: Final = "select machine, boot_id, max_by(how, ts_ns) from clock_readings where how is not null group by all"
_VMS: Final = "select distinct machine, host_machine from clock_pings where vm = ?"


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Add this verb's flags."""
    add_lake(sub)
    which = sub.add_mutually_exclusive_group()
    which.add_argument("--machine", metavar="ID", help="only clocks of this machine; the beginning of an id is enough")
    which.add_argument("--vm", metavar="NAME", help="only clocks of the guest that its host calls so, and of that host")
    sub.add_argument("--json", action="store_true", help="one JSON object, with whole names and times in ns")


def run(args: argparse.Namespace) -> int:
    """Print one line for each edge of the graph."""
    storage = open_lake(args.lake, create=False)
    connection = connect(storage, sql=_SQL)
    graph = read_graph(connection)
    nodes = {node for pair in graph.edges() for node in pair}
    if args.vm is not None:
        machines = {name for row in connection.execute(_VMS, [args.vm]).fetchall() for name in row}
    elif args.machine is not None:
        machines = {node.machine for node in nodes if node.machine.startswith(args.machine)}
    else:
        machines = {node.machine for node in nodes}
    if not machines and nodes:
        known = ", ".join(sorted({node.machine for node in nodes}))
        what = f"the VM {args.vm}" if args.vm is not None else f"the machine {args.machine}"
        raise UsageError(f"the lake has no clocks of {what}; there are those of: {known}")
    now_ns = time.time_ns()
    how = {Node(machine, boot, PRINTK): each for machine, boot, each in connection.execute(_HOW).fetchall()}
    rows = [
        _described(pair, edge, graph, now_ns) | {"how": how.get(pair[1])}
        for pair, edge in sorted(graph.edges().items())
        if {pair[0].machine, pair[1].machine} & machines
    ]
    if args.json:
        render.print_json({"edges": rows})
    else:
        _print(rows)
    return exit_code(storage)


def _described(pair: tuple[Node, Node], edge: Edge, graph: Graph, now_ns: int) -> dict[str, Any]:
    readings = edge.readings
    low, high = int(readings.lo_ns[-1]), int(readings.hi_ns[-1])
    ahead_ns = low + (high - low) // 2
    at_ns = int(readings.x0_ns[-1])
    wall = graph.edges().get((pair[0]._replace(clock=MONO), pair[0]._replace(clock=REALTIME)))
    read_ns = None if wall is None else at_ns + int(wall.readings.lo_ns[-1])
    return {
        "from": pair[0]._asdict(),
        "to": pair[1]._asdict(),
        "kind": edge.kind.name,
        "hz": edge.hz,
        "ahead_ns": ahead_ns,
        "bound_ns": high - ahead_ns,
        "at_ns": at_ns,
        "drift_ppm": None if edge.kind is SAME_RATE else _drift_ppm(edge),
        "grows_ppm": 0.0 if edge.kind is SAME_RATE else edge.kind.rate_ppb_max / 1000,
        "readings": len(readings.x0_ns),
        "steps": len(edge.starts) - 1,
        "age_s": None if read_ns is None else round((now_ns - read_ns) / 1e9, 1),
    }


# By how much faster the second clock went over the newest readings that no step parts, as a line fits them best.
def _drift_ppm(edge: Edge) -> float | None:
    rows = slice(max(edge.starts[-1], len(edge.readings.x0_ns) - BLOCK), None)
    at_ns = (edge.readings.x0_ns[rows] - edge.readings.x0_ns[-1]).astype(np.float64)
    ahead = edge.readings.lo_ns[rows] + (edge.readings.hi_ns[rows] - edge.readings.lo_ns[rows]) // 2
    if len(at_ns) < 2:
        return None
    away = (ahead - ahead[-1]).astype(np.float64)
    at_ns -= at_ns.mean()
    return round(float(np.dot(at_ns, away) / np.dot(at_ns, at_ns)) * 1e6, 3) + 0.0  # no minus before a nought


def _print(rows: list[dict[str, Any]]) -> None:
    names = render.short_ids(
        row[end][part] for row in rows for end in ("from", "to") for part in ("machine", "boot_id")
    )
    table = []
    for row in rows:
        one, other = row["from"], row["to"]
        target = other["clock"] if other["machine"] == one["machine"] else f"{names[other['machine']]} {other['clock']}"
        target += "" if row["hz"] is None else f" at {row['hz'] / 1e6:.3f} MHz"
        target += "" if row["how"] is None else f" by {row['how']}"
        where = (names[one["machine"]], names[one["boot_id"]], one["clock"], target)
        numbers = [row[name] for name in _COLUMNS[5:]]
        table.append((*where, _seconds(row["ahead_ns"]), *numbers))
    render.print_rows(_COLUMNS, table, "table", whole="--json")


def _seconds(ns: int) -> str:
    return f"{'-' if ns < 0 else ''}{abs(ns) // 10**9}.{abs(ns) % 10**9:09d}"
