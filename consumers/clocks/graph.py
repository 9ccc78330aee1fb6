"""The graph of clocks: a time of one is converted to any other that readings connect it with, and how exact that is."""

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from consumers.clocks.edges import Edge, Kind, Readings, make_edge
from consumers.clocks.index import FAR_NS, REASONS, Ints
from consumers.clocks.ticks import NS_PER_S, Counted
from consumers.clocks.track import Track

REALTIME: Final = "realtime"
MONO: Final = "mono"
MONO_RAW: Final = "mono_raw"
BOOT: Final = "boot"
TAI: Final = "tai"
PRINTK: Final = "printk"
#: The CPU's counter: its times are in ticks.
TSC: Final = "tsc"
#: Trace clocks that show no ns: ticks of a CPU, events, jiffies (kernel/trace/trace_clock.c).
COUNTERS: Final = frozenset({"x86-tsc", "counter", "uptime"})
#: Those that show ns.
CLOCKS: Final = (REALTIME, MONO, MONO_RAW, BOOT, TAI, PRINTK)
#: Trace clocks that are one of these under another name (kernel/trace/trace_clock.c): the first two are `local_clock()`
#: where the kernel takes its own clock for stable. `local` is not: it is one for each CPU.
_ALIASES: Final = {"global": PRINTK, "perf": PRINTK, "x86-tsc": TSC}


class Node(NamedTuple):
    """One clock of one boot of one machine, by the name that streams have for it."""

    machine: str
    boot_id: str
    clock: str


class Converted(NamedTuple):
    """The time asked for is within `bound_ns` of `ts_ns`, before or behind it; both are ticks where the clock's are."""

    ts_ns: int
    bound_ns: int


class NotComparable(NamedTuple):
    """There is no answer, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class ConvertedColumn:
    """As `Converted` for a column; where `state` is below 0 there is no answer: `index.REASONS` says why."""

    ts_ns: Ints
    bound_ns: Ints
    state: Ints


Way = Track | Counted


class Graph:
    """Clocks, and what was read of each two."""

    def __init__(self) -> None:
        self._edges: dict[tuple[Node, Node], Edge] = {}
        self._tracks: dict[Node, dict[Node, Way]] = {}
        self._paths: dict[tuple[Node, Node], list[Way] | None] = {}
        self._hz: dict[Node, int] = {}

    def add(self, one: Node, other: Node, readings: Readings, kind: Kind, hz: int | None = None) -> None:
        """Connect two clocks by `readings` of both, in the order in which they were taken; no readings are no edge.

        Where `other` is a counter, `hz` is its nominal frequency, and `readings` have its times in ns of that.
        """
        assert one != other
        assert not {(one, other), (other, one)} & set(self._edges)
        if not len(readings.x0_ns):
            return
        edge = make_edge(readings, kind, hz)
        self._edges[one, other] = edge
        there, back = edge.forward, edge.backward
        self._tracks.setdefault(one, {})[other] = there if hz is None else Counted(there, hz, from_ticks=False)
        self._tracks.setdefault(other, {})[one] = back if hz is None else Counted(back, hz, from_ticks=True)
        if hz is not None:
            self._hz[other] = hz
        self._paths.clear()

    def edges(self) -> dict[tuple[Node, Node], Edge]:
        """Return what connects two clocks, by their nodes."""
        return dict(self._edges)

    def per_s(self, node: Node) -> int:
        """Return how many units of this clock are a second: ns, or the ticks of a counter."""
        return self._hz.get(_canonical(node), NS_PER_S)

    def convert(self, ts_ns: int, source: Node, target: Node, span_ns: int = 0) -> Converted | NotComparable:
        """Return which time of `target` it was when `source` showed `ts_ns`, or some time up to `span_ns` later.

        A time of the kernel log is cut to whole us: its `span_ns` is 999.
        """
        path = self._path(source, target)
        if path is None:
            return NotComparable(f"nothing connects {_named(source)} with {_named(target)}")
        found = _through(path, np.array([ts_ns], np.int64), span_ns)
        if found.state[0] < 0:
            return NotComparable(REASONS[int(found.state[0])])
        return Converted(int(found.ts_ns[0]), int(found.bound_ns[0]))

    def convert_many(
        self, ts_ns: Ints, source: Node, target: Node, span_ns: int = 0
    ) -> ConvertedColumn | NotComparable:
        """Return `convert` for a column of times; NotComparable where there is no answer for any time."""
        path = self._path(source, target)
        if path is None:
            return NotComparable(f"nothing connects {_named(source)} with {_named(target)}")
        return _through(path, ts_ns, span_ns)

    # The way over the fewest edges, None where there is none.
    def _path(self, source: Node, target: Node) -> list[Way] | None:
        source, target = _canonical(source), _canonical(target)
        if (source, target) not in self._paths:
            self._paths[source, target] = self._find(source, target)
        return self._paths[source, target]

    def _find(self, source: Node, target: Node) -> list[Way] | None:
        if source == target:
            return []
        ways: dict[Node, list[Way]] = {source: []}
        waiting = deque([source])
        while waiting:
            at = waiting.popleft()
            for following, track in self._tracks.get(at, {}).items():
                if following not in ways:
                    ways[following] = [*ways[at], track]
                    waiting.append(following)
        return ways.get(target)


def _through(path: list[Way], ts_ns: Ints, span_ns: int) -> ConvertedColumn:
    low = np.clip(ts_ns, -FAR_NS, FAR_NS)
    high = low + span_ns
    state = np.zeros(len(ts_ns), np.int64)
    for track in path:
        low, high, found = track.apply(low, high)
        state = np.where(state < 0, state, found)
    middle = low + (high - low) // 2
    return ConvertedColumn(middle, high - middle, state)


def _canonical(node: Node) -> Node:
    return node._replace(clock=_ALIASES.get(node.clock, node.clock))


def _named(node: Node) -> str:
    return f"{node.clock} of {node.machine} in the boot {node.boot_id}"
