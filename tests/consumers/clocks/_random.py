"""Random histories of a guest that is slewed, set, stopped and restored, and of its host, and what was read of them."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from consumers.clocks import pings, ticks
from consumers.clocks.edges import MACHINES, PRINTK, SAME_RATE, SLEWED, TICKS
from consumers.clocks.graph import Graph, Node, NotComparable
from tests.consumers.clocks import _history
from tests.consumers.clocks._history import Counter, Halted, S

LENGTH_NS = 600 * S
NAMES = ("realtime", "mono", "mono_raw", "boot", "printk", "tsc")
GUEST, HOST = ({name: Node(who, "b", name) for name in NAMES} for who in "gh")
_KINDS = {"mono_raw": SLEWED, "printk": PRINTK, "realtime": SAME_RATE, "boot": SAME_RATE}


class History(NamedTuple):
    """The graph that was read, the clocks that are the truth, and the true times that readings surround."""

    rng: np.random.Generator
    graph: Graph
    clocks: dict
    span: tuple


class Machine(NamedTuple):
    """A machine's clocks by name, between which true times all of them were read, and when its rates changed."""

    clocks: dict
    span: tuple
    turns: np.ndarray


def machine(rng, nodes, graph, count, halts=None):
    """Add a random machine's readings to `graph`, of CLOCK_MONOTONIC and `count` of its five other clocks; return it.

    Its agent reads all clocks at random times, CLOCK_REALTIME soon after each time it is set as well. Nobody tells it of
    a counter that is set, as that of a machine that is suspended or moved to another one: no two such steps lie between
    the same two readings (what nobody can know of those, ARCHITECTURE.md says).
    """
    steered = [(int(at), float(rng.uniform(-240, 240))) for at in rng.integers(0, LENGTH_NS, rng.integers(1, 5))]
    raw = _history.random_clock(rng, int(rng.integers(0, 10**15)), LENGTH_NS, around=rng.uniform(-50, 50))
    mono = _history.clock(int(rng.integers(0, 10**15)), LENGTH_NS, [(0, float(rng.uniform(-240, 240))), *steered])
    printk = _history.random_clock(rng, int(rng.integers(0, 10**15)), LENGTH_NS, ppm=1, around=rng.uniform(-200, 200))
    still = {"around": -1e6}  # what it is ahead by stays, but for steps
    sets = _history.random_steps(rng, LENGTH_NS, int(rng.integers(0, 4)))
    real = _history.random_clock(rng, 10**18, LENGTH_NS, steps=sets, **still)
    sleeps = _history.random_steps(rng, LENGTH_NS, int(rng.integers(0, 3)), forward=True)
    boot = _history.random_clock(rng, 0, LENGTH_NS, steps=sleeps, **still)
    clocks = {"mono": mono, "mono_raw": raw, "printk": printk}
    clocks |= {"realtime": _history.with_ahead(mono, real), "boot": _history.with_ahead(mono, boot)}
    told = [at for at, _ in sets] if halts is None else np.concatenate([[], *(halts.when(at) for at, _ in sets)])
    when = {name: _history.moments(rng, LENGTH_NS, _interval_ns(rng)) for name in ("mono_raw", "printk", "boot", "tsc")}
    when["realtime"] = _history.moments(rng, LENGTH_NS, _interval_ns(rng), np.array(told, np.int64))
    clocks["tsc"] = _counter(rng, when["tsc"][0] if halts is None else halts.read(when["tsc"][0]))
    if halts is not None:
        clocks = {name: Halted(each, halts) for name, each in clocks.items()}
    turns = np.sort([at for at, _ in steered])
    # CLOCK_BOOTTIME is always among them: a guest exchanges times with that of its host.
    chosen = ["boot", *rng.choice(sorted(when.keys() - {"boot"}), count - 1, replace=False).tolist()]
    ends = []
    for name in chosen:
        start, end = when[name]
        found, at = _history.local(rng, clocks["mono"], clocks[name], start, end)
        found = replace(found, steady=np.searchsorted(turns, at if halts is None else halts.read(at)))
        if name == "tsc":
            _add_counter(nodes, graph, found)
        else:
            graph.add(nodes["mono"], nodes[name], found, _KINDS[name])
        ends.append((at[0], at[-1]))
    clocks = {name: clocks[name] for name in ("mono", *chosen)}
    return Machine(clocks, (max(first for first, _ in ends), min(last for _, last in ends)), turns)


def _interval_ns(rng):
    return int(rng.choice([2, 10, 30])) * S


# `read` are the machine's own times at which it is read.
def _counter(rng, read):
    steps = _history.random_steps(rng, LENGTH_NS, int(rng.integers(0, 3)))
    gaps = np.searchsorted(np.sort(read), [at for at, _ in steps])
    alone = [step for step, gap in zip(steps, gaps, strict=True) if np.count_nonzero(gaps == gap) == 1]
    own = {"ppm": 1, "around": rng.uniform(-200, 200), "steps": alone}
    base = _history.random_clock(rng, int(rng.integers(0, 10**15)), LENGTH_NS, **own)
    return Counter(base, int(rng.integers(2 * 10**9, 4 * 10**9)))


# Its readings are those of any clock, but in ticks, from which a frequency is to be found first.
def _add_counter(nodes, graph, found):
    shown = found.lo_ns + found.x1_ns
    hz = ticks.frequency_hz(found.x0_ns, found.x1_ns, shown)
    if hz is not None:
        lo_ns, hi_ns = ticks.ns_of(shown, hz) - found.x1_ns, ticks.ns_of(shown + 1, hz) + 1 - found.x0_ns
        graph.add(nodes["mono"], nodes["tsc"], replace(found, lo_ns=lo_ns, hi_ns=hi_ns), TICKS, hz)


def history(seed, count=5):
    """Return a graph of a guest and its host, both machines' clocks, and a true time range in which they were read.

    `count` clocks of each were read against CLOCK_MONOTONIC.
    """
    rng = np.random.default_rng(seed)
    graph = Graph()
    halts, back = _history.halts(rng, LENGTH_NS, rng.random() < 0.3)
    guest, host = machine(rng, GUEST, graph, count, halts), machine(rng, HOST, graph, count)
    every_ns = int(rng.choice([3, 6, 20])) * S
    times, at = _history.pings(rng, guest.clocks["mono"], host.clocks["boot"], LENGTH_NS, every_ns)
    # What one and the other end say of their rates, half of the time.
    steady = np.full(len(at), -1)
    if rng.random() < 0.5:
        steady = np.searchsorted(guest.turns, halts.read(at)) * 100 + np.searchsorted(host.turns, at)
    graph.add(GUEST["mono"], HOST["boot"], pings.readings(times, (at > back).astype(np.int64), steady), MACHINES)
    clocks = {nodes[name]: each for nodes, one in ((GUEST, guest), (HOST, host)) for name, each in one.clocks.items()}
    first, last = np.array([guest.span, host.span]).T
    return History(rng, graph, clocks, (int(first.max()) + 50 * S, int(last.min()) - 50 * S))


def batches(history, pairs, count):
    """Return (source, target, times that the source showed, times that the target did) of so many pairs of clocks.

    Each has `count` times.
    """
    nodes, found = list(history.clocks), []
    for _ in range(pairs):
        source, target = (nodes[i] for i in history.rng.choice(len(nodes), 2, replace=False))
        true_ns = history.rng.integers(*history.span, count)
        found.append((source, target, history.clocks[source].read(true_ns), history.clocks[target].read(true_ns)))
    return found


def judged(batch, column):
    """Return how many were answered, how many of these lie outside their bound, and the bounds."""
    if isinstance(column, NotComparable):
        return 0, 0, np.zeros(0, np.int64)
    good = column.state >= 0
    apart = np.abs(batch[3] - column.ts_ns)
    wrong = good & (apart > column.bound_ns)
    return np.count_nonzero(good), np.count_nonzero(wrong), column.bound_ns[good]
