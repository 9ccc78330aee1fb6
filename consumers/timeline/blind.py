"""Which streams nobody watched in a window, and when: what is silent there proves nothing.

Spans of watching are on CLOCK_BOOTTIME of their machine. On the window's clock they are taken for as short as the
bounds allow. Where an end does not compare, it stands where the machine's own CLOCK_REALTIME has it, without a bound.
"""

from typing import Final, NamedTuple

import duckdb
import numpy as np

from consumers.clocks.graph import BOOT, Graph, Node, NotComparable
from consumers.coverage import Answer, Span, read_spans, tells, watched
from consumers.timeline.entries import Entry, Kind, Order
from consumers.timeline.scope import Scope, told
from consumers.timeline.window import Window
from schemas.stream import Stream

#: Clocks of machines that do not compare may be as far apart as this: so far beyond the window spans are looked for.
_APART_NS: Final = 3_600_000_000_000
_BOOTS: Final = """
select machine, boot_id, max_by(realtime_ns - boottime_ns, boottime_ns), max(until_realtime_ns)
from coverage group by all
"""
_NO_CLOCK: Final = "nobody read both clocks around this time"


class _Boot(NamedTuple):
    # Its CLOCK_BOOTTIME, by how much the window's clock is about ahead of that, and when it was last watched.
    node: Node
    ahead_ns: int
    last_ns: int


def blind(
    connection: duckdb.DuckDBPyConnection, scope: Scope, graph: Graph, window: Window, seen: set[tuple[str, str]]
) -> list[Entry]:
    """Return the spans of the window in which a stream was not watched; they are placed already.

    `connection` has the table `coverage`. Of boots that have neither heartbeats in the window nor rows (`seen`) only
    the last one of each machine is told: any other was over.
    """
    entries = []
    boots = [
        _Boot(Node(machine, boot_id, BOOT), ahead_ns, last_ns)
        for machine, boot_id, ahead_ns, last_ns in connection.execute(_BOOTS).fetchall()
    ]
    newest = {boot.node.machine: boot for boot in sorted(boots, key=lambda boot: boot.last_ns)}
    known = {boot.node[:2] for boot in boots}
    boots += [_Boot(Node(*each, BOOT), 0, 0) for each in sorted(seen - known)]
    for boot in sorted(boots):
        streams = [each for each in scope.streams if each[:2] == boot.node[:2] and tells(each) and told(each, scope)]
        since_ns, until_ns = window.arrival.since_ns - boot.ahead_ns, window.arrival.until_ns - boot.ahead_ns
        found = read_spans(connection, *boot.node[:2], since_ns - _APART_NS, until_ns + _APART_NS)
        mine = [entry for stream in streams for entry in _of(stream, found.get(stream, []), boot, graph, window)]
        inside = any(entry.until_at_ns != window.until_ns or entry.at_ns != window.since_ns for entry in mine)
        if inside or len(mine) < len(streams) or boot.node[:2] in seen or boot == newest.get(boot.node.machine):
            entries += mine
    return entries


def _of(stream: Stream, spans: list[Span], boot: _Boot, graph: Graph, window: Window) -> list[Entry]:
    seen, bounds = _on_window(spans, boot, graph, window)
    answer = watched(seen, window.since_ns, window.until_ns)
    entries = []
    for span in answer.blind:
        what = "no heartbeat says that it was watched" if answer.answer is Answer.NO else "not watched"
        text = f"{what}: {(span.until_ns - span.since_ns) / 1e9:.1f} s"
        entry = Entry(Kind.BLIND, stream, BOOT, None, window.arrival.since_ns, text, None, 4)
        ends = [bounds.get(end, 0) for end in span]
        entry.at_ns, entry.until_at_ns = span
        exact = [end for end in ends if end is not None]
        entry.bound_ns = max(exact) if window.node is not None and len(exact) == len(ends) else None
        if entry.bound_ns is None:
            entry.order, entry.reason = Order.ARRIVAL, _NO_CLOCK
        entries.append(entry)
    return entries


# The spans on the clock of the window, and the bound of each end; None for one that does not compare.
def _on_window(
    spans: list[Span], boot: _Boot, graph: Graph, window: Window
) -> tuple[list[Span], dict[int, int | None]]:
    if not spans:
        return [], {}
    ends = np.array(spans, np.int64).reshape(-1)
    rough = (ends + boot.ahead_ns + window.since_ns - window.arrival.since_ns).tolist()
    found = None if window.node is None else graph.convert_many(ends, boot.node, window.node)
    if found is None or isinstance(found, NotComparable):
        return [Span(*pair) for pair in zip(rough[::2], rough[1::2], strict=True)], dict.fromkeys(rough)
    bounds: dict[int, int | None] = {}
    exact: list[int] = []
    columns = (found.ts_ns.tolist(), found.bound_ns.tolist(), found.state.tolist(), rough)
    for i, (at_ns, bound_ns, state, near_ns) in enumerate(zip(*columns, strict=True)):
        end_ns = near_ns if state < 0 else at_ns - bound_ns if i % 2 else at_ns + bound_ns
        exact.append(end_ns)
        bounds[end_ns] = None if state < 0 else bound_ns
    pairs = zip(exact[::2], exact[1::2], strict=True)
    return [Span(*pair) for pair in pairs if pair[0] <= pair[1]], bounds
