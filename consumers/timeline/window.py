"""The window of a timeline: between two times of one clock, and which times of any other clock these can be.

A window is widened outwards by the bounds of what was converted, so that nothing in it is left out; what is only near
it falls away when each row is converted.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from consumers.clocks.graph import Graph, Node, NotComparable
from consumers.clocks.index import FAR_NS
from consumers.coverage import Span, merged

#: A window is converted at its ends and between so many equal parts of it.
PARTS: Final = 64
#: Two clocks differ in their rates by less than this, steps apart.
_RATE_MAX: Final = 0.01


class Window(NamedTuple):
    """From `since_ns` to `until_ns` of the clock `node`; None where nothing is known of a clock, and UTC is meant.

    `arrival` is the same window by the log's clock, for what does not compare; `start_ns` is its begin on the clock
    that is shown, the `axis`.
    """

    node: Node | None
    since_ns: int
    until_ns: int
    arrival: Span
    axis: Node | None
    start_ns: int


class Reach(NamedTuple):
    """Which times of one clock can lie in a window; not `complete` where parts of the window do not compare with it."""

    spans: tuple[Span, ...]
    complete: bool


def reach(graph: Graph, node: Node | None, since_ns: int, until_ns: int, other: Node) -> Reach:
    """Return which times of `other` can lie between two times of `node`."""
    if node is None:
        return Reach((), complete=False)
    if node == other:
        return Reach((Span(since_ns, until_ns),), complete=True)
    grid = _grid(since_ns, until_ns)
    found = graph.convert_many(grid, node, other)
    if isinstance(found, NotComparable):
        return Reach((), complete=False)
    good = found.state >= 0
    # What lies between two points of the grid, though the other one may have no answer.
    apart = -(-(until_ns - since_ns) // PARTS) * graph.per_s(other) / graph.per_s(node)
    beside = 1 + int((1 + _RATE_MAX) * apart)
    low, high = (found.ts_ns - found.bound_ns)[good].tolist(), (found.ts_ns + found.bound_ns)[good].tolist()
    if not low:
        return Reach((), complete=False)
    spans = merged(Span(first - beside, last + beside) for first, last in zip(low, high, strict=True))
    if not good.all():
        return Reach(tuple(spans), complete=False)
    # Nothing lies beyond the ends of the window.
    return Reach(tuple(Span(max(one, min(low)), min(two, max(high))) for one, two in spans), complete=True)


def compared(graph: Graph, node: Node, since_ns: int, until_ns: int, other: Node) -> int:
    """Return at how many points of the window its clock compares with another one, of PARTS + 1."""
    found = graph.convert_many(_grid(since_ns, until_ns), node, other)
    return 0 if isinstance(found, NotComparable) else int((found.state >= 0).sum())


def shift_ns(graph: Graph, node: Node, since_ns: int, until_ns: int, other: Node) -> int | None:
    """Return by how much `other` is ahead of `node` about there, for what need not be exact; None if nobody knows."""
    if node == other:
        return 0
    grid = _grid(since_ns, until_ns)
    found = graph.convert_many(grid, node, other)
    if isinstance(found, NotComparable) or not (found.state >= 0).any():
        return None
    at = int(np.flatnonzero(found.state >= 0)[0])
    return int(found.ts_ns[at]) - int(grid[at])


def best(graph: Graph, nodes: Sequence[Node], since_ns: int, until_ns: int, other: str) -> Node | None:
    """Return the one of `nodes` whose time compares with the same machine's clock `other` in most of the window.

    Of several that do so alike it is the last.
    """
    counted = [
        (compared(graph, node, since_ns, until_ns, node._replace(clock=other)), i) for i, node in enumerate(nodes)
    ]
    most = max(counted, default=(0, 0))
    return nodes[most[1]] if counted and most[0] else None


def _grid(since_ns: int, until_ns: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    since_ns, until_ns = max(since_ns, -FAR_NS), min(until_ns, FAR_NS)
    return np.array([since_ns + (until_ns - since_ns) * part // PARTS for part in range(PARTS + 1)], np.int64)
