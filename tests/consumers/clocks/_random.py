"""Random histories of a guest that is slewed, set, stopped and restored, and of its host, and what was read of them."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from consumers.clocks import pings, ticks
from consumers.clocks.edges import MACHINES, PRINTK, SAME_RATE, SLEWED, TICKS
from consumers.clocks.graph import Graph, Node
from tests.consumers.clocks import _history
from tests.consumers.clocks._history import Counter, Halted, S

LENGTH_NS = 600 * S
NAMES = ("realtime", "mono", "mono_raw", "boot", "printk", "tsc")
GUEST, HOST = ({name: Node(who, "b", name) for name in NAMES} for who in "gh")
_PAIRS = 20


class History(NamedTuple):
    """The graph that was read, the clocks that are the truth, and the true times that readings surround."""

    rng: np.random.Generator
    graph: Graph
    clocks: dict
    span: tuple


def machine(rng, nodes, graph, halts=None):
    """Add a random machine's readings to `graph`; return its clocks by name, and the times that readings surround."""
    steered = [(int(at), float(rng.uniform(-240, 240))) for at in rng.integers(0, LENGTH_NS, rng.integers(1, 5))]
    raw = _history.random_clock(rng, int(rng.integers(0, 10**15)), LENGTH_NS, around=rng.uniform(-50, 50))
    mono = _history.clock(int(rng.integers(0, 10**15)), LENGTH_NS, [(0, float(rng.uniform(-240, 240))), *steered])
    printk = _history.random_clock(rng, int(rng.integers(0, 10**15)), LENGTH_NS, ppm=1, around=rng.uniform(-200, 200))
    still = {"around": -1e6}  # what it is ahead by stays, but for steps
    real = _history.random_clock(rng, 10**18, LENGTH_NS, steps=int(rng.integers(0, 4)), **still)
    boot = _history.random_clock(rng, 0, LENGTH_NS, steps=int(rng.integers(0, 3)), forward=True, **still)
    clocks = {"mono": mono, "mono_raw": raw, "printk": printk}
    clocks |= {"realtime": _history.with_ahead(mono, real), "boot": _history.with_ahead(mono, boot)}
    # A counter, which may be set, as those of a machine that is suspended or moved to another one.
    tsc = _history.random_clock(
        rng,
        int(rng.integers(0, 10**15)),
        LENGTH_NS,
        ppm=1,
        around=rng.uniform(-200, 200),
        steps=int(rng.integers(0, 3)),
    )
    clocks["tsc"] = Counter(tsc, int(rng.integers(2 * 10**9, 4 * 10**9)))
    if halts is not None:
        clocks = {name: Halted(each, halts) for name, each in clocks.items()}
    turns = np.sort([at for at, _ in steered])
    ends = []
    kinds = {"mono_raw": SLEWED, "printk": PRINTK, "realtime": SAME_RATE, "boot": SAME_RATE}
    for name, kind in kinds.items():
        interval_ns = int(rng.choice([1, 10, 30])) * S
        found, at = _history.local(rng, clocks["mono"], clocks[name], LENGTH_NS, interval_ns)
        steady = np.searchsorted(turns, at if halts is None else halts.read(at))
        graph.add(nodes["mono"], nodes[name], replace(found, steady=steady), kind)
        ends.append((at[0], at[-1]))
    _add_counter(rng, nodes, graph, clocks, lambda at: np.searchsorted(turns, at if halts is None else halts.read(at)))
    return clocks, (max(first for first, _ in ends), min(last for _, last in ends)), turns


# Its readings are those of any clock, but in ticks, from which a frequency is to be found first.
def _add_counter(rng, nodes, graph, clocks, steady):
    found, at = _history.local(rng, clocks["mono"], clocks["tsc"], LENGTH_NS, int(rng.choice([1, 10, 30])) * S)
    shown = found.lo_ns + found.x1_ns
    hz = ticks.frequency_hz(found.x0_ns, found.x1_ns, shown)
    if hz is not None:
        lo_ns, hi_ns = ticks.ns_of(shown, hz) - found.x1_ns, ticks.ns_of(shown + 1, hz) + 1 - found.x0_ns
        found = replace(found, lo_ns=lo_ns, hi_ns=hi_ns, steady=steady(at))
        graph.add(nodes["mono"], nodes["tsc"], found, TICKS, hz)


def history(seed):
    """Return a graph of a guest and its host, both machines' clocks, and a true time range in which they were read."""
    rng = np.random.default_rng(seed)
    graph = Graph()
    halts, back = _history.halts(rng, LENGTH_NS, rng.random() < 0.3)
    guest, (guest_from, guest_to), one = machine(rng, GUEST, graph, halts)
    host, (host_from, host_to), two = machine(rng, HOST, graph)
    times, at = _history.pings(rng, guest["mono"], host["boot"], LENGTH_NS, int(rng.choice([2, 5, 20])) * S)
    # What one and the other end say of their rates, half of the time.
    steady = (
        np.searchsorted(one, halts.read(at)) * 100 + np.searchsorted(two, at)
        if rng.random() < 0.5
        else np.full(len(at), -1)
    )
    graph.add(GUEST["mono"], HOST["boot"], pings.readings(times, (at > back).astype(np.int64), steady), MACHINES)
    span = max(guest_from, host_from) + 50 * S, min(guest_to, host_to) - 50 * S
    return History(
        rng, graph, {**{GUEST[n]: c for n, c in guest.items()}, **{HOST[n]: c for n, c in host.items()}}, span
    )


def batches(history, count):
    """Return (source, target, times that the source showed, true times) of random pairs of clocks, `count` in all."""
    nodes, found = list(history.clocks), []
    for _ in range(_PAIRS):
        source, target = (nodes[i] for i in history.rng.choice(len(nodes), 2, replace=False))
        true_ns = history.rng.integers(*history.span, count // _PAIRS)
        found.append((source, target, history.clocks[source].read(true_ns), history.clocks[target].read(true_ns)))
    return found


def judged(batch, column):
    """Return how many were answered, how many of these lie outside their bound, and the bounds."""
    good = column.state >= 0
    apart = np.abs(batch[3] - column.ts_ns)
    wrong = good & (apart > column.bound_ns)
    return np.count_nonzero(good), np.count_nonzero(wrong), column.bound_ns[good]
