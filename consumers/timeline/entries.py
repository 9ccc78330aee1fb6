"""The rows of a timeline: what was emitted, counted, lost or not watched; put on one clock and in order, with bounds.

Times of one clock are in their own order, exactly. Two rows of different clocks whose bounds overlap have no order that
anybody knows: both are marked. What cannot be converted stands where it arrived in the log, and is marked as well.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from consumers.clocks.graph import Graph, Node, NotComparable
from consumers.clocks.index import REASONS, Ints
from schemas.stream import Stream

#: Times of the kernel log are cut to whole us, and so are those that QEMU's events have of CLOCK_REALTIME.
_SPAN_NS: Final = {"printk": 999, "realtime": 999}


class Kind(StrEnum):
    """What a row is: one record, several that were counted, a stretch of time, a loss, or that nobody looked."""

    RECORD = "record"
    COUNT = "count"
    SPAN = "span"
    LOSS = "loss"
    DEAD_LETTER = "dead-letter"
    BLIND = "blind"


class Order(StrEnum):
    """Whether a row's place among its neighbours is known."""

    KNOWN = "known"
    UNDETERMINED = "undetermined"
    ARRIVAL = "arrival"


@dataclass(slots=True)
class Entry:
    """One row. Its own time is `ts_ns`, to `until_ns` where it has a length, on `clock` of that machine and boot.

    `at_ns` is that on the clock of the timeline, within `bound_ns` (None: not comparable, because of `reason`);
    `until_at_ns` likewise. `level` is a severity as the kernel log has them, `position` that in its stream.
    """

    kind: Kind
    stream: Stream
    clock: str
    ts_ns: int | None
    arrival_ns: int
    text: str
    until_ns: int | None = None
    level: int | None = None
    position: int = -1
    at_ns: int = 0
    bound_ns: int | None = None
    until_at_ns: int | None = None
    order: Order = Order.KNOWN
    reason: str = ""

    @property
    def node(self) -> Node:
        """Return the clock of its own time."""
        return Node(self.stream.machine, self.stream.boot_id, self.clock)


def place(entries: Sequence[Entry], graph: Graph, axis: Node | None, shift_ns: int) -> None:
    """Convert every own time to the clock `axis`; `shift_ns` is by how much that is ahead of the log's clock."""
    by_node: dict[Node, list[Entry]] = {}
    for entry in entries:
        if entry.kind is Kind.BLIND:
            _moved(entry, shift_ns)
        elif entry.ts_ns is None:
            _arrived(entry, shift_ns, "it has no time of its own")
        elif axis is None:
            _arrived(entry, shift_ns, "no clock was read")
        else:
            by_node.setdefault(entry.node, []).append(entry)
    for node, group in by_node.items():
        assert axis is not None
        _place_all(group, graph, node, axis, shift_ns)


def _place_all(group: list[Entry], graph: Graph, node: Node, axis: Node, shift_ns: int) -> None:
    first = np.array([entry.ts_ns for entry in group], np.int64)
    last = np.array([entry.ts_ns if entry.until_ns is None else entry.until_ns for entry in group], np.int64)
    span_ns = _SPAN_NS.get(node.clock, 0)
    begins = graph.convert_many(first, node, axis, span_ns)
    ends = graph.convert_many(last, node, axis, span_ns)
    if isinstance(begins, NotComparable) or isinstance(ends, NotComparable):
        reason = begins.reason if isinstance(begins, NotComparable) else ""
        for entry in group:
            _arrived(entry, shift_ns, reason)
        return
    columns = (begins.ts_ns, begins.bound_ns, begins.state, ends.ts_ns, ends.bound_ns, ends.state)
    for entry, *found in zip(group, *(column.tolist() for column in columns), strict=True):
        at_ns, bound_ns, state, end_ns, end_bound_ns, end_state = found
        if state < 0 and end_state < 0:
            _arrived(entry, shift_ns, REASONS[state])
            continue
        entry.order, entry.reason = Order.KNOWN, ""
        if state < 0:
            at_ns, bound_ns, entry.reason = end_ns, end_bound_ns, f"where it began: {REASONS[state]}"
        elif end_state < 0:
            end_ns, end_bound_ns, entry.reason = at_ns, bound_ns, f"where it ended: {REASONS[end_state]}"
        entry.at_ns, entry.bound_ns = at_ns, max(bound_ns, end_bound_ns)
        entry.until_at_ns = None if entry.until_ns is None else end_ns


# It was placed by the window that it is a part of.
def _moved(entry: Entry, shift_ns: int) -> None:
    entry.at_ns, entry.bound_ns, entry.order = entry.at_ns + shift_ns, None, Order.ARRIVAL
    entry.reason = "it was found on another clock"
    if entry.until_at_ns is not None:
        entry.until_at_ns += shift_ns


# Where it arrived, which is after it happened.
def _arrived(entry: Entry, shift_ns: int, reason: str) -> None:
    entry.at_ns, entry.bound_ns, entry.reason = entry.arrival_ns + shift_ns, None, reason
    entry.until_at_ns, entry.order = None, Order.ARRIVAL


def ordered(entries: Iterable[Entry]) -> list[Entry]:
    """Return `entries`, which are placed, in order, those of one clock in their own; each knows what that is worth."""
    found = sorted(entries, key=lambda entry: (entry.at_ns, entry.node, entry.ts_ns or 0, entry.stream, entry.position))
    _own_order(found)
    low = np.array([entry.at_ns - (entry.bound_ns or 0) for entry in found], np.int64)
    high = np.array([entry.at_ns + (entry.bound_ns or 0) for entry in found], np.int64)
    # That nobody looked is no event, which could have been before or behind another.
    placed = [i for i, entry in enumerate(found) if entry.bound_ns is not None and entry.kind is not Kind.BLIND]
    before = _furthest(found, placed, high)
    after = _furthest(found, placed[::-1], -low)
    for i in placed:
        near = before[i] >= low[i] or -after[i] <= high[i]
        found[i].order = Order.UNDETERMINED if near else Order.KNOWN
    return found


# Bounds differ from time to time, so the middles of two intervals can lie the other way round than the times.
def _own_order(found: list[Entry]) -> None:
    places: dict[Node, list[int]] = {}
    for i, entry in enumerate(found):
        if entry.bound_ns is None or entry.ts_ns is None:
            continue
        mine = places.setdefault(entry.node, [])
        mine.append(i)
        k = len(mine) - 1
        while k and _inverted(found[mine[k - 1]], found[mine[k]]):
            found[mine[k - 1]], found[mine[k]] = found[mine[k]], found[mine[k - 1]]
            k -= 1


def _inverted(one: Entry, two: Entry) -> bool:
    near = two.at_ns - one.at_ns <= (one.bound_ns or 0) + (two.bound_ns or 0)
    return near and (one.ts_ns or 0) > (two.ts_ns or 0)


# For each of `places` how far the intervals of other clocks before it reach.
def _furthest(found: list[Entry], places: list[int], edge: Ints) -> dict[int, int]:
    none = -(1 << 63)
    best: tuple[int, Node | None] = (none, None)
    second = none
    reached: dict[int, int] = {}
    for i in places:
        node, at = found[i].node, int(edge[i])
        reached[i] = second if node == best[1] else best[0]
        if node == best[1]:
            best = max(best[0], at), node
        elif at > best[0]:
            best, second = (at, node), best[0]
        else:
            second = max(second, at)
    return reached
